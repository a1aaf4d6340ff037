"""Pure decisions of `pack`."""

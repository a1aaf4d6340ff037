"""Pure decisions of `estimate`."""

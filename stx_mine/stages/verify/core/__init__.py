"""Pure decisions of `verify`."""

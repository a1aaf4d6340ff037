"""Pure decisions of `queries`."""

"""Pure decisions of `split`."""

"""Pure decisions of `merge`."""

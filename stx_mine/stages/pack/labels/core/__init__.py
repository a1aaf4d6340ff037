"""Pure decisions of `labels`."""

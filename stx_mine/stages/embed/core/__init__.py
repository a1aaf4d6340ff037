"""Pure decisions of `embed`."""

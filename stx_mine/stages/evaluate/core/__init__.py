"""Pure decisions of `evaluate`."""

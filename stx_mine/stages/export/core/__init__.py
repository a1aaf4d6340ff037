"""Pure decisions of `export`."""

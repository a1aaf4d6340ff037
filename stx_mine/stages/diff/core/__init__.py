"""Pure decisions of `diff`."""

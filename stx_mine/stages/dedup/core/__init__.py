"""Pure decisions of `dedup`."""

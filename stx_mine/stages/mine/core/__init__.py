"""Pure decisions of `mine`."""

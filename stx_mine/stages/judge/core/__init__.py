"""Pure decisions of `judge`."""

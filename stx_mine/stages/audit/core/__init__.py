"""Pure decisions of `audit`."""

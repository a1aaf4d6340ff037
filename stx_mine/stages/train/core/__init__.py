"""Pure decisions of `train`."""

"""Pure decisions: arrays and keyword arguments in, arrays and reasons out."""

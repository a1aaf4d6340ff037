"""Pure helpers of several stages: arrays and keyword arguments in, arrays and reasons out."""

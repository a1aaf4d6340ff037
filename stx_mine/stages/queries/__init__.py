"""`queries`: make queries out of passages."""

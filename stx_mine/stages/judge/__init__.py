"""`judge`: have a stronger model score the candidates that the embedding model is unsure of."""

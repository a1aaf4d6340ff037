"""`embed`: a vector for every distinct text."""

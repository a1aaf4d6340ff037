"""Exact and FAISS search over stored vectors, and the score."""

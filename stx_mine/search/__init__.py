"""Exact and FAISS search over stored vectors."""

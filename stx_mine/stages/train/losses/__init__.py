"""Losses on packed batches, ours and those of sentence-transformers."""

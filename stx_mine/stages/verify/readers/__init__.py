"""Readers of rows: one file a family of layouts."""

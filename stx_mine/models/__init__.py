"""Encoders behind a small protocol."""

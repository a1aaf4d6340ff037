"""Encoders and tokenisers behind small protocols."""

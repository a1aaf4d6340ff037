"""Turn (query, passage) pairs into training data for embedding models, offline."""

__version__ = "0.1.0"

"""`train`: a model from packed batches."""

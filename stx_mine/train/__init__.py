"""Training on packed batches."""

"""`show`: look at queries, passages and batches of a run."""

"""`pack --layout labels`: batches of (text, label) rows."""

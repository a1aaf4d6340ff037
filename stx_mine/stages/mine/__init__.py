"""`mine`: search, give every hit a verdict, keep an ordered pool of negatives per pair."""

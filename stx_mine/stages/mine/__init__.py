"""`mine`: search, judge every hit, keep an ordered pool of negatives per pair."""

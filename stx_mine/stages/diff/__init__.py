"""`diff`: which negatives differ between two runs, and why."""

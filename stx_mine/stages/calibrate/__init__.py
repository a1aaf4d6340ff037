"""`calibrate`: which rules to mine with, tried on a sample of queries before the full search."""

"""`dedup`: which texts count as one text."""

"""`verify`: check every invariant of packed batches, or of rows that others wrote."""

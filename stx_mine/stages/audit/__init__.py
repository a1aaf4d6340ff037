"""`audit`: measure how many of the mined negatives are false."""

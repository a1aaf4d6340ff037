"""`split`: training, development and test pairs that share no text, as a BEIR folder."""

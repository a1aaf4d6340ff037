"""`init`: look at someone's data and write a pipeline file for it."""

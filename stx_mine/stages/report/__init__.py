"""`report`: one page about a run that anybody can open, with the same numbers as JSON beside it."""

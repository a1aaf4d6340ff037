"""Merge: one model out of several, by their weights."""

"""Tune: try policies on held-out pairs of one's own, and write the pipeline of the best."""

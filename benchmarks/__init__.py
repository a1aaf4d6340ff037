"""Measurements of stx-mine beside its peers, on real data."""

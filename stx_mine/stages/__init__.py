"""Stages: each reads artifacts, calls the rooms below, writes one artifact, returns a report."""

"""Counts of `tune`."""

from dataclasses import dataclass

from stx_mine.store.counts import Counts


@dataclass(frozen=True, kw_only=True)
class TuneCounts(Counts):
    """How much was tried.

    Attributes:
        policies: Policies that were tried.
        trials: Trials that were run.
        failed: Policies that could not be run.
        skipped: Trials that the budget had no room for.
        seconds: What all of it took.
    """

    policies: int
    trials: int
    failed: int
    skipped: int
    seconds: float

"""Counts of `calibrate`."""

from dataclasses import dataclass

from stx_mine.store.counts import Counts


@dataclass(frozen=True, kw_only=True)
class CalibrateCounts(Counts):
    """What was tried.

    Attributes:
        queries: Queries of the sample.
        queries_several: Queries with several positives, some of which were hidden.
        hidden: Positives that were hidden.
        judged: Negatives without a rule that the judge knows; 0 without a judge.
        settings: Settings that were tried.
    """

    queries: int
    queries_several: int
    hidden: int
    judged: int
    settings: int

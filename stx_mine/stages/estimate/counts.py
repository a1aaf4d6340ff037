"""Counts of `estimate`."""

from dataclasses import dataclass

from stx_mine.store.counts import Counts


@dataclass(frozen=True, kw_only=True)
class EstimateCounts(Counts):
    """What an estimate is about.

    Attributes:
        rows: Rows that one packing takes.
    """

    rows: int

"""Counts of `evaluate`."""

from dataclasses import dataclass

from stx_mine.store.counts import Counts


@dataclass(frozen=True, kw_only=True)
class EvaluationCounts(Counts):
    """Of the counts of a data set, which are those of reading it, the ones that are reported.

    Attributes:
        queries: Distinct queries of the data.
        passages: Distinct passages that are searched.
    """

    queries: int
    passages: int


@dataclass(frozen=True, kw_only=True)
class OverviewCounts(Counts):
    """What an overview brings together.

    Attributes:
        data: Data sets.
    """

    data: int

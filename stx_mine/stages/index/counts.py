"""Counts of `index`: its passages, and its recall on a sample of queries."""

from dataclasses import dataclass

from stx_mine.store.counts import Counts

# Below this share of the nearest passages found, what is mined differs a lot from exact search.
_LOW = 0.9


@dataclass(frozen=True)
class IndexCounts(Counts):
    """Counts of `index/`.

    Attributes:
        passages: Passages in the index.
        recall: Mean fraction of the exact hits of a query that the index finds, in [0, 1].
        recall_queries: Queries of the sample.
    """

    passages: int
    recall: float
    recall_queries: int

    @property
    def is_low(self) -> bool:
        """Whether so many of the nearest passages are missed that a person should know."""
        return self.recall < _LOW

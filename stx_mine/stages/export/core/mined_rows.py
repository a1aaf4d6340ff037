"""Mined rows in ids: an anchor, a positive and up to k negatives each.

Shape letters: R rows, Q queries.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stx_mine.core.ragged import Ragged, offsets_of


@dataclass(frozen=True)
class MinedRows:
    """Rows in ids; those of a query stand together.

    Attributes:
        query_ids: int64 (R,), rising.
        positive_ids: int64 (R,).
        positive_scores: float32 (R,).
        negatives: (R,) passage ids, at most k, in the order of the pool.
        negative_scores: float32, aligned with `negatives.values`.
    """

    query_ids: NDArray[np.int64]
    positive_ids: NDArray[np.int64]
    positive_scores: NDArray[np.float32]
    negatives: Ragged
    negative_scores: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.query_ids)

    def take(self, rows: NDArray[np.int64]) -> "MinedRows":
        """Copy rows, in the given order."""
        negatives, places = self.negatives.take(rows)
        return MinedRows(
            self.query_ids[rows],
            self.positive_ids[rows],
            self.positive_scores[rows],
            negatives,
            self.negative_scores[places],
        )

    @classmethod
    def concatenate(cls, parts: Sequence["MinedRows"]) -> "MinedRows":
        """Join at least one part; no query is in two of them."""
        lengths = np.concatenate([part.negatives.lengths() for part in parts])
        offsets = offsets_of(lengths)
        return cls(
            np.concatenate([part.query_ids for part in parts]),
            np.concatenate([part.positive_ids for part in parts]),
            np.concatenate([part.positive_scores for part in parts]),
            Ragged(offsets, np.concatenate([part.negatives.values for part in parts])),
            np.concatenate([part.negative_scores for part in parts]),
        )

    def firsts(self) -> NDArray[np.int64]:
        """int64 (Q,): the first row of each query."""
        return np.flatnonzero(np.diff(self.query_ids, prepend=-1))

    def query_numbers(self) -> NDArray[np.int64]:
        """int64 (R,), in [0, Q): which query of these rows each row has."""
        return np.repeat(np.arange(len(self.firsts())), np.diff(self.firsts(), append=len(self)))

    def shared(self) -> "MinedRows":
        """Give all rows of a query the negatives of its lowest positive, the first of equals.

        What passed the margin of the lowest positive passed those of the others too: it serves the
        whole query. It changes nothing unless every pair has a pool of its own.
        """
        lowest_Q = np.lexsort((self.positive_scores, self.query_ids))[self.firsts()]
        negatives, places = self.negatives.take(lowest_Q[self.query_numbers()])
        return replace(self, negatives=negatives, negative_scores=self.negative_scores[places])

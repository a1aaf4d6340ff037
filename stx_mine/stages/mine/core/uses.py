"""Limit how often one passage serves as a negative: it keeps its best uses."""

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from stx_mine.stages.mine.core.select import UseLimits


class UseCounter:
    """Finds the best `max_uses` uses of every passage in a stream of uses.

    A use is a (passage, score, unit); the better one has the higher score, then the lower unit.
    A use that stands whatever the limit, as that of a known negative, has an infinite score.
    Memory: 12 bytes x passages x max_uses.
    """

    def __init__(self, num_passages: int, max_uses: int) -> None:
        """Start without uses.

        Args:
            num_passages: Size of the corpus.
            max_uses: Uses that a passage keeps, at least 1.
        """
        self._counts = np.zeros(num_passages, np.int64)
        self._scores = np.full((num_passages, max_uses), -np.inf, np.float32)
        self._units = np.full((num_passages, max_uses), -1, np.int64)

    def add(
        self, passages: NDArray[np.int64], scores: NDArray[np.float32], units: NDArray[np.int64]
    ) -> None:
        """Take in uses, in any order; arrays of one length."""
        _add(passages, scores, units, self._counts, self._scores, self._units)

    def limits(self) -> UseLimits:
        """The last use that each passage keeps; no limit where it has room."""
        full = self._counts >= self._scores.shape[1]
        return UseLimits(
            np.where(full, self._scores[:, 0], np.float32(-np.inf)),
            np.where(full, self._units[:, 0], np.iinfo(np.int64).max),
        )


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _add(
    passages: Any, scores: Any, units: Any, counts: Any, kept_scores: Any, kept_units: Any
) -> None:
    """A binary heap a passage, its worst use at the root."""
    size = kept_scores.shape[1]
    for use in range(len(passages)):
        passage, score, unit = passages[use], scores[use], units[use]
        heap_scores, heap_units = kept_scores[passage], kept_units[passage]
        if counts[passage] < size:
            place = counts[passage]
            counts[passage] += 1
            while place:
                parent = (place - 1) // 2
                if not _worse(score, unit, heap_scores[parent], heap_units[parent]):
                    break
                heap_scores[place], heap_units[place] = heap_scores[parent], heap_units[parent]
                place = parent
        elif _worse(heap_scores[0], heap_units[0], score, unit):
            place = 0
            while 2 * place + 1 < size:
                child = 2 * place + 1
                if child + 1 < size and _worse(
                    heap_scores[child + 1],
                    heap_units[child + 1],
                    heap_scores[child],
                    heap_units[child],
                ):
                    child += 1
                if not _worse(heap_scores[child], heap_units[child], score, unit):
                    break
                heap_scores[place], heap_units[place] = heap_scores[child], heap_units[child]
                place = child
        else:
            continue
        heap_scores[place], heap_units[place] = score, unit


@numba.njit(cache=True, nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _worse(score: Any, unit: Any, other_score: Any, other_unit: Any) -> Any:
    return score < other_score or (score == other_score and unit > other_unit)

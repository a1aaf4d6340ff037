"""Compare the pools of the same rows in two runs: what one has and the other lacks, and why.

Shape letters: R rows, C changes, H hits, N numbers kept of a change.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stx_mine.core.ragged import Ragged
from stx_mine.core.verdicts import Verdict

# Reasons beyond the verdicts, whose codes they follow.
NOT_A_HIT, NOT_IN_CORPUS = len(Verdict), len(Verdict) + 1
REASONS = (*(one.name.lower() for one in Verdict), "not_a_hit", "not_in_corpus")


class Changes(NamedTuple):
    """What the pools of one run have and those of the other lack.

    Attributes:
        rows_C: int64 (C,) row of each, rising.
        ids_C: int64 (C,) passage of each, in the order of the pool.
    """

    rows_C: NDArray[np.int64]
    ids_C: NDArray[np.int64]


@dataclass(frozen=True)
class PoolDifference:
    """How the pools of rows differ between two runs, A and B.

    Attributes:
        empty_R: bool (R,): neither has a negative.
        equal_R: bool (R,): the same negatives in the same order, at least one.
        same_R: bool (R,): the same negatives in any order, at least one.
        overlap_R: float64 (R,) in [0, 1]: negatives shared by the first k of both, over the number
            in the longer of the two; 0 where both are empty.
        num_shared: Negatives of A's pools that B's pools have too.
        lost: In A's pools only.
        gained: In B's pools only.
    """

    empty_R: NDArray[np.bool_]
    equal_R: NDArray[np.bool_]
    same_R: NDArray[np.bool_]
    overlap_R: NDArray[np.float64]
    num_shared: int
    lost: Changes
    gained: Changes


def find(
    lists: Ragged, rows_C: NDArray[np.int64], values_C: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Where values stand in rows.

    Args:
        lists: (R,) values of at least 0, distinct within a row.
        rows_C: int64 (C,) in [0, R).
        values_C: int64 (C,); a negative one is nowhere.

    Returns:
        int64 (C,) positions in `lists.values`; -1 where the row does not hold the value.
    """
    if not len(lists.values) or not len(rows_C):
        return np.full(len(rows_C), -1, np.int64)
    span = 1 + max(int(lists.values.max()), int(values_C.max()))
    keys = np.repeat(np.arange(len(lists)), lists.lengths()) * span + lists.values
    order = np.argsort(keys, kind="stable")
    wanted = rows_C * span + values_C
    places = order[np.minimum(np.searchsorted(keys, wanted, sorter=order), len(keys) - 1)]
    there = (keys[places] == wanted) & (values_C >= 0)
    return np.where(there, places, -1)


def compare_pools(pools_a: Ragged, pools_b: Ragged, k: int) -> PoolDifference:
    """Compare the pools of R rows in two runs, passages numbered alike.

    Args:
        pools_a: (R,) passages of each row in A, in the order of the pool, distinct.
        pools_b: (R,) the same in B.
        k: How much of the front of each pool counts for the overlap, at least 1.
    """
    num_rows = len(pools_a)
    rows_a, slots_a = _places(pools_a)
    rows_b, slots_b = _places(pools_b)
    in_b = find(pools_b, rows_a, pools_a.values)
    in_a = find(pools_a, rows_b, pools_b.values)
    missing = np.bincount(rows_a[in_b < 0], minlength=num_rows)
    missing += np.bincount(rows_b[in_a < 0], minlength=num_rows)
    longest = np.maximum(pools_a.lengths(), pools_b.lengths())
    same = (missing == 0) & (longest > 0)
    moved = np.zeros(len(rows_a), bool)
    both = in_b >= 0
    moved[both] = slots_a[both] != slots_b[in_b[both]]
    front = both.copy()
    front[both] = (slots_a[both] < k) & (slots_b[in_b[both]] < k)
    shared = np.bincount(rows_a[front], minlength=num_rows)
    return PoolDifference(
        empty_R=longest == 0,
        equal_R=same & (np.bincount(rows_a[moved], minlength=num_rows) == 0),
        same_R=same,
        overlap_R=shared / np.clip(longest, 1, k),
        num_shared=int(both.sum()),
        lost=Changes(rows_a[~both], pools_a.values[~both]),
        gained=Changes(rows_b[in_a < 0], pools_b.values[in_a < 0]),
    )


def _places(pools: Ragged) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row and slot of every value."""
    lengths = pools.lengths()
    rows = np.repeat(np.arange(len(pools)), lengths)
    return rows, np.arange(len(rows)) - pools.offsets[rows]


def explain(
    rows_C: NDArray[np.int64],
    ids_C: NDArray[np.int64],
    groups_C: NDArray[np.int64],
    hits: Ragged,
    verdicts_H: NDArray[np.uint8],
    positives: Ragged,
) -> NDArray[np.int64]:
    """Why a run has no such negatives.

    Args:
        rows_C: int64 (C,) row of each passage that it lacks.
        ids_C: int64 (C,) its id in that run; -1 where its corpus does not have it.
        groups_C: int64 (C,) its group in that run; -1 where it has none.
        hits: (R,) passage ids of each row's hits in that run.
        verdicts_H: uint8 (H,), aligned with `hits.values`.
        positives: (R,) groups of the positives of each row's query in that run.

    Returns:
        int64 (C,) places in `REASONS`: the verdict of a hit; of what is no hit, whether it is a
        positive, in the corpus at all, or just not found.
    """
    places = find(hits, rows_C, ids_C)
    # A place of -1 reads the last entry.
    reasons = np.append(verdicts_H, NOT_A_HIT).astype(np.int64)[places]
    known = find(positives, rows_C, groups_C) >= 0
    reasons[(places < 0) & known] = Verdict.KNOWN_POSITIVE
    reasons[ids_C < 0] = NOT_IN_CORPUS
    return reasons


class ChangeSample:
    """A random sample of a stream of changes, as evenly over their kinds as can be."""

    def __init__(self, size: int, width: int, rng: np.random.Generator) -> None:
        """Begin with nothing.

        Args:
            size: Changes to keep.
            width: Numbers to remember of each, N.
            rng: Decides which.
        """
        self._size, self._rng = size, rng
        self._kinds = np.empty(0, np.int64)
        self._draws = np.empty(0, np.float64)
        self._numbers = np.empty((0, width), np.int64)

    def add(self, kinds_C: NDArray[np.int64], numbers_CN: NDArray[np.int64]) -> None:
        """Offer changes.

        Args:
            kinds_C: int64 (C,) kind of each.
            numbers_CN: int64 (C, N) what to remember of each.
        """
        self._kinds = np.concatenate([self._kinds, kinds_C])
        self._draws = np.concatenate([self._draws, self._rng.random(len(kinds_C))])
        self._numbers = np.concatenate([self._numbers, numbers_CN])
        # Of no kind can more than all be wanted.
        self._keep(np.flatnonzero(self._turns() < self._size))

    def numbers(self) -> NDArray[np.int64]:
        """int64 (size or fewer, N): one of each kind, then a second one, and so on; then sorted."""
        self._keep(np.lexsort((self._kinds, self._turns()))[: self._size])
        return self._numbers[np.lexsort(self._numbers.T[::-1])]

    def _turns(self) -> NDArray[np.int64]:
        """int64: the place of each change among those of its kind, in the order drawn."""
        order = np.lexsort((self._draws, self._kinds))
        kinds = self._kinds[order]
        turns = np.empty(len(order), np.int64)
        turns[order] = np.arange(len(order)) - np.searchsorted(kinds, kinds)
        return turns

    def _keep(self, places: NDArray[np.int64]) -> None:
        self._kinds, self._draws = self._kinds[places], self._draws[places]
        self._numbers = self._numbers[places]

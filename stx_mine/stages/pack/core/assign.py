"""Assign rows to batches of exactly B rows; each row at most once a packing.

`merge` may repeat a text in a batch but spreads its rows evenly; `strict` lets no two rows meet
that share a text or know each other's positive. Both take the rows in a given order, so that
rows left out of one packing can come first in the next.

Shape letters: N rows, P batches, B rows a batch.
"""

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from stx_mine.core.ragged import Ragged
from stx_mine.core.random import mix
from stx_mine.stages.pack.core.bounds import largest_count
from stx_mine.stages.pack.core.strict_fill import fill_waves, wave_sizes
from stx_mine.stages.pack.core.strict_rows import Room, count, count_touches, lines_of

_REPAIR_ROUNDS, _REPAIR_TRIES = 2, 256
_MAX_COUNTERS = 1 << 26
_MAX_ROUNDS = 8


@dataclass(frozen=True)
class Assignment:
    """The rows of each batch.

    Attributes:
        rows_PB: int64 (P, B) row numbers; no row appears twice.
        left_out: int64 rows of no batch, in rising order.
    """

    rows_PB: NDArray[np.int64]
    left_out: NDArray[np.int64]

    def truncated(self, num_batches: int) -> "Assignment":
        """The first `num_batches` batches; the rows of the others are left out."""
        lost = self.rows_PB[num_batches:].ravel()
        return Assignment(
            self.rows_PB[:num_batches], np.sort(np.concatenate([self.left_out, lost]))
        )


def draw_order(
    rows: NDArray[np.int64], first: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Rows in random order, those of `first` (also shuffled) before the others."""
    comes_first = np.zeros(int(rows.max(initial=-1)) + 1, np.bool_)
    comes_first[first] = True
    others = rows[~comes_first[rows]]
    return np.concatenate([rng.permutation(first), rng.permutation(others)]).astype(np.int64)


def _rising(rows: NDArray[np.int64], num_rows: int) -> NDArray[np.int64]:
    """Distinct row numbers in rising order."""
    present = np.zeros(num_rows, np.bool_)
    present[rows] = True
    return np.flatnonzero(present)


def assign_merge(
    anchor_groups: NDArray[np.int64],
    positive_groups: NDArray[np.int64],
    batch_size: int,
    order: NDArray[np.int64],
    rng: np.random.Generator,
) -> Assignment:
    """Deal the first floor(N / B) * B rows of `order` so that repeated texts spread evenly.

    Rows of one positive are dealt to consecutive batches, so at most ceil(m / P) of its m rows
    meet; rows of a repeated anchor are then swapped apart where that keeps the positives spread.

    Args:
        anchor_groups: int64 (N,) group of each row's anchor.
        positive_groups: int64 (N,) group of each row's positive.
        batch_size: B.
        order: int64 (N,) rows by priority.
        rng: Decides which rows meet.
    """
    num_batches = len(order) // batch_size
    if num_batches == 0:
        return Assignment(np.empty((0, batch_size), np.int64), np.sort(order))
    used = rng.permutation(order[: num_batches * batch_size])
    anchor_counts = np.bincount(anchor_groups[used])
    positive_counts = np.bincount(positive_groups[used])
    groups = rng.permutation(len(positive_counts))
    starts = np.empty_like(positive_counts)
    starts[groups] = np.cumsum(positive_counts[groups]) - positive_counts[groups]
    del groups
    rows_PB = _deal(used, positive_groups, starts, num_batches)
    if num_batches > 1:
        counts = anchor_counts, positive_counts
        for seed in rng.integers(1 << 62, size=_REPAIR_ROUNDS):
            _spread_anchors(rows_PB, anchor_groups, positive_groups, *counts, seed)
    return Assignment(rng.permuted(rows_PB, axis=1), np.sort(order[rows_PB.size :]))


def assign_strict(
    query_ids: NDArray[np.int64],
    anchor_groups: NDArray[np.int64],
    positive_groups: NDArray[np.int64],
    forbidden: Ragged,
    num_groups: int,
    batch_size: int,
    order: NDArray[np.int64],
) -> Assignment:
    """Fill batches in which no text appears twice and no row's positive is known to another.

    Rows are dealt to waves of up to 64 batches. A wave fills its batches at once, the hardest
    rows first; one bit a batch marks the texts it holds and those that its anchors forbid.
    Where not all batches of a wave fill, it is filled again with fewer. What is left goes to
    the next wave, then into waves of its own.

    Args:
        query_ids: int64 (N,) query of each row.
        anchor_groups: int64 (N,).
        positive_groups: int64 (N,).
        forbidden: Forbidden groups of each query; its positives and itself are among them.
        num_groups: Size of the group space.
        batch_size: B.
        order: int64 (N,) rows by priority, which decides among rows with as many conflicts.
    """
    batches: list[NDArray[np.int64]] = []
    texts = anchor_groups, positive_groups
    room = Room.of(len(query_ids), num_groups, forbidden)
    left = order
    for _ in range(_MAX_ROUNDS):
        if len(left) < batch_size:
            break
        rows = _rising(left, len(query_ids))
        count(rows, query_ids, room.rows_of)
        count_touches(room.rows_of, forbidden.offsets, forbidden.values, room.touched)
        target = len(left) // batch_size
        if room.touched.max() > target:
            for groups in texts:
                count(rows, groups, room.numbers)
                target = min(target, largest_count(room.numbers, batch_size))
        if target == 0:
            break
        lines = lines_of(rows, left, query_ids, *texts, forbidden, room, target)
        full, left = fill_waves(lines, wave_sizes(target), batch_size)
        if not len(full):
            break
        batches.append(full)
    rows_PB = np.concatenate(batches) if batches else np.empty((0, batch_size), np.int64)
    return Assignment(rows_PB, np.sort(left))


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _deal(rows: Any, positives: Any, starts: Any, num_batches: Any) -> Any:
    """Deal rows, sorted by positive as `starts` says (which is used up), to batches in turn."""
    rows_PB = np.empty((num_batches, len(rows) // num_batches), np.int64)
    for row in rows:
        place = starts[positives[row]]
        starts[positives[row]] += 1
        rows_PB[place % num_batches, place // num_batches] = row
    return rows_PB


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _spread_anchors(
    rows_PB: Any,
    anchors: Any,
    positives: Any,
    anchor_counts: Any,
    positive_counts: Any,
    seed: Any,
) -> None:
    """Swap rows in place where their anchor is in the batch more often than ceil(m / P).

    How often a text is in a batch is counted by a hash of both: never too low, so that no swap
    puts a text too often into a batch. Where it is too high a swap is missed, which another seed
    finds.
    """
    num_batches, batch_size = rows_PB.shape
    crowded = _crowded(rows_PB, anchors, anchor_counts)
    if not len(crowded):
        return
    texts = (anchors, positives, anchor_counts, positive_counts)
    num_counters = 1024
    while num_counters < min(16 * rows_PB.size, _MAX_COUNTERS):
        num_counters *= 2
    counters = np.zeros(num_counters, np.int32)
    for batch in range(num_batches):
        for row in rows_PB[batch]:
            _count(counters, row, batch, texts, seed, 1)
    for place in crowded:
        batch, column = place // batch_size, place % batch_size
        row = rows_PB[batch, column]
        for attempt in range(_REPAIR_TRIES):
            other_place = np.int64(mix(seed, place, attempt) % np.uint64(rows_PB.size))
            other_batch, other_column = other_place // batch_size, other_place % batch_size
            other = rows_PB[other_batch, other_column]
            fits = other_batch != batch
            fits = fits and _fits(counters, row, other_batch, texts, seed, num_batches)
            if fits and _fits(counters, other, batch, texts, seed, num_batches):
                _count(counters, row, batch, texts, seed, -1)
                _count(counters, other, other_batch, texts, seed, -1)
                _count(counters, row, other_batch, texts, seed, 1)
                _count(counters, other, batch, texts, seed, 1)
                rows_PB[batch, column], rows_PB[other_batch, other_column] = other, row
                break


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _crowded(rows_PB: Any, anchors: Any, anchor_counts: Any) -> Any:
    """Places of the rows whose anchor is in their batch ceil(m / P) times before them."""
    num_batches, batch_size = rows_PB.shape
    places = numba.typed.List.empty_list(numba.int64)
    in_batch = np.zeros(len(anchor_counts), np.int32)
    for batch in range(num_batches):
        for column in range(batch_size):
            anchor = anchors[rows_PB[batch, column]]
            repeats = anchor_counts[anchor]
            if repeats > 1:
                in_batch[anchor] += 1
                if in_batch[anchor] > -(-repeats // num_batches):
                    places.append(batch * batch_size + column)
        for row in rows_PB[batch]:
            in_batch[anchors[row]] = 0
    return places


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _counter(text: Any, batch: Any, counters: Any, seed: Any) -> Any:
    return mix(seed, text, batch) & np.uint64(len(counters) - 1)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _count(counters: Any, row: Any, batch: Any, texts: Any, seed: Any, change: Any) -> None:
    """Count the row's texts that repeat into a batch, or out of it."""
    anchors, positives, anchor_counts, positive_counts = texts
    anchor, positive = anchors[row], positives[row]
    if anchor_counts[anchor] > 1:
        counters[_counter(2 * anchor, batch, counters, seed)] += change
    if positive_counts[positive] > 1:
        counters[_counter(2 * positive + 1, batch, counters, seed)] += change


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _fits(counters: Any, row: Any, batch: Any, texts: Any, seed: Any, num_batches: Any) -> Any:
    """Whether each of the row's texts is in the batch fewer than ceil(m / P) times."""
    anchors, positives, anchor_counts, positive_counts = texts
    anchor, positive = anchors[row], positives[row]
    for text, repeats in (
        (2 * anchor, anchor_counts[anchor]),
        (2 * positive + 1, positive_counts[positive]),
    ):
        limit = -(-repeats // num_batches)
        if repeats > 1 and counters[_counter(text, batch, counters, seed)] >= limit:
            return False
    return True

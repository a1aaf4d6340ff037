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

from stx_mine.ragged import Ragged

_REPAIR_TRIES = 64
_OPEN_BATCHES = 64


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
    others = np.setdiff1d(rows, first, assume_unique=True)
    return np.concatenate([rng.permutation(first), rng.permutation(others)]).astype(np.int64)


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
    used = order[: num_batches * batch_size]
    if num_batches == 0:
        return Assignment(np.empty((0, batch_size), np.int64), np.sort(order))
    shuffled = rng.permutation(used)
    tag = rng.permutation(int(positive_groups.max()) + 1)
    by_positive = shuffled[np.argsort(tag[positive_groups[shuffled]], kind="stable")]
    rows_PB = np.ascontiguousarray(by_positive.reshape(batch_size, num_batches).T)
    if num_batches > 1:
        _spread_anchors(
            rows_PB.reshape(-1),
            batch_size,
            _compact(anchor_groups),
            _compact(positive_groups),
            rng.integers(0, rows_PB.size, (rows_PB.size, 2)),
        )
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

    Greedy over up to 64 open batches; one bit a batch marks the texts it holds and those that
    its anchors forbid. Rows that end in unfinished batches are tried again among themselves.

    Args:
        query_ids: int64 (N,) query of each row.
        anchor_groups: int64 (N,).
        positive_groups: int64 (N,).
        forbidden: Forbidden groups of each query.
        num_groups: Size of the group space.
        batch_size: B.
        order: int64 (N,) rows by priority.
    """
    batches = []
    left = order
    while len(left) >= batch_size:
        num_open = min(_OPEN_BATCHES, len(left) // batch_size)
        full, left = _fill_batches(
            left,
            query_ids,
            anchor_groups,
            positive_groups,
            forbidden.offsets,
            forbidden.values,
            num_groups,
            batch_size,
            num_open,
        )
        if not len(full):
            break
        batches.append(full)
    rows_PB = np.concatenate(batches) if batches else np.empty((0, batch_size), np.int64)
    return Assignment(rows_PB, np.sort(left))


def _compact(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.unique(groups, return_inverse=True)[1].astype(np.int64)


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def _spread_anchors(  # noqa: C901  (one loop nest, fast as it stands)
    rows: Any, batch_size: Any, anchors: Any, positives: Any, draws: Any
) -> None:
    """Swap rows in place until no anchor is in a batch more often than ceil(m / P)."""
    num_batches = len(rows) // batch_size
    counts = (
        np.zeros(anchors.max() + 1, np.int64),
        np.zeros(positives.max() + 1, np.int64),
    )
    for row in rows:
        counts[0][anchors[row]] += 1
        counts[1][positives[row]] += 1
    in_batch = numba.typed.Dict.empty(numba.int64, numba.int64)
    shift = len(counts[0])
    for place in range(len(rows)):
        # Only texts that repeat can be too often in a batch.
        for key in _keys(rows[place], place // batch_size, anchors, positives, counts, shift):
            if key >= 0:
                in_batch[key] = in_batch.get(key, 0) + 1
    for place in range(len(rows)):
        row, batch = rows[place], place // batch_size
        repeats = counts[0][anchors[row]]
        if repeats < 2:
            continue
        limit = -(-repeats // num_batches)
        if in_batch[_keys(row, batch, anchors, positives, counts, shift)[0]] <= limit:
            continue
        for attempt in range(_REPAIR_TRIES):
            other_place = (draws[place, 0] + attempt * (draws[place, 1] | 1)) % len(rows)
            other, other_batch = rows[other_place], other_place // batch_size
            if other_batch == batch:
                continue
            _count(in_batch, _keys(row, batch, anchors, positives, counts, shift), -1)
            _count(in_batch, _keys(other, other_batch, anchors, positives, counts, shift), -1)
            fits = _fits(in_batch, row, other_batch, anchors, positives, counts, shift, num_batches)
            fits = fits and _fits(
                in_batch, other, batch, anchors, positives, counts, shift, num_batches
            )
            if fits:
                rows[place], rows[other_place] = other, row
                _count(in_batch, _keys(row, other_batch, anchors, positives, counts, shift), 1)
                _count(in_batch, _keys(other, batch, anchors, positives, counts, shift), 1)
                break
            _count(in_batch, _keys(row, batch, anchors, positives, counts, shift), 1)
            _count(in_batch, _keys(other, other_batch, anchors, positives, counts, shift), 1)


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def _keys(row: Any, batch: Any, anchors: Any, positives: Any, counts: Any, shift: Any) -> Any:
    """Dictionary keys of a row's two texts in a batch; -1 for a text that never repeats."""
    width = shift + len(counts[1])
    anchor = batch * width + anchors[row] if counts[0][anchors[row]] > 1 else -1
    positive = batch * width + shift + positives[row] if counts[1][positives[row]] > 1 else -1
    return anchor, positive


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def _count(in_batch: Any, keys: Any, change: Any) -> None:
    for key in keys:
        if key >= 0:
            in_batch[key] = in_batch.get(key, 0) + change


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def _fits(
    in_batch: Any,
    row: Any,
    batch: Any,
    anchors: Any,
    positives: Any,
    counts: Any,
    shift: Any,
    num_batches: Any,
) -> Any:
    keys = _keys(row, batch, anchors, positives, counts, shift)
    repeats = (counts[0][anchors[row]], counts[1][positives[row]])
    for key, number in zip(keys, repeats):  # noqa: B905  (numba knows no strict=)
        if key >= 0 and in_batch.get(key, 0) + 1 > -(-number // num_batches):
            return False
    return True


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def _fill_batches(  # noqa: C901  (one loop nest, fast as it stands)
    order: Any,
    query_ids: Any,
    anchors: Any,
    positives: Any,
    forbidden_offsets: Any,
    forbidden_values: Any,
    num_groups: Any,
    batch_size: Any,
    num_open: Any,
) -> Any:
    one = np.uint64(1)
    holds = np.zeros(num_groups, np.uint64)
    blocks = np.zeros(num_groups, np.uint64)
    members = np.empty((num_open, batch_size), np.int64)
    sizes = np.zeros(num_open, np.int64)
    full = np.empty((len(order) // batch_size, batch_size), np.int64)
    left = np.empty(len(order), np.int64)
    num_full, num_left = 0, 0
    for row in order:
        anchor, positive, query = anchors[row], positives[row], query_ids[row]
        taken = holds[anchor] | holds[positive] | blocks[anchor] | blocks[positive]
        for f in range(forbidden_offsets[query], forbidden_offsets[query + 1]):
            taken |= holds[forbidden_values[f]]
        slot = 0
        while slot < num_open and (taken >> np.uint64(slot)) & one:
            slot += 1
        if slot == num_open:
            left[num_left] = row
            num_left += 1
            continue
        bit = one << np.uint64(slot)
        holds[anchor] |= bit
        holds[positive] |= bit
        for f in range(forbidden_offsets[query], forbidden_offsets[query + 1]):
            blocks[forbidden_values[f]] |= bit
        members[slot, sizes[slot]] = row
        sizes[slot] += 1
        if sizes[slot] == batch_size:
            full[num_full] = members[slot]
            num_full += 1
            sizes[slot] = 0
            for member in members[slot]:
                holds[anchors[member]] &= ~bit
                holds[positives[member]] &= ~bit
                asked = query_ids[member]
                for f in range(forbidden_offsets[asked], forbidden_offsets[asked + 1]):
                    blocks[forbidden_values[f]] &= ~bit
    for slot in range(num_open):
        for place in range(sizes[slot]):
            left[num_left] = members[slot, place]
            num_left += 1
    return full[:num_full], left[:num_left]

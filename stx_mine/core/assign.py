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

from stx_mine.core.bounds import largest_count
from stx_mine.core.random import mix
from stx_mine.ragged import Ragged

_REPAIR_ROUNDS, _REPAIR_TRIES = 4, 64
_MAX_COUNTERS = 1 << 26
_WINDOW = 64
_MAX_ROUNDS = 8
_MAX_BITS = 64


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
            if not _spread_anchors(rows_PB, anchor_groups, positive_groups, *counts, seed):
                break
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

    Rows are dealt to windows of up to 64 batches, those of one query to as few as possible. A
    window fills its batches at once: the hardest rows first, each into the next batch that takes
    it; one bit a batch marks the texts it holds and those that its anchors forbid.
    Where not all batches of a window fill, it is filled again with fewer. What is left goes to
    the next window, then into windows of its own.

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
    left = order
    for _ in range(_MAX_ROUNDS):
        target = min(
            largest_count(np.bincount(groups[left]), batch_size)
            for groups in (anchor_groups, positive_groups)
        )
        if target == 0:
            break
        by_query = _group_by_query(left, query_ids)
        touches = _touches(by_query, query_ids, forbidden.offsets, forbidden.values, num_groups)
        full, left = _fill_windows(
            by_query,
            _window_sizes(target),
            query_ids,
            anchor_groups,
            positive_groups,
            forbidden.offsets,
            forbidden.values,
            touches,
            _numbers_of_shared(touches),
            batch_size,
        )
        if not len(full):
            break
        batches.append(full)
    rows_PB = np.concatenate(batches) if batches else np.empty((0, batch_size), np.int64)
    return Assignment(rows_PB, np.sort(left))


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def _deal(rows: Any, positives: Any, starts: Any, num_batches: Any) -> Any:
    """Deal rows, sorted by positive as `starts` says (which is used up), to batches in turn."""
    rows_PB = np.empty((num_batches, len(rows) // num_batches), np.int64)
    for row in rows:
        place = starts[positives[row]]
        starts[positives[row]] += 1
        rows_PB[place % num_batches, place // num_batches] = row
    return rows_PB


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def _spread_anchors(
    rows_PB: Any,
    anchors: Any,
    positives: Any,
    anchor_counts: Any,
    positive_counts: Any,
    seed: Any,
) -> Any:
    """Swap rows in place where their anchor is in the batch more often than ceil(m / P).

    How often a text is in a batch is counted by a hash of both: never too low, so that no swap
    puts a text too often into a batch. Where it is too high a swap is missed, which another seed
    finds.

    Returns:
        How many rows were too many before.
    """
    num_batches, batch_size = rows_PB.shape
    crowded = _crowded(rows_PB, anchors, anchor_counts)
    if not len(crowded):
        return 0
    texts = (anchors, positives, anchor_counts, positive_counts)
    num_counters = 1024
    while num_counters < min(4 * rows_PB.size, _MAX_COUNTERS):
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
    return len(crowded)


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
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


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def _counter(text: Any, batch: Any, counters: Any, seed: Any) -> Any:
    return mix(seed, text, batch) & np.uint64(len(counters) - 1)


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def _count(counters: Any, row: Any, batch: Any, texts: Any, seed: Any, change: Any) -> None:
    """Count the row's texts that repeat into a batch, or out of it."""
    anchors, positives, anchor_counts, positive_counts = texts
    anchor, positive = anchors[row], positives[row]
    if anchor_counts[anchor] > 1:
        counters[_counter(2 * anchor, batch, counters, seed)] += change
    if positive_counts[positive] > 1:
        counters[_counter(2 * positive + 1, batch, counters, seed)] += change


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
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


def _window_sizes(num_batches: int) -> NDArray[np.int64]:
    """Batches of each window: equal numbers up to 64."""
    num_windows = -(-num_batches // _WINDOW)
    return np.full(num_windows, num_batches // num_windows) + (
        np.arange(num_windows) < num_batches % num_windows
    )


def _numbers_of_shared(touches: NDArray[np.int64]) -> NDArray[np.int32]:
    """Number the texts over which rows can conflict; -1 for all others."""
    shared = touches > 1
    numbers = np.cumsum(shared, dtype=np.int32) - np.int32(1)
    numbers[~shared] = -1
    return numbers


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def _group_by_query(rows: Any, query_ids: Any) -> Any:
    """Rows in the given order, but all of a query beside its first."""
    num_queries = 0
    for row in rows:
        num_queries = max(num_queries, query_ids[row] + 1)
    starts = np.zeros(num_queries, np.int64)
    for row in rows:
        starts[query_ids[row]] -= 1
    grouped = np.empty(len(rows), np.int64)
    cursor = 0
    for row in rows:
        query = query_ids[row]
        if starts[query] < 0:
            size = -starts[query]
            starts[query] = cursor
            cursor += size
        grouped[starts[query]] = row
        starts[query] += 1
    return grouped


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def _touches(
    by_query: Any, query_ids: Any, forbidden_offsets: Any, forbidden_values: Any, num_groups: Any
) -> Any:
    """How many rows hold or forbid each text."""
    touches = np.zeros(num_groups, np.int64)
    start = 0
    for stop in range(1, len(by_query) + 1):
        query = query_ids[by_query[start]]
        if stop == len(by_query) or query_ids[by_query[stop]] != query:
            for f in range(forbidden_offsets[query], forbidden_offsets[query + 1]):
                touches[forbidden_values[f]] += stop - start
            start = stop
    return touches


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def _fill_windows(
    by_query: Any,
    window_sizes: Any,
    query_ids: Any,
    anchors: Any,
    positives: Any,
    forbidden_offsets: Any,
    forbidden_values: Any,
    touches: Any,
    numbers: Any,
    batch_size: Any,
) -> Any:
    """Fill all windows, one after the other; the full batches, and the rows of none."""
    num_windows = len(window_sizes)
    masks = np.zeros((numbers.max() + 1, 3), np.uint64)
    full = np.empty((window_sizes.sum(), batch_size), np.int64)
    left = np.empty(len(by_query), np.int64)
    carried = np.empty(0, np.int64)
    num_full, num_left, stamp = 0, 0, 0
    for window in range(num_windows):
        rows = _deal_window(by_query, carried, window, num_windows)
        rows = _hardest_first(rows, query_ids, anchors, positives, touches, window_sizes.sum())
        slots = np.empty(len(rows), np.int8)
        best_slots = np.full(len(rows), -1, np.int8)
        # `low` batches fill; `high` do not.
        guess = 0
        low, high, num_open = 0, window_sizes[window] + 1, window_sizes[window]
        while low + 1 < high:
            stamp += 1
            num_filled = _fill(
                rows,
                slots,
                masks,
                np.uint64(stamp),
                num_open,
                query_ids,
                anchors,
                positives,
                forbidden_offsets,
                forbidden_values,
                numbers,
                batch_size,
            )
            if num_filled > low:
                low = num_filled
                best_slots[:] = slots
            if num_filled < num_open:
                # Most often as many batches fill as the placed rows could; else bisect.
                guess = (slots >= 0).sum() // batch_size if high > window_sizes[window] else 0
                high = num_open
            num_open = min(guess, high - 1) if guess > low else (low + high) // 2
            guess = 0
        carried = _collect(rows, best_slots, full[num_full : num_full + low])
        num_full += low
        # A window takes over no more rows than it has places, so that time stays linear.
        limit = window_sizes[window] * batch_size if window + 1 < num_windows else 0
        lost = carried[limit:]
        left[num_left : num_left + len(lost)] = lost
        num_left += len(lost)
        carried = carried[:limit]
    return full[:num_full], left[:num_left]


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def _deal_window(by_query: Any, carried: Any, window: Any, num_windows: Any) -> Any:
    """The rows of a window: those carried over, and every so many-th block of 64 rows."""
    step = num_windows * _WINDOW
    most = len(carried) + (len(by_query) // step + 1) * _WINDOW
    rows = np.empty(most, np.int64)
    rows[: len(carried)] = carried
    size = len(carried)
    for start in range(window * _WINDOW, len(by_query), step):
        block = by_query[start : start + _WINDOW]
        rows[size : size + len(block)] = block
        size += len(block)
    return rows[:size]


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def _collect(rows: Any, slots: Any, full: Any) -> Any:
    """Write the rows of the slots that are full to `full`; the others come back in order."""
    num_batches, batch_size = full.shape
    sizes = np.zeros(_WINDOW, np.int64)
    for slot in slots:
        if slot >= 0:
            sizes[slot] += 1
    batches = np.full(_WINDOW, -1, np.int64)
    batch = 0
    for slot in range(_WINDOW):
        if sizes[slot] == batch_size and batch < num_batches:
            batches[slot] = batch
            batch += 1
    others = np.empty(len(rows) - num_batches * batch_size, np.int64)
    columns = np.zeros(num_batches, np.int64)
    num_others = 0
    for place in range(len(rows)):
        batch = batches[slots[place]] if slots[place] >= 0 else -1
        if batch < 0:
            others[num_others] = rows[place]
            num_others += 1
        else:
            full[batch, columns[batch]] = rows[place]
            columns[batch] += 1
    return others


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def _hardest_first(
    rows: Any, query_ids: Any, anchors: Any, positives: Any, touches: Any, num_batches: Any
) -> Any:
    """Rows by the log2 of their conflicts, a query by its worst row; else in order.

    Of rows with as many conflicts as there are batches, not all may find one: these come first,
    those that shut out the fewest others before the rest. Each other row finds one whenever it
    comes, but for full batches: of these, the most constrained come first.
    """
    ranks = np.zeros(len(rows), np.int64)
    start = 0
    for stop in range(1, len(rows) + 1):
        if stop == len(rows) or query_ids[rows[stop]] != query_ids[rows[start]]:
            most = 0
            for row in rows[start:stop]:
                most = max(most, touches[anchors[row]] + touches[positives[row]] - 2)
            num_bits, rest = 0, most
            while rest > 0:
                rest >>= 1
                num_bits += 1
            ranks[start:stop] = num_bits if most >= num_batches else 2 * _MAX_BITS - num_bits
            start = stop
    starts = np.zeros(2 * _MAX_BITS + 2, np.int64)
    for rank in ranks:
        starts[rank + 1] += 1
    for place in range(1, len(starts)):
        starts[place] += starts[place - 1]
    ordered = np.empty(len(rows), np.int64)
    for place in range(len(rows)):
        ordered[starts[ranks[place]]] = rows[place]
        starts[ranks[place]] += 1
    return ordered


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def _fill(  # noqa: C901  (one loop nest, fast as it stands)
    rows: Any,
    slots: Any,
    masks: Any,
    stamp: Any,
    num_open: Any,
    query_ids: Any,
    anchors: Any,
    positives: Any,
    forbidden_offsets: Any,
    forbidden_values: Any,
    numbers: Any,
    batch_size: Any,
) -> Any:
    """Give each row a batch of the window, or -1; the number of full batches comes back.

    `masks` has a stamp a text, the batches that hold it, and those that forbid it; an old stamp
    means none.
    """
    one, none = np.uint64(1), np.uint64(0)
    sizes = np.zeros(num_open, np.int64)
    closed = none if num_open == _WINDOW else ~((one << np.uint64(num_open)) - one)
    slots[:] = -1
    turn, start = 0, 0
    while start < len(rows):
        query, anchor = query_ids[rows[start]], anchors[rows[start]]
        stop = start + 1
        while stop < len(rows) and query_ids[rows[stop]] == query:
            stop += 1
        taken = none
        for f in range(forbidden_offsets[query], forbidden_offsets[query + 1]):
            number = numbers[forbidden_values[f]]
            if number >= 0:
                if masks[number, 0] != stamp:
                    masks[number, 0], masks[number, 1], masks[number, 2] = stamp, none, none
                taken |= masks[number, 1]
        number = numbers[anchor]
        if number >= 0:
            taken |= masks[number, 2]
        placed = none
        for place in range(start, stop):
            if ~(taken | placed | closed) == none:
                break
            number = numbers[positives[rows[place]]]
            blocked = taken | placed | closed
            if number >= 0:
                blocked |= masks[number, 2]
            if ~blocked == none:
                continue
            slot = turn
            while (blocked >> np.uint64(slot)) & one:
                slot = (slot + 1) % num_open
            turn = (slot + 1) % num_open
            bit = one << np.uint64(slot)
            slots[place] = slot
            sizes[slot] += 1
            if sizes[slot] == batch_size:
                closed |= bit
            placed |= bit
            if number >= 0:
                masks[number, 1] |= bit
        if placed:
            for f in range(forbidden_offsets[query], forbidden_offsets[query + 1]):
                number = numbers[forbidden_values[f]]
                if number >= 0:
                    masks[number, 2] |= placed
            number = numbers[anchor]
            if number >= 0:
                masks[number, 1] |= placed
        start = stop
    return (sizes == batch_size).sum()

"""Assign labelled texts to batches of exactly B rows: every label twice or more, up to M times.

B is at least 2 M, so that every batch holds two labels or more: from one alone no loss learns.

Shape letters: L labels, R rows (a text under a label), T turns, P batches, B rows a batch, M texts
that a label has in a batch at most.
"""

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from stx_mine.core.ragged import Ragged, offsets_of, places_of
from stx_mine.stages.pack.core.assign import Assignment, draw_order
from stx_mine.stages.pack.labels.core.labels import Labels

_MAX_ROUNDS = 8
# Turns that do not fit into the rest of a batch, before one may leave a single text of its label
# over; after twice as many a group of the batch gives up a row, so that the rest has another size.
_PATIENCE = 64


def most_batches(sizes: NDArray[np.int64], batch_size: int, texts_per_label: int) -> int:
    """The largest P with sum over labels of min(size, P * M) >= P * B: no more batches can fill.

    Args:
        sizes: int64 (L,) rows of each label.
        batch_size: B.
        texts_per_label: M.
    """
    usable = _usable(sizes, texts_per_label)
    low, high = 0, int(usable.sum()) // batch_size
    while low < high:
        middle = (low + high + 1) // 2
        if int(np.minimum(usable, middle * texts_per_label).sum()) >= middle * batch_size:
            low = middle
        else:
            high = middle - 1
    return low


def largest_batch(sizes: NDArray[np.int64], num_batches: int, texts_per_label: int) -> int:
    """The largest B of which there can be so many batches; 0 where there is none."""
    usable = _usable(sizes, texts_per_label)
    rows = int(np.minimum(usable, num_batches * texts_per_label).sum()) // num_batches
    size = rows // texts_per_label * texts_per_label
    return size if size >= 2 * texts_per_label else 0


def assign_labels(
    labels: Labels,
    batch_size: int,
    texts_per_label: int,
    first: NDArray[np.int64],
    rng: np.random.Generator,
) -> Assignment:
    """Fill batches with groups of 2 to M texts of a label, each label in one group at most.

    Every label takes a turn for each M of its rows, one at random in each equal part of the
    packing. Batches fill one after the other with the turns in their order: a turn gives as
    many rows as there is room for, but never so that one row alone is left of its label or of the
    room. A turn whose label may not be in the batch waits for the next one. What is left over is
    dealt again.

    Args:
        labels: Their texts, and what keeps them apart.
        batch_size: B, a multiple of M, at least 2 M.
        texts_per_label: M, at least 2.
        first: int64 rows that come before others of their label, and whose label comes early.
        rng: Decides which rows meet.

    Returns:
        Batches, in which rows of a label stand together.
    """
    lengths = labels.texts.lengths()
    order = draw_order(np.arange(len(labels.texts.values)), first, rng)
    # Rows of label l are queue[offsets[l]:offsets[l + 1]], by priority.
    queue = order[np.argsort(labels.of_rows[order], kind="stable")]
    waiting = np.zeros(len(lengths), np.bool_)
    waiting[labels.of_rows[first]] = True
    taken = np.zeros(len(lengths), np.int64)
    holds, forbids, num_texts = _shared_texts(labels)
    batches = [np.empty((0, batch_size), np.int64)]
    for _ in range(_MAX_ROUNDS):
        target = most_batches(lengths - taken, batch_size, texts_per_label)
        limits = np.minimum(_usable(lengths - taken, texts_per_label), target * texts_per_label)
        turns, num_turns = _turns(limits, texts_per_label, waiting, rng)
        full = _fill(
            turns,
            num_turns,
            taken + limits,
            taken,
            labels.texts.offsets,
            queue,
            (holds.offsets, holds.values, forbids.offsets, forbids.values),
            num_texts,
            np.empty((target, batch_size), np.int64),
            texts_per_label,
        )
        if not len(full):
            break
        batches.append(full)
        waiting[:] = False
    rows_PB = np.concatenate(batches)
    left = np.ones(len(queue), np.bool_)
    left[rows_PB] = False
    return Assignment(rows_PB, np.flatnonzero(left))


def _usable(sizes: NDArray[np.int64], texts_per_label: int) -> NDArray[np.int64]:
    """Rows of each label that groups of 2 to M can hold: all, but of pairs an even number."""
    usable = sizes - sizes % 2 if texts_per_label == 2 else sizes
    return np.where(usable < 2, 0, usable)


def _turns(
    limits: NDArray[np.int64],
    texts_per_label: int,
    waiting: NDArray[np.bool_],
    rng: np.random.Generator,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """int64 (T,) the label of each turn, and int64 (L,) turns of each label."""
    num_turns = -(-limits // texts_per_label)
    owners = np.repeat(np.arange(len(limits)), num_turns)
    numbers = places_of(0, offsets_of(num_turns))
    # One in each equal part of the packing, at random: other labels meet each time.
    places = (numbers + rng.random(len(owners))) / num_turns[owners]
    places[(numbers == 0) & waiting[owners]] = 0
    return owners[np.lexsort((rng.random(len(owners)), places))], num_turns


def _shared_texts(labels: Labels) -> tuple[Ragged, Ragged, int]:
    """The texts of each label, and those that it forbids, over which labels can conflict.

    Returns:
        Both in numbers of their own, and how many numbers there are.
    """
    texts, forbidden = labels.texts, labels.forbidden
    num_ids = 1 + int(max(texts.values.max(initial=-1), forbidden.values.max(initial=-1)))
    shared = np.bincount(texts.values, minlength=num_ids) > 1
    shared[forbidden.values] = True
    numbers = np.cumsum(shared) - 1
    kept = shared[texts.values]
    lengths = np.bincount(labels.of_rows[kept], minlength=len(texts))
    holds = Ragged(offsets_of(lengths), numbers[texts.values[kept]])
    return holds, Ragged(forbidden.offsets, numbers[forbidden.values]), int(shared.sum())


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _fill(
    turns: Any,
    num_turns: Any,
    limits: Any,
    taken: Any,
    starts: Any,
    queue: Any,
    conflicts: Any,
    num_texts: Any,
    batches: Any,
    texts_per_label: Any,
) -> Any:
    """Fill batches until the turns are used up; `taken` counts the rows of the full ones."""
    batch_size = batches.shape[1]
    in_batch = np.full(len(taken), -1, np.int64)
    stamps = np.full((num_texts, 2), -1, np.int64)
    state = (limits, taken, in_batch, stamps, conflicts, texts_per_label)
    # Labels that wait for the next batch, at most B of them, so that time stays linear.
    waiting = np.empty(2 * batch_size, np.int64)
    carried = np.empty(0, np.int64)
    groups = np.empty((batch_size, 2), np.int64)
    cursor = 0
    for batch in range(len(batches)):
        room, num_groups, num_waiting, place, cursor = _take_turns(
            batch, turns, cursor, num_turns, carried, waiting, groups, state
        )
        for attempt in range(2):
            if attempt and room:
                room += _shrink(groups[:num_groups], taken)
            for label in waiting[:num_waiting]:
                size = _give(label, batch, room, True, state)
                if size:
                    groups[num_groups] = label, size
                    num_groups += 1
                    room -= size
        if room:
            for label, size in groups[:num_groups]:
                taken[label] -= size
            return batches[:batch]
        _write(batches[batch], groups[:num_groups], taken, starts, queue)
        rest = carried[place:]
        waiting[num_waiting : num_waiting + len(rest)] = rest
        carried = waiting[: min(num_waiting + len(rest), batch_size)].copy()
    return batches


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _take_turns(
    batch: Any,
    turns: Any,
    cursor: Any,
    num_turns: Any,
    carried: Any,
    waiting: Any,
    groups: Any,
    state: Any,
) -> Any:
    """Take first the turns carried over, then new ones, until the batch is full.

    Returns:
        Rows that still fit, groups of the batch, labels that wait, and how far the turns that were
        carried over and the new ones are used.
    """
    limits, taken, texts_per_label = state[0], state[1], state[5]
    batch_size = len(groups)
    room, num_groups, num_waiting, misfits, place = batch_size, 0, 0, 0, 0
    while room > 0 and place + cursor < len(carried) + len(turns):
        if place < len(carried):
            label = carried[place]
            place += 1
        else:
            label = turns[cursor]
            cursor += 1
        size = _give(label, batch, room, misfits >= _PATIENCE, state)
        if size:
            groups[num_groups] = label, size
            num_groups += 1
            room -= size
            num_turns[label] -= 1
            if num_turns[label]:
                continue
            # Its last turn; where others gave fewer rows than they might, it takes one more.
            num_turns[label] = 1
        elif room <= texts_per_label + 1:
            # Only here can a label that may join be of a wrong size.
            misfits += 1
            if misfits == 2 * _PATIENCE:
                room += _shrink(groups[:num_groups], taken)
        if limits[label] - taken[label] > 1 and num_waiting < batch_size:
            waiting[num_waiting] = label
            num_waiting += 1
    return room, num_groups, num_waiting, place, cursor


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _give(label: Any, batch: Any, room: Any, may_strand: Any, state: Any) -> Any:
    """Let a label join the batch, with as many rows as fit; returns how many, or 0."""
    limits, taken, in_batch, stamps, conflicts, texts_per_label = state
    if in_batch[label] == batch or not _may_join(label, batch, stamps, conflicts):
        return 0
    left = limits[label] - taken[label]
    for size in range(min(left, room, texts_per_label), 1, -1):
        if room - size != 1 and (left - size != 1 or may_strand):
            taken[label] += size
            _join(label, batch, stamps, conflicts, in_batch)
            return size
    return 0


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _shrink(groups: Any, taken: Any) -> Any:
    """Take a row from the last group of three or more; returns how many rows were taken."""
    for place in range(len(groups) - 1, -1, -1):
        if groups[place, 1] > 2:
            groups[place, 1] -= 1
            taken[groups[place, 0]] -= 1
            return 1
    return 0


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _may_join(label: Any, batch: Any, stamps: Any, conflicts: Any) -> Any:
    """Whether no label of the batch shares a text with it, and no pair joins them."""
    hold_offsets, hold_values, forbid_offsets, forbid_values = conflicts
    for text in hold_values[hold_offsets[label] : hold_offsets[label + 1]]:
        if stamps[text, 0] == batch or stamps[text, 1] == batch:
            return False
    for text in forbid_values[forbid_offsets[label] : forbid_offsets[label + 1]]:
        if stamps[text, 0] == batch:
            return False
    return True


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _join(label: Any, batch: Any, stamps: Any, conflicts: Any, in_batch: Any) -> None:
    """Note what the batch holds (0) and forbids (1) from now on."""
    hold_offsets, hold_values, forbid_offsets, forbid_values = conflicts
    in_batch[label] = batch
    for text in hold_values[hold_offsets[label] : hold_offsets[label + 1]]:
        stamps[text, 0] = batch
    for text in forbid_values[forbid_offsets[label] : forbid_offsets[label + 1]]:
        stamps[text, 1] = batch


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _write(rows_B: Any, groups: Any, taken: Any, starts: Any, queue: Any) -> None:
    place = 0
    for label, size in groups:
        last = starts[label] + taken[label]
        rows_B[place : place + size] = queue[last - size : last]
        place += size

"""Invariants of packed batches of pairs, checked from their ids and texts alone.

Many batches are checked at once, in time linear in what is stored of them: first which rows break
an invariant, then, where one does, what the violations are, one after the other.

Shape letters: P batches, B rows of a batch, N = P * B rows, S slots of a row (the anchor, the
positive, K negatives), M negatives of all rows.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from stx_mine.core.random import mix
from stx_mine.stages.verify.core.batch_ids import BatchIds
from stx_mine.stages.verify.core.ignored import IgnoreLists
from stx_mine.stages.verify.core.sets import are_in

# Characters of a text that a sentence about a violation shows.
SHOWN_TEXT = 60


@dataclass(frozen=True)
class Violation:
    """A broken invariant.

    Attributes:
        row: Row within the batch, or within the batches that are checked at once.
        what: What is wrong, in words.
        ids: The texts concerned.
    """

    row: int
    what: str
    ids: tuple[int, ...]


@dataclass(frozen=True)
class Broken:
    """Where one invariant is broken.

    Attributes:
        rows: int64: the row of each violation, or of each row of violations; batch by batch.
        named: Number of an entry of `rows` -> its violations.
    """

    rows: NDArray[np.int64]
    named: Callable[[int], Iterable[Violation]]

    @classmethod
    def of(
        cls, rows: NDArray[np.int64], what: str, ids: NDArray[np.int64] | None = None
    ) -> "Broken":
        """One violation an entry.

        Args:
            rows: int64 (V,).
            what: What is wrong, in words.
            ids: int64 (V,) the text concerned; None where there is none.
        """

        def named(number: int) -> list[Violation]:
            concerned = () if ids is None else (int(ids[number]),)
            return [Violation(int(rows[number]), what, concerned)]

        return cls(rows, named)


def in_order(found: Sequence[Broken], batch_size: int) -> Iterator[Violation]:
    """Every violation: batch by batch, and of a batch one invariant after the other."""
    batches = [one.rows // batch_size for one in found]
    for batch in np.unique(np.concatenate(batches)):
        for one, numbers in zip(found, batches, strict=True):
            for number in range(*np.searchsorted(numbers, [batch, batch + 1])):
                yield from one.named(number)


def check_pair_batches(batches: BatchIds) -> list[Broken]:
    """What holds under every policy: true negatives, known positives, complete ignore lists."""
    groups, asked_N, rows_M = batches.groups, batches.asked_N, batches.negative_rows
    own_N, negatives = groups.of(batches.anchors), batches.negatives.values
    groups_M = groups.of(negatives)
    unknown = np.flatnonzero(~are_in(batches.known, asked_N, groups.of(batches.positives)))
    forbidden_M = are_in(batches.known, asked_N[rows_M], groups_M) | (groups_M == own_N[rows_M])
    wrong = np.flatnonzero(forbidden_M)
    close = np.flatnonzero(~forbidden_M & are_in(batches.near, asked_N[rows_M], groups_M))
    twice = _first_repeated(rows_M, groups_M)
    lists = IgnoreLists(batches)
    missing_N, extra_N = lists.wrong()

    def each(places: NDArray[np.int64], what: str) -> Broken:
        return Broken.of(rows_M[places], what, negatives[places])

    def listed(marked_N: NDArray[np.bool_], is_extra: bool, what: str) -> Broken:
        rows = np.flatnonzero(marked_N)

        def named(number: int) -> Iterator[Violation]:
            row = int(rows[number])
            for text in lists.differences(row)[is_extra]:
                yield Violation(row, what, (int(text),))

        return Broken(rows, named)

    return [
        Broken.of(
            unknown, "the positive is not a known one of its anchor", batches.positives[unknown]
        ),
        each(wrong, "a negative is a known positive (or the text) of its anchor"),
        each(close, "a negative is a near positive of its anchor"),
        each(twice, "a negative stands twice in its row"),
        listed(missing_N, False, "ignore_ids misses a known or near positive of its anchor"),
        listed(extra_N, True, "ignore_ids holds what is no other known or near positive"),
    ]


def _first_repeated(rows_M: NDArray[np.int64], groups_M: NDArray[np.int64]) -> NDArray[np.int64]:
    """Places of the first of equal groups in a row, by row, then by group."""
    order = np.lexsort((groups_M, rows_M))
    same = (groups_M[order][1:] == groups_M[order][:-1]) & (rows_M[order][1:] == rows_M[order][:-1])
    again = np.append(False, same)
    first: NDArray[np.int64] = order[:-1][same & ~again[:-1]]
    return first


def check_strict_batches(batches: BatchIds, num_negatives: int) -> list[Broken]:
    """What `strict` adds: no group twice in any role, nothing to ignore, full rows."""
    own = np.arange(len(batches.anchors))
    rows = np.concatenate([own, own, batches.negative_rows])
    texts = np.concatenate([batches.anchors, batches.positives, batches.negatives.values])
    groups, of = batches.groups.of(texts), batches.numbers[rows]
    order = np.lexsort((groups, of))
    same = (groups[order][1:] == groups[order][:-1]) & (of[order][1:] == of[order][:-1])
    twice = order[1:][same]
    ignoring = np.flatnonzero(batches.ignored.lengths() > 0)

    def ignored(number: int) -> list[Violation]:
        row = int(ignoring[number])
        ids = tuple(map(int, batches.ignored.row(row)))
        return [Violation(row, "a known or near positive is in a strict batch", ids)]

    ragged = np.flatnonzero(batches.negatives.lengths() != num_negatives)
    return [
        Broken.of(rows[twice], "a text stands twice in a strict batch", texts[twice]),
        Broken(ignoring, ignored),
        Broken.of(ragged, "a row of a strict batch is not full"),
    ]


def check_texts(
    ids_NS: NDArray[np.int64],
    texts_NS: NDArray[np.int64],
    filled_NS: NDArray[np.bool_],
    batch_size: int,
) -> Broken:
    """Each id of a batch has one text and each text one id.

    Args:
        ids_NS: int64 (N, S).
        texts_NS: int64 (N, S): a number of each slot's normalised text, the same for equal ones.
        filled_NS: bool (N, S): the slots that count.
        batch_size: B.
    """
    keys = ids_NS, texts_NS, filled_NS, batch_size
    differ_P = _two_of_one(*keys) | _two_of_one(keys[1], keys[0], *keys[2:])
    rows = np.flatnonzero(differ_P) * batch_size

    def named(number: int) -> Iterator[Violation]:
        first = int(rows[number])
        batch = slice(first, first + batch_size)
        # Slot by slot: which text comes first decides what is named first.
        slots, places = np.nonzero(filled_NS[batch].T)
        texts = _by_first(texts_NS[batch][places, slots])
        yield from _unlike(first + places, ids_NS[batch][places, slots], texts)

    return Broken(rows, named)


def _by_first(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number distinct values in the order in which they first appear."""
    _, first, numbers = np.unique(values, return_index=True, return_inverse=True)
    ranks: NDArray[np.int64] = np.argsort(np.argsort(first))[numbers]
    return ranks


def _unlike(
    rows: NDArray[np.int64], ids: NDArray[np.int64], texts: NDArray[np.int64]
) -> Iterator[Violation]:
    for first, second, what in (
        (ids, texts, "an id stands for two texts"),
        (texts, ids, "a text stands under two ids"),
    ):
        order = np.lexsort((second, first))
        same = first[order][1:] == first[order][:-1]
        differ = second[order][1:] != second[order][:-1]
        for place in np.flatnonzero(same & differ):
            one, two = order[place], order[place + 1]
            yield Violation(int(rows[two]), what, tuple({int(ids[one]), int(ids[two])}))


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _two_of_one(firsts_NS: Any, seconds_NS: Any, filled_NS: Any, batch_size: Any) -> Any:
    """Bool (P,): batches in which a first value stands beside two different second values."""
    num_rows, num_slots = firsts_NS.shape
    found = np.zeros(num_rows // batch_size, np.bool_)
    size = 16
    while 4 * size < 5 * batch_size * num_slots:
        size *= 2
    # Open addressing; a place is free unless its batch is this one.
    batches = np.full(size, -1, np.int64)
    keys, values = np.empty(size, np.int64), np.empty(size, np.int64)
    for row in range(num_rows):
        batch = row // batch_size
        for slot in range(num_slots):
            if not filled_NS[row, slot]:
                continue
            key = firsts_NS[row, slot]
            place = np.int64(mix(0, key, 0) & np.uint64(size - 1))
            while batches[place] == batch and keys[place] != key:
                place = (place + 1) & (size - 1)
            if batches[place] != batch:
                batches[place], keys[place] = batch, key
                values[place] = seconds_NS[row, slot]
            elif values[place] != seconds_NS[row, slot]:
                found[batch] = True
    return found

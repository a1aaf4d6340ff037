"""Invariants of a packed batch, checked from its ids and texts alone.

Shape letters: B rows of a batch, M texts of the batch (every slot that is filled).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stx_mine.core.groups import Groups, members_of
from stx_mine.core.ragged import Ragged, offsets_of

# Characters of a text that a sentence about a violation shows.
SHOWN_TEXT = 60


@dataclass(frozen=True)
class Violation:
    """A broken invariant.

    Attributes:
        row: Row within the batch.
        what: What is wrong, in words.
        ids: The texts concerned.
    """

    row: int
    what: str
    ids: tuple[int, ...]


@dataclass(frozen=True)
class BatchIds:
    """The ids of one batch, of texts but for those that are known and near.

    Attributes:
        anchors: int64 (B,).
        positives: int64 (B,).
        negatives: (B,) ragged.
        ignored: (B,) ragged.
        known: (B,) ragged: groups of all known positives of each row's anchor.
        near: (B,) ragged: groups of the near positives of each row's anchor.
        groups: The group of each text.
    """

    anchors: NDArray[np.int64]
    positives: NDArray[np.int64]
    negatives: Ragged
    ignored: Ragged
    known: Ragged
    near: Ragged
    groups: Groups

    def of_negatives(self) -> Ragged:
        """(B,) ragged: the groups of the negatives."""
        return Ragged(self.negatives.offsets, self.groups.of(self.negatives.values))


class _Keys:
    """(row, text or group) as one number, so that sets of them compare at once."""

    def __init__(self, batch: BatchIds) -> None:
        everything = (
            batch.anchors,
            batch.positives,
            batch.negatives.values,
            batch.ignored.values,
            batch.known.values,
            batch.near.values,
        )
        self._width = 1 + max(int(ids.max(initial=0)) for ids in everything)

    def of(self, ragged: Ragged) -> NDArray[np.int64]:
        rows = np.repeat(np.arange(len(ragged)), ragged.lengths())
        return rows * self._width + ragged.values

    def of_column(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.arange(len(ids)) * self._width + ids

    def violations(self, keys: NDArray[np.int64], what: str) -> Iterator[Violation]:
        for key in keys:
            yield Violation(int(key // self._width), what, (int(key % self._width),))

    def ragged(self, keys: NDArray[np.int64], num_rows: int) -> Ragged:
        """Back from rising keys."""
        counts = np.bincount(keys // self._width, minlength=num_rows)
        return Ragged(offsets_of(counts), keys % self._width)


def check_batch(batch: BatchIds) -> Iterator[Violation]:
    """What holds under every policy: true negatives, known positives, complete ignore lists."""
    keys = _Keys(batch)
    known, anchors = keys.of(batch.known), keys.of_column(batch.groups.of(batch.anchors))
    positives, negatives = keys.of_column(batch.positives), keys.of(batch.negatives)
    forbidden = np.union1d(known, anchors)
    avoided = np.union1d(forbidden, keys.of(batch.near))
    unknown = ~np.isin(keys.of_column(batch.groups.of(batch.positives)), known)
    yield from keys.violations(positives[unknown], "the positive is not a known one of its anchor")
    of_negatives = keys.of(batch.of_negatives())
    wrong = np.isin(of_negatives, forbidden)
    yield from keys.violations(
        negatives[wrong], "a negative is a known positive (or the text) of its anchor"
    )
    close = np.isin(of_negatives, avoided) & ~wrong
    yield from keys.violations(negatives[close], "a negative is a near positive of its anchor")
    _, first, counts = np.unique(of_negatives, return_index=True, return_counts=True)
    yield from keys.violations(negatives[first[counts > 1]], "a negative stands twice in its row")
    present = np.union1d(batch.positives, batch.negatives.values)
    to_ignore = members_of(
        keys.ragged(avoided, len(batch.anchors)), present, batch.groups.of(present)
    )
    # The positive itself never counts against itself.
    expected, ignored = np.setdiff1d(keys.of(to_ignore), positives), keys.of(batch.ignored)
    missing, extra = np.setdiff1d(expected, ignored), np.setdiff1d(ignored, expected)
    yield from keys.violations(missing, "ignore_ids misses a known or near positive of its anchor")
    yield from keys.violations(extra, "ignore_ids holds what is no other known or near positive")


def check_strict(batch: BatchIds, num_negatives: int) -> Iterator[Violation]:
    """What `strict` adds: no group twice in any role, nothing to ignore, full rows."""
    texts = np.concatenate([batch.anchors, batch.positives, batch.negatives.values])
    groups = batch.groups.of(texts)
    rows = np.concatenate(
        [
            np.arange(len(batch.anchors)),
            np.arange(len(batch.anchors)),
            np.repeat(np.arange(len(batch.anchors)), batch.negatives.lengths()),
        ]
    )
    order = np.argsort(groups, kind="stable")
    twice = np.flatnonzero(groups[order][1:] == groups[order][:-1]) + 1
    for place in order[twice]:
        what = "a text stands twice in a strict batch"
        yield Violation(int(rows[place]), what, (int(texts[place]),))
    for row in np.flatnonzero(batch.ignored.lengths() > 0):
        ids = tuple(map(int, batch.ignored.row(int(row))))
        yield Violation(int(row), "a known or near positive is in a strict batch", ids)
    for row in np.flatnonzero(batch.negatives.lengths() != num_negatives):
        yield Violation(int(row), "a row of a strict batch is not full", ())


def check_texts(
    rows_M: NDArray[np.int64], ids_M: NDArray[np.int64], texts_M: NDArray[np.int64]
) -> Iterator[Violation]:
    """Each id has one text and each text one id.

    Args:
        rows_M: int64 (M,) row of each filled slot.
        ids_M: int64 (M,) group of each slot.
        texts_M: int64 (M,) number of the slot's normalised text.
    """
    for first, second, what in (
        (ids_M, texts_M, "an id stands for two texts"),
        (texts_M, ids_M, "a text stands under two ids"),
    ):
        order = np.lexsort((second, first))
        same = first[order][1:] == first[order][:-1]
        differ = second[order][1:] != second[order][:-1]
        for place in np.flatnonzero(same & differ):
            one, two = order[place], order[place + 1]
            yield Violation(int(rows_M[two]), what, tuple({int(ids_M[one]), int(ids_M[two])}))

"""Invariants of batches of (text, label) rows, checked from ids and the table of labels.

Many batches are checked at once: first which of them break an invariant, in time linear in their
rows and in what their smaller labels hold, then what the violations of one of those are.

Shape letters: P batches, B rows of a batch, N = P * B rows, L labels.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from stx_mine.core.ragged import Ragged, ragged_sets
from stx_mine.stages.verify.core.batches import Broken, Violation
from stx_mine.stages.verify.core.sets import are_in, find_all, first_from


@dataclass(frozen=True)
class LabelTable:
    """The texts of every label, and what keeps two labels apart.

    Attributes:
        members: (L,) ragged ids of all texts of each label, rising.
        anchors: int64 (A,) ids of texts that have known positives, rising.
        known: (A,) ragged ids of their known positives.
        shared: (L,) ragged, rising: those of its texts over which two labels can conflict: texts of
            several labels, and texts that another label asks for.
        asked: (L,) ragged, rising: texts of labels that are known positives of its texts.
    """

    members: Ragged
    anchors: NDArray[np.int64]
    known: Ragged
    shared: Ragged
    asked: Ragged

    @classmethod
    def of(cls, members: Ragged, anchors: NDArray[np.int64], known: Ragged) -> "LabelTable":
        """Find what keeps labels apart.

        Args:
            members: (L,) ragged, in any order.
            anchors: int64 (A,) ids of texts, in any order, also repeated.
            known: (A,) ragged ids of their known positives.
        """
        anchors, numbers = np.unique(anchors, return_inverse=True)
        askers = np.repeat(numbers, known.lengths())
        known = ragged_sets(askers, known.values, len(anchors))
        owners = np.repeat(np.arange(len(members)), members.lengths())
        members = ragged_sets(owners, members.values, len(members))
        owners = np.repeat(np.arange(len(members)), members.lengths())
        texts, numbers, uses = np.unique(members.values, return_inverse=True, return_counts=True)
        asked_by = find_all(anchors, members.values)
        found, _ = known.take(asked_by[asked_by >= 0])
        askers = np.repeat(owners[asked_by >= 0], found.lengths())
        places = find_all(texts, found.values)
        # What its own label holds too keeps nothing apart that a shared text does not.
        apart = (places >= 0) & ~are_in(members, askers, found.values)
        asked = ragged_sets(askers[apart], found.values[apart], len(members))
        conflicts = uses > 1
        conflicts[places[apart]] = True
        kept = conflicts[numbers]
        shared = ragged_sets(owners[kept], members.values[kept], len(members))
        return cls(members, anchors, known, shared, asked)


def check_label_batches(
    text_ids: NDArray[np.int64],
    labels: NDArray[np.int64],
    table: LabelTable,
    texts_per_label: int,
    batch_size: int,
) -> Broken:
    """No text twice; two labels or more, of 2 to M texts each; no two share a text or a pair.

    Args:
        text_ids: int64 (N,).
        labels: int64 (N,).
        table: The texts of every label, whether or not they are in a batch.
        texts_per_label: M.
        batch_size: B.
    """
    known_N = (labels >= 0) & (labels < len(table.members))
    own_N = are_in(table.members, np.where(known_N, labels, -1), text_ids)
    batches = np.arange(len(labels)) // batch_size
    broken_P = ~np.bitwise_and.reduceat(own_N, np.arange(0, len(labels), batch_size))
    # The rows of each label of each batch stand together.
    order = np.lexsort((labels, batches))
    new = np.ones(len(order), bool)
    new[1:] = np.diff(labels[order]) != 0
    new[::batch_size] = True
    starts = np.flatnonzero(new)
    sizes, of = np.diff(starts, append=len(order)), batches[starts]
    broken_P[of[(sizes < 2) | (sizes > texts_per_label)]] = True
    broken_P |= np.bincount(of, minlength=len(broken_P)) < 2
    by_text = np.lexsort((text_ids, batches))
    again = (np.diff(text_ids[by_text]) == 0) & (np.diff(batches) == 0)
    broken_P[batches[1:][again]] = True
    there = ~broken_P[of]
    present = labels[order][starts][there]
    bounds = np.searchsorted(of[there], np.arange(len(broken_P) + 1))
    longest = table.shared.lengths() + table.asked.lengths()
    broken_P |= _meet(
        present[np.lexsort((longest[present], of[there]))],
        bounds,
        (table.shared.offsets, table.shared.values),
        (table.asked.offsets, table.asked.values),
    )
    rows = np.flatnonzero(broken_P) * batch_size

    def named(number: int) -> Iterator[Violation]:
        first = int(rows[number])
        batch = slice(first, first + batch_size)
        for one in _violations(text_ids[batch], labels[batch], table, texts_per_label):
            yield Violation(first + one.row, one.what, one.ids)

    return Broken(rows, named)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _holds(sets: Any, row: Any, wanted: Any) -> Any:
    """Whether a row of rising values has a value."""
    first, last = sets[0][row], sets[0][row + 1]
    place = first_from(sets[1], first, last, wanted)
    return place < last and sets[1][place] == wanted


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _meet(present: Any, bounds: Any, shared: Any, asked: Any) -> Any:
    """Bool (P,): batches in which two labels share a text, or one asks for a text of another.

    Args:
        present: int64: distinct labels of each batch, the one with the longest lists last; its
            lists are searched and not walked, so that one giant label costs a batch little.
        bounds: int64 (P + 1,): where the labels of each batch begin, and the end.
        shared: Offsets and values of `LabelTable.shared`.
        asked: Offsets and values of `LabelTable.asked`.
    """
    found = np.zeros(len(bounds) - 1, np.bool_)
    for batch in range(len(found)):
        labels = present[bounds[batch] : bounds[batch + 1]]
        held, asked_for = {np.int64(-1)}, {np.int64(-1)}
        for label in labels[:-1]:
            if _joins(label, labels[-1], shared, asked, held, asked_for):
                found[batch] = True
                break
        for text in asked_for:
            if text >= 0 and text in held:
                found[batch] = True
    return found


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _joins(label: Any, last: Any, shared: Any, asked: Any, held: Any, asked_for: Any) -> Any:
    """Note the texts of a label; whether it shares one with those before or meets the last one."""
    for text in shared[1][shared[0][label] : shared[0][label + 1]]:
        if text in held or _holds(shared, last, text) or _holds(asked, last, text):
            return True
        held.add(text)
    for text in asked[1][asked[0][label] : asked[0][label + 1]]:
        if _holds(shared, last, text):
            return True
        asked_for.add(text)
    return False


def _violations(
    text_ids: NDArray[np.int64],
    labels: NDArray[np.int64],
    table: LabelTable,
    texts_per_label: int,
) -> Iterator[Violation]:
    """What is wrong in one batch."""
    unknown = np.flatnonzero((labels < 0) | (labels >= len(table.members)))
    for row in unknown:
        yield Violation(int(row), f"label {labels[row]} is not in the table of labels", ())
    if len(unknown):
        return
    present, label_of_row, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if len(present) == 1:
        yield Violation(0, f"label {present[0]} is the only one in the batch", ())
    _, text_of_row, repeats = np.unique(text_ids, return_inverse=True, return_counts=True)
    for row in np.flatnonzero(repeats[text_of_row] > 1):
        yield Violation(int(row), "a text stands twice in the batch", (int(text_ids[row]),))
    for number in np.flatnonzero((counts < 2) | (counts > texts_per_label)):
        first = int(np.argmax(label_of_row == number))
        what = f"label {present[number]} has {counts[number]} texts in the batch, not 2 to "
        yield Violation(first, f"{what}{texts_per_label}", ())
    for row in np.flatnonzero(~are_in(table.members, labels, text_ids)):
        what = f"the text is none of label {labels[row]}"
        yield Violation(int(row), what, (int(text_ids[row]),))
    yield from _meetings(present, label_of_row, table)


def _meetings(
    present: NDArray[np.int64], label_of_row: NDArray[np.int64], table: LabelTable
) -> Iterator[Violation]:
    """Texts of two labels of the batch, and pairs that join two labels of it."""
    members, _ = table.members.take(present)
    owners = np.repeat(np.arange(len(present)), members.lengths())
    order = np.argsort(members.values, kind="stable")
    texts, owners = members.values[order], owners[order]

    def named(one: int, other: int, text: int, words: str) -> Violation:
        row = int(np.argmax(label_of_row == other))
        what = f"labels {present[one]} and {present[other]} {words}"
        return Violation(row, what, (text,))

    for twice in np.flatnonzero(texts[1:] == texts[:-1]):
        words = "share a text and are in one batch"
        yield named(int(owners[twice]), int(owners[twice + 1]), int(texts[twice]), words)
    asked_by = find_all(table.anchors, texts)
    positives, _ = table.known.take(asked_by[asked_by >= 0])
    askers = np.repeat(owners[asked_by >= 0], positives.lengths())
    # Of labels that share a text the first one counts.
    place = find_all(texts, positives.values)
    found = np.flatnonzero(place >= 0)
    for number in found[owners[place[found]] != askers[found]]:
        one, other = int(askers[number]), int(owners[place[number]])
        words = "are joined by a known pair and are in one batch"
        yield named(one, other, int(positives.values[number]), words)

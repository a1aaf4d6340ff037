"""Invariants of a batch of (text, label) rows, checked from its ids and the table of labels.

Shape letters: B rows of a batch, L labels of the batch.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from stx_mine.core.ragged import Ragged
from stx_mine.stages.verify.core.batches import Violation


def check_label_batch(
    text_ids: NDArray[np.int64],
    labels: NDArray[np.int64],
    members: Ragged,
    known: Ragged,
    texts_per_label: int,
) -> Iterator[Violation]:
    """No text twice; two labels or more, of 2 to M texts each; no two share a text or a pair.

    Args:
        text_ids: int64 (B,).
        labels: int64 (B,).
        members: Ids of all texts of every label, whether or not they are in the batch.
        known: Ids of the known positives of the text with each id; none for ids beyond.
        texts_per_label: M.
    """
    unknown = np.flatnonzero((labels < 0) | (labels >= len(members)))
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
    texts, _ = members.take(present)
    owners = np.repeat(np.arange(len(present)), texts.lengths())
    width = 1 + max(int(texts.values.max(initial=0)), int(text_ids.max(initial=0)))
    mine = np.isin(label_of_row * width + text_ids, owners * width + texts.values)
    for row in np.flatnonzero(~mine):
        what = f"the text is none of label {labels[row]}"
        yield Violation(int(row), what, (int(text_ids[row]),))
    yield from _meetings(present, label_of_row, owners, texts.values, known)


def _meetings(
    present: NDArray[np.int64],
    label_of_row: NDArray[np.int64],
    owners: NDArray[np.int64],
    texts: NDArray[np.int64],
    known: Ragged,
) -> Iterator[Violation]:
    """Texts of two labels of the batch, and pairs that join two labels of it."""
    order = np.argsort(texts, kind="stable")
    texts, owners = texts[order], owners[order]

    def named(one: int, other: int, text: int, words: str) -> Violation:
        row = int(np.argmax(label_of_row == other))
        what = f"labels {present[one]} and {present[other]} {words}"
        return Violation(row, what, (text,))

    for twice in np.flatnonzero(texts[1:] == texts[:-1]):
        words = "share a text and are in one batch"
        yield named(int(owners[twice]), int(owners[twice + 1]), int(texts[twice]), words)
    asking = np.flatnonzero(texts < len(known))
    positives, _ = known.take(texts[asking])
    askers = np.repeat(owners[asking], positives.lengths())
    place = np.searchsorted(texts, positives.values)
    found = np.flatnonzero(np.append(texts, -1)[place] == positives.values)
    for number in found[owners[place[found]] != askers[found]]:
        one, other = int(askers[number]), int(owners[place[number]])
        words = "are joined by a known pair and are in one batch"
        yield named(one, other, int(positives.values[number]), words)

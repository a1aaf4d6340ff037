"""Labels: which texts count as the same thing, from (text, label) rows or from pairs.

Shape letters: L labels, R rows (a text under a label), N pairs, Q distinct queries.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from stx_mine.core.ragged import Ragged, offsets_of, ragged_sets, ragged_union
from stx_mine.core.random import mix


@dataclass(frozen=True)
class Labels:
    """The texts of each label, and what keeps two labels apart.

    Attributes:
        texts: (L,) ragged ids of texts, rising, at least two a label. Row r is `texts.values[r]`
            under its label.
        forbidden: (L,) ragged ids of texts; a label that has one of them may not be in a batch of
            this label. Labels that share a text may not be in one batch either.
    """

    texts: Ragged
    forbidden: Ragged

    @cached_property
    def of_rows(self) -> NDArray[np.int64]:
        """int64 (R,): the label of each row, rising."""
        return np.repeat(np.arange(len(self.texts)), self.texts.lengths())


@dataclass(frozen=True)
class LabeledRows:
    """What is left of (text, label) rows.

    Attributes:
        labels: The labels, renumbered without gaps in their old order.
        kept: int64 (L,): the old number of each label.
        dropped: Reason -> rows; with the rows that are left they are all rows.
        contradictory: int64: ids of the texts that stood under several labels.
    """

    labels: Labels
    kept: NDArray[np.int64]
    dropped: dict[str, int]
    contradictory: NDArray[np.int64]


def labels_of_rows(
    text_ids: NDArray[np.int64], label_ids: NDArray[np.int64], num_labels: int
) -> LabeledRows:
    """Drop what a loss over labels cannot use, and count it.

    A text under several labels is dropped under all of them: to such a loss a text has one label,
    and nothing says which of them is right.

    Args:
        text_ids: int64 (rows,): the text of each row; -1 where it is empty.
        label_ids: int64 (rows,), below num_labels: its label; -1 where it is missing.
        num_labels: How many labels there are.
    """
    no_text, no_label = text_ids < 0, label_ids < 0
    given = ~(no_text | no_label)
    dropped = {"empty_text": int(no_text.sum()), "no_label": int((no_label & ~no_text).sum())}
    texts = ragged_sets(label_ids[given], text_ids[given], num_labels)
    dropped["repeated_row"] = int(given.sum()) - len(texts.values)
    uses = np.bincount(texts.values)
    contradictory = np.flatnonzero(uses > 1)
    texts = _filtered(texts, uses[texts.values] == 1)
    dropped["text_under_several_labels"] = int(uses[contradictory].sum())
    alone = texts.lengths() == 1
    dropped["only_text_of_its_label"] = int(alone.sum())
    kept = np.flatnonzero(texts.lengths() > 1)
    texts, _ = texts.take(kept)
    nothing = Ragged(np.zeros(len(kept) + 1, np.int64), np.empty(0, np.int64))
    return LabeledRows(Labels(texts, nothing), kept, dropped, contradictory)


def labels_of_pairs(
    anchors_N: NDArray[np.int64], positives_N: NDArray[np.int64], num_groups: int
) -> tuple[Labels, NDArray[np.int64]]:
    """Take queries that have the same positives, and those positives, for one label.

    So every pair lies within one label, in which every query knows every passage. A text that is
    a passage too counts as a positive of itself. A passage may be in several labels, which then
    share it and keep apart, as do labels that a pair joins. Chains of pairs join nothing: what one
    long chain connects may have little in common.

    Args:
        anchors_N: int64 (N,) group of each pair's query.
        positives_N: int64 (N,) group of each pair's passage, another than that of its query.
        num_groups: Size of the group space.

    Returns:
        The labels in the order of their first pairs, and int64 (L,): the first query of each.
    """
    queries, first_Q, query_N = np.unique(anchors_N, return_index=True, return_inverse=True)
    is_passage = np.zeros(num_groups, np.bool_)
    is_passage[positives_N] = True
    both = np.flatnonzero(is_passage[queries])
    sets = ragged_sets(
        np.concatenate([query_N, both]), np.concatenate([positives_N, queries[both]]), len(queries)
    )
    _, label_Q = np.unique(_set_hashes(sets.offsets, sets.values), return_inverse=True)
    first_L = np.full(int(label_Q.max(initial=-1)) + 1, len(anchors_N))
    np.minimum.at(first_L, label_Q, first_Q)
    label_Q = np.argsort(np.argsort(first_L))[label_Q]
    texts = ragged_sets(
        np.concatenate([label_Q[query_N], label_Q]),
        np.concatenate([positives_N, queries]),
        len(first_L),
    )
    forbidden = _joined(texts, queries, label_Q, sets, num_groups)
    return Labels(texts, forbidden), anchors_N[np.sort(first_L)]


def kept_apart(
    labels: Labels, query_texts: NDArray[np.int64], known: Ragged, num_texts: int
) -> Labels:
    """Also keep labels apart where a text of one is known to be right for a query of the other.

    That is more than pairs say where texts that are not equal are of one group.

    Args:
        labels: The labels.
        query_texts: int64 (num queries,) id of each query's text.
        known: (num queries,) ids of all texts that are of the group of a positive.
        num_texts: Ids are below this.
    """
    query_of = np.full(num_texts, -1, np.int64)
    query_of[query_texts] = np.arange(len(query_texts))
    asking = query_of[labels.texts.values]
    found, _ = known.take(asking[asking >= 0])
    owners = np.repeat(labels.of_rows[asking >= 0], found.lengths())
    own = labels.of_rows * num_texts + labels.texts.values
    others = ~np.isin(owners * num_texts + found.values, own)
    more = ragged_sets(owners[others], found.values[others], len(labels.texts))
    return Labels(labels.texts, ragged_union(labels.forbidden, more))


def _joined(
    texts: Ragged,
    queries: NDArray[np.int64],
    label_Q: NDArray[np.int64],
    sets: Ragged,
    num_groups: int,
) -> Ragged:
    """(L,) positives that texts of a label have as queries of another label."""
    query_of = np.full(num_groups, -1, np.int64)
    query_of[queries] = np.arange(len(queries))
    owners = np.repeat(np.arange(len(texts)), texts.lengths())
    asking = query_of[texts.values]
    elsewhere = (asking >= 0) & (label_Q[asking] != owners)
    found, _ = sets.take(asking[elsewhere])
    return ragged_sets(np.repeat(owners[elsewhere], found.lengths()), found.values, len(texts))


def _filtered(ragged: Ragged, keep: NDArray[np.bool_]) -> Ragged:
    rows = np.repeat(np.arange(len(ragged)), ragged.lengths())[keep]
    return Ragged(offsets_of(np.bincount(rows, minlength=len(ragged))), ragged.values[keep])


def _set_hashes(offsets: NDArray[np.int64], values: NDArray[np.int64]) -> NDArray[np.complex128]:
    """A number of 104 bits for each sorted row, so that equal rows are found by sorting."""
    halves = np.empty((len(offsets) - 1, 2), np.uint64)
    _hash_rows(offsets, values, halves)
    # Two halves of 52 bits stay exact as floats, which sort together as one complex number.
    exact = (halves >> np.uint64(12)).astype(np.float64)
    return exact[:, 0] + 1j * exact[:, 1]


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _hash_rows(offsets: Any, values: Any, halves: Any) -> None:
    for row in range(len(offsets) - 1):
        one, two = np.uint64(1), np.uint64(2)
        for place in range(offsets[row], offsets[row + 1]):
            one = mix(one, values[place], place - offsets[row])
            two = mix(two, values[place], place - offsets[row])
        halves[row, 0], halves[row, 1] = one, two

"""Rules of a batch that has texts alone and no ids of groups: which of its rows break one.

Shape letters: N rows of the data, B rows of a batch, C columns (anchor, positive, negatives),
U distinct anchors. A text is a number: equal texts have equal ones, and -1 is a missing text.
"""

import numpy as np
from numpy.typing import NDArray

from stx_mine.core.ragged import Ragged, offsets_of, places_of

MISSING, OWN_TEXT, KNOWN_POSITIVE = "missing", "own_text", "known_positive"
REPEATED, POSITIVE_ELSEWHERE = "repeated", "positive_elsewhere"
ROW_RULES = {
    MISSING: "a text is missing or empty",
    OWN_TEXT: "the anchor is its own positive or negative",
    KNOWN_POSITIVE: "a negative is a known positive of its anchor",
    REPEATED: "a text stands twice in the batch",
    POSITIVE_ELSEWHERE: "a known positive of the anchor stands in another row of the batch",
}
Slot = tuple[int, int]


class KnownPairs:
    """Every (anchor, positive) of the data, in at most 24 bytes per row."""

    def __init__(self, anchors_N: NDArray[np.int64], positives_N: NDArray[np.int64]) -> None:
        """Collect pairs; those with a missing text are none.

        Args:
            anchors_N: int64 (N,).
            positives_N: int64 (N,).
        """
        whole = (anchors_N >= 0) & (positives_N >= 0)
        self._anchors, keys = np.unique(anchors_N[whole], return_inverse=True)
        self._positives, places = np.unique(positives_N[whole], return_inverse=True)
        keys *= len(self._positives)
        keys += places
        self._keys = np.unique(keys)

    def _key(self, anchors: NDArray[np.int64], texts: NDArray[np.int64]) -> NDArray[np.int64]:
        """A pair as one number; -1 where one of the two is in no pair."""
        anchor_places, places = _places(self._anchors, anchors), _places(self._positives, texts)
        keys = anchor_places * len(self._positives) + places
        keys[(anchor_places < 0) | (places < 0)] = -1
        return keys

    def has(self, anchors: NDArray[np.int64], texts: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each text is a known positive of its anchor.

        Args:
            anchors: int64, of a shape that broadcasts to that of `texts`.
            texts: int64, any shape.
        """
        found: NDArray[np.bool_] = _places(self._keys, self._key(anchors, texts)) >= 0
        return found

    def of(self, anchors_U: NDArray[np.int64]) -> Ragged:
        """All known positives of each anchor; none of one that is in no pair."""
        places, width = _places(self._anchors, anchors_U), len(self._positives)
        starts = np.searchsorted(self._keys, places * width)
        offsets = offsets_of(np.searchsorted(self._keys, (places + 1) * width) - starts)
        keys = self._keys[places_of(starts, offsets)]
        return Ragged(offsets, self._positives[keys % max(1, width)])


def broken_rules(ids_BC: NDArray[np.int64], known: KnownPairs) -> dict[str, NDArray[np.bool_]]:
    """The rows of a batch that break each rule.

    A text that is repeated marks every row that holds it; the anchor in its own row and a
    negative that is its row's positive have rules of their own and are not repeated by that alone.

    Returns:
        Rule -> bool (B,), in the order of `ROW_RULES`.
    """
    anchors, passages = ids_BC[:, :1], ids_BC[:, 1:]
    is_known = known.has(anchors, passages)
    return {
        MISSING: (ids_BC < 0).any(axis=1),
        OWN_TEXT: ((passages == anchors) & (passages >= 0)).any(axis=1),
        KNOWN_POSITIVE: is_known[:, 1:].any(axis=1),
        REPEATED: _repeated(ids_BC),
        POSITIVE_ELSEWHERE: _positive_elsewhere(ids_BC, is_known, known),
    }


def slots_of(ids_BC: NDArray[np.int64], known: KnownPairs, rule: str, row: int) -> tuple[Slot, ...]:
    """Where the texts stand by which a row breaks a rule: the first such (row, column)s, rising.

    Args:
        ids_BC: int64 (B, C), the batch.
        known: Every pair of the data.
        rule: One of `ROW_RULES`.
        row: A row that `broken_rules` marks for it.
    """
    own = ids_BC[row]
    if rule == MISSING:
        return ((row, int(np.argmax(own < 0))),)
    if rule == OWN_TEXT:
        return (row, 0), (row, 1 + int(np.argmax(own[1:] == own[0])))
    if rule == KNOWN_POSITIVE:
        is_known = known.has(own[:1], own[2:])
        return (row, 0), (row, 2 + int(np.argmax(is_known)))
    rows, columns = np.indices(ids_BC.shape)
    if rule == POSITIVE_ELSEWHERE:
        is_known = known.has(own[:1], ids_BC)
        elsewhere = is_known & (ids_BC != own[1]) & (rows != row) & (columns > 0)
        return (row, 0), _first_slot(elsewhere)
    for column in range(len(own)):
        negatives = (rows == row) & (columns > 1) & (columns != column) & (column > 1)
        again = (ids_BC == own[column]) & ((rows != row) | negatives)
        if own[column] >= 0 and again.any():
            return tuple(sorted([(row, column), _first_slot(again)]))
    raise AssertionError(f"row {row} does not break {rule}")


def _first_slot(marked_BC: NDArray[np.bool_]) -> Slot:
    row, column = divmod(int(np.argmax(marked_BC)), marked_BC.shape[1])
    return row, column


def _repeated(ids_BC: NDArray[np.int64]) -> NDArray[np.bool_]:
    rows, columns = np.nonzero(ids_BC >= 0)
    ids = ids_BC[rows, columns]
    order = np.argsort(ids, kind="stable")
    one, two = order[:-1], order[1:]
    again = (ids[one] == ids[two]) & ((rows[one] != rows[two]) | (columns[one] > 1))
    marked = np.zeros(len(ids_BC), bool)
    marked[rows[one[again]]] = marked[rows[two[again]]] = True
    return marked


def _positive_elsewhere(
    ids_BC: NDArray[np.int64], is_known: NDArray[np.bool_], known: KnownPairs
) -> NDArray[np.bool_]:
    """Rows whose anchor has more known positives in the batch than its own row accounts for.

    Counting keeps it linear where one anchor has half of the batch as positives.

    Args:
        ids_BC: int64 (B, C).
        is_known: bool (B, C - 1), whether each passage is a known positive of its row's anchor.
        known: Every pair of the data.
    """
    num_rows = len(ids_BC)
    rows, columns = np.nonzero(ids_BC[:, 1:] >= 0)
    texts = ids_BC[rows, columns + 1]
    distinct, first, place = np.unique(texts, return_index=True, return_inverse=True)
    last = len(texts) - 1 - np.unique(texts[::-1], return_index=True)[1]
    in_one_row = rows[first] == rows[last]
    anchors_U, anchor_of = np.unique(ids_BC[:, 0], return_inverse=True)
    positives = known.of(anchors_U)
    present = _places(distinct, positives.values) >= 0
    owners = np.repeat(np.arange(len(anchors_U)), positives.lengths())
    in_batch = np.bincount(owners[present], minlength=len(anchors_U))[anchor_of]
    own = is_known[rows, columns] & (in_one_row[place] | (texts == ids_BC[rows, 1]))
    slots = np.unique(rows[own] * len(distinct) + place[own])
    accounted = np.bincount(slots // max(1, len(distinct)), minlength=num_rows)
    return in_batch > accounted


def _places(rising: NDArray[np.int64], values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each value stands in a rising array of distinct numbers; -1 where it does not."""
    if not len(rising):
        return np.full(values.shape, -1, np.int64)
    places = np.searchsorted(rising, values)
    np.minimum(places, len(rising) - 1, out=places)
    places[rising[places] != values] = -1
    return places

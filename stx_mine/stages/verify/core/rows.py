"""Rules of rows that have texts alone and no ids of groups: which of them break one.

Shape letters: R rows, M slots (the texts of all rows, in the order of rows: the anchor of a row,
its positives, its negatives), U distinct anchors. A text is a number: equal texts have equal ones,
and -1 is a missing text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from stx_mine.core.ragged import Ragged, offsets_of, ragged_sets
from stx_mine.stages.verify.core.sets import are_in, common_counts, find_all

MISSING, OWN_TEXT, KNOWN_POSITIVE = "missing", "own_text", "known_positive"
REPEATED, POSITIVE_ELSEWHERE, SAME_ROW = "repeated", "positive_elsewhere", "same_row"
_WORDS = {
    MISSING: "a text is missing or empty",
    OWN_TEXT: "the anchor is its own positive or negative",
    KNOWN_POSITIVE: "a negative is a known positive of its anchor",
}
# Rule -> what is wrong: in a batch, and where each row is looked at by itself.
BATCH_RULES = {
    **_WORDS,
    REPEATED: "a text stands twice in the batch",
    POSITIVE_ELSEWHERE: "a known positive of the anchor stands in another row of the batch",
}
ROW_RULES = {
    **_WORDS,
    REPEATED: "a text stands twice in its row",
    SAME_ROW: "the row stands in the data before",
}
ANCHOR, POSITIVE, NEGATIVE = 0, 1, 2
# (row, place in the row): 0 for the anchor, then the positives, then the negatives.
Slot = tuple[int, int]


@dataclass(frozen=True)
class TextRows:
    """Rows of texts.

    Attributes:
        anchors: int64 (R,).
        positives: (R,) ragged.
        negatives: (R,) ragged.
    """

    anchors: NDArray[np.int64]
    positives: Ragged
    negatives: Ragged

    def __len__(self) -> int:
        return len(self.anchors)

    def slice(self, first: int, last: int) -> "TextRows":
        """Rows [first, last)."""
        rows = np.arange(first, min(last, len(self)))
        taken = (one.take(rows)[0] for one in (self.positives, self.negatives))
        return TextRows(self.anchors[first:last], *taken)

    @classmethod
    def concatenate(cls, parts: Sequence["TextRows"]) -> "TextRows":
        """Join parts; no part is no row."""

        def joined(raggeds: list[Ragged]) -> Ragged:
            lengths = np.concatenate([_EMPTY, *(one.lengths() for one in raggeds)])
            values = np.concatenate([_EMPTY, *(one.values for one in raggeds)])
            return Ragged(offsets_of(lengths), values)

        return cls(
            np.concatenate([_EMPTY, *(part.anchors for part in parts)]),
            joined([part.positives for part in parts]),
            joined([part.negatives for part in parts]),
        )

    @cached_property
    def slots(self) -> "_Slots":
        """Their texts, one slot after the other."""
        lengths = [np.ones(len(self), np.int64), self.positives.lengths(), self.negatives.lengths()]
        owners = np.concatenate([np.repeat(np.arange(len(self)), one) for one in lengths])
        order = np.argsort(owners, kind="stable")
        texts = np.concatenate([self.anchors, self.positives.values, self.negatives.values])
        roles = np.repeat([ANCHOR, POSITIVE, NEGATIVE], [int(one.sum()) for one in lengths])
        starts = offsets_of(np.bincount(owners, minlength=len(self)))
        places = np.arange(len(owners)) - starts[owners[order]]
        return _Slots(owners[order], places, roles[order], texts[order])

    def digests(self) -> NDArray[np.uint64]:
        """uint64 (R,): equal for rows of equal texts in equal roles and order."""
        slots, found = self.slots, np.zeros(len(self), np.uint64)
        mixed = _mixed(slots.texts.astype(np.uint64) + _mixed(slots.places.astype(np.uint64) * 3))
        np.add.at(found, slots.rows, _mixed(mixed + slots.roles.astype(np.uint64)))
        return found


_EMPTY = np.empty(0, np.int64)


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Numbers spread over 64 bits, as the finalizer of splitmix64 does."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: NDArray[np.uint64] = values ^ (values >> np.uint64(31))
    return mixed


@dataclass(frozen=True)
class _Slots:
    """The texts of rows, a slot each, by row, then by place.

    Attributes:
        rows: int64 (M,).
        places: int64 (M,).
        roles: int64 (M,), ANCHOR, POSITIVE or NEGATIVE.
        texts: int64 (M,).
    """

    rows: NDArray[np.int64]
    places: NDArray[np.int64]
    roles: NDArray[np.int64]
    texts: NDArray[np.int64]

    def first(self, marked_M: NDArray[np.bool_]) -> Slot:
        """The first of some slots."""
        slot = int(np.argmax(marked_M))
        return int(self.rows[slot]), int(self.places[slot])


class KnownPairs:
    """Every (anchor, positive) of the data, in at most 24 bytes per pair."""

    def __init__(self, anchors_N: NDArray[np.int64], positives_N: NDArray[np.int64]) -> None:
        """Collect pairs; those with a missing text are none.

        Args:
            anchors_N: int64 (N,).
            positives_N: int64 (N,).
        """
        whole = (anchors_N >= 0) & (positives_N >= 0)
        self._anchors, rows = np.unique(anchors_N[whole], return_inverse=True)
        self._known = ragged_sets(rows, positives_N[whole], len(self._anchors))

    def has(self, anchors: NDArray[np.int64], texts: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each text is a known positive of its anchor.

        Args:
            anchors: int64 (V,), or (1,) for the same one each time.
            texts: int64 (V,).
        """
        rows = np.broadcast_to(find_all(self._anchors, anchors), texts.shape)
        return are_in(self._known, rows, texts)

    def counts_among(
        self,
        anchors: NDArray[np.int64],
        texts: NDArray[np.int64],
        bounds: NDArray[np.int64],
    ) -> NDArray[np.int64]:
        """How many texts of a range are known positives of an anchor.

        Time is linear in the shorter of what the anchor has and what the range holds.

        Args:
            anchors: int64 (V,).
            texts: int64, rising within each range, without repeats.
            bounds: int64 (V, 2): where the range of each anchor begins and ends.

        Returns:
            int64 (V,).
        """
        rows, offsets = find_all(self._anchors, anchors), self._known.offsets
        own = np.stack([offsets[rows], offsets[np.where(rows < 0, rows, rows + 1)]], axis=1)
        return common_counts(self._known.values, own, texts, bounds)


def broken_rules(
    rows: TextRows, known: KnownPairs, batch_size: int | None
) -> dict[str, NDArray[np.bool_]]:
    """The rows that break each rule.

    A text that is repeated marks every row that holds it; the anchor in its own row and a
    negative that is its row's positive have rules of their own and are not repeated by that alone.

    Args:
        rows: The rows of whole batches, of which the last one may be partial, or any rows.
        known: Every pair of the data.
        batch_size: Rows of a batch; None where each row is looked at by itself.

    Returns:
        Rule -> bool (R,), in the order of `BATCH_RULES`; without the last one where rows are
        looked at by themselves.
    """
    slots = rows.slots
    is_passage = slots.roles != ANCHOR
    own_M = rows.anchors[slots.rows]
    is_known = is_passage & known.has(own_M, slots.texts)
    marked = {
        MISSING: slots.texts < 0,
        OWN_TEXT: is_passage & (slots.texts == own_M) & (own_M >= 0),
        KNOWN_POSITIVE: is_known & (slots.roles == NEGATIVE),
        REPEATED: _repeated(slots, batch_size or 1),
    }
    broken = {rule: _rows_of(slots, found, len(rows)) for rule, found in marked.items()}
    if batch_size is not None:
        broken[POSITIVE_ELSEWHERE] = _positive_elsewhere(rows, is_known, known, batch_size)
    return broken


def slots_of(
    rows: TextRows, known: KnownPairs, rule: str, row: int, together: bool = True
) -> tuple[Slot, ...]:
    """Where the texts stand by which a row breaks a rule: the first such slots, rising.

    Args:
        rows: The rows of a batch, or any rows.
        known: Every pair of the data.
        rule: One of `broken_rules`.
        row: A row that it marks for the rule.
        together: Whether they are one batch.
    """
    slots, anchor = rows.slots, rows.anchors[row]
    own = slots.rows == row
    if rule == MISSING:
        return (slots.first(own & (slots.texts < 0)),)
    if rule == OWN_TEXT:
        return (row, 0), slots.first(own & (slots.roles != ANCHOR) & (slots.texts == anchor))
    is_known = known.has(np.full(1, anchor), slots.texts) & (slots.roles != ANCHOR)
    if rule == KNOWN_POSITIVE:
        return (row, 0), slots.first(own & is_known & (slots.roles == NEGATIVE))
    if rule == POSITIVE_ELSEWHERE:
        positives = slots.texts[own & (slots.roles == POSITIVE)]
        elsewhere = is_known & ~own & ~np.isin(slots.texts, positives)
        return (row, 0), slots.first(elsewhere)
    here = np.flatnonzero(own & (slots.texts >= 0))
    pairs = np.stack([slots.roles[here], slots.texts[here]], axis=1)
    _, place, counts = np.unique(pairs, axis=0, return_inverse=True, return_counts=True)
    again = counts[place] > 1
    if together:
        again |= np.isin(slots.texts[here], slots.texts[~own])
    slot = here[np.argmax(again)]
    others = (slots.texts == slots.texts[slot]) & (
        (own & (slots.roles == slots.roles[slot])) | (~own & together)
    )
    others[slot] = False
    one, other = sorted([(row, int(slots.places[slot])), slots.first(others)])
    return one, other


def _rows_of(slots: _Slots, marked_M: NDArray[np.bool_], num_rows: int) -> NDArray[np.bool_]:
    found = np.zeros(num_rows, bool)
    found[slots.rows[marked_M]] = True
    return found


def _repeated(slots: _Slots, batch_size: int) -> NDArray[np.bool_]:
    """Slots of a text that stands in two rows of a batch, or twice in one role of a row."""
    real, batches = np.flatnonzero(slots.texts >= 0), slots.rows // batch_size
    order = real[np.lexsort((slots.texts[real], batches[real]))]
    one, two = order[:-1], order[1:]
    again = (slots.texts[one] == slots.texts[two]) & (batches[one] == batches[two])
    again &= (slots.rows[one] != slots.rows[two]) | (slots.roles[one] == slots.roles[two])
    marked = np.zeros(len(slots.texts), bool)
    marked[one[again]] = marked[two[again]] = True
    return marked


def _positive_elsewhere(
    rows: TextRows, is_known_M: NDArray[np.bool_], known: KnownPairs, batch_size: int
) -> NDArray[np.bool_]:
    """Rows whose anchor has more known positives in the batch than its own row accounts for.

    Counting keeps it linear where one anchor has half of the batch as positives.

    Args:
        rows: The rows of whole batches, of which the last one may be partial.
        is_known_M: bool (M,), whether each passage is a known positive of its row's anchor.
        known: Every pair of the data.
        batch_size: Rows of a batch.
    """
    passages = np.flatnonzero((rows.slots.roles != ANCHOR) & (rows.slots.texts >= 0))
    owners, texts = rows.slots.rows[passages], rows.slots.texts[passages]
    batch_R = np.arange(len(rows)) // batch_size
    # The distinct texts of each batch, rising; those of a text's slots rise by row.
    order = np.lexsort((owners, texts, batch_R[owners]))
    new, place = _runs(texts[order], batch_R[owners[order]])
    starts = np.flatnonzero(new)
    last = np.append(starts, len(order))[1:] - 1
    in_one_row = owners[order[starts]] == owners[order[last]]
    number = np.empty(len(order), np.int64)
    number[order] = place
    by_anchor = np.lexsort((rows.anchors, batch_R))
    new, place = _runs(rows.anchors[by_anchor], batch_R[by_anchor])
    firsts = by_anchor[new]
    ends = np.searchsorted(batch_R[owners[order[starts]]], np.arange(batch_R[-1] + 2))
    bounds = np.stack([ends[:-1], ends[1:]], axis=1)[batch_R[firsts]]
    in_batch = np.empty(len(rows), np.int64)
    counts = known.counts_among(rows.anchors[firsts], texts[order[starts]], bounds)
    in_batch[by_anchor] = counts[place]
    is_positive = rows.slots.roles[passages] == POSITIVE
    # A positive of the row accounts for its text, in whatever other rows that stands.
    own_texts = np.unique(owners[is_positive] * len(starts) + number[is_positive])
    keys = owners * len(starts) + number
    own = is_known_M[passages] & (in_one_row[number] | (find_all(own_texts, keys) >= 0))
    accounted = np.unique(keys[own]) // max(1, len(starts))
    return in_batch > np.bincount(accounted, minlength=len(rows))


def _runs(
    values: NDArray[np.int64], batches: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Which of sorted values begin a run of equal ones in a batch, and the run of each."""
    new = np.ones(len(values), bool)
    new[1:] = (values[1:] != values[:-1]) | (batches[1:] != batches[:-1])
    return new, np.cumsum(new) - 1

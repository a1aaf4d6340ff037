"""Which texts of a batch are no negatives of a row, beside the passages that it ignores.

Shape letters: B rows, A distinct anchors, M distinct passages, K negatives a row.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stx_mine.core.groups import members_of
from stx_mine.core.ragged import Ragged, offsets_of, ragged_sets
from stx_mine.core.random import mix_rows


@dataclass(frozen=True)
class BatchRoles:
    """Who stands where in a batch.

    Attributes:
        anchors_B: int64 (B,) row -> distinct anchor.
        slots_SB: int64 (1 + K, B) row -> distinct passage: its positive, its negatives; -1 pads.
        ignored: int64 (2, n) pairs of a row and another passage that is right for its anchor,
            sorted by row.
        groups_A: int64 (A,) the group of each distinct anchor.
    """

    anchors_B: NDArray[np.int64]
    slots_SB: NDArray[np.int64]
    ignored: NDArray[np.int64]
    groups_A: NDArray[np.int64]


def other_right_anchors(roles: BatchRoles, own: slice) -> NDArray[np.int64]:
    """Anchors for which the positive of a row is right, other than the row's own.

    It is right for all anchors of a group if it is right for one.

    Args:
        roles: Of the batch.
        own: The rows to take.

    Returns:
        int64 (2, m) pairs of a row (from 0 in `own`) and a distinct anchor, sorted by row; one may
        stand there more than once.
    """
    anchors_B, targets_B, ignored = roles.anchors_B, roles.slots_SB[0], roles.ignored
    distinct, kind_A = np.unique(roles.groups_A, return_inverse=True)
    passages = np.concatenate([targets_B, ignored[1]])
    kinds = kind_A[np.concatenate([anchors_B, anchors_B[ignored[0]]])]
    passages, kinds = np.divmod(np.unique(passages * len(distinct) + kinds), len(distinct))
    anchors, _ = _members(kind_A, len(distinct)).take(kinds)
    starts = np.searchsorted(passages, np.arange(passages.max() + 2))
    right, _ = Ragged(anchors.offsets[starts], anchors.values).take(targets_B[own])
    found = _pairs(right)
    return found[:, found[1] != anchors_B[own][found[0]]]


def hidden_anchors(roles: BatchRoles, own: slice, known: Ragged, near: Ragged) -> NDArray[np.int64]:
    """Anchors that are no negatives of the anchor of a row.

    Those of its group; those that have a known positive in common with it; those whose text is a
    known or near positive of it, and those of which its own text is one. Its own is among them.

    Args:
        roles: Of the batch.
        own: The rows to take.
        known: (A,) groups of the known positives of each anchor, rising.
        near: (A,) groups of its near positives, rising.

    Returns:
        As `other_right_anchors`.
    """
    groups_A, numbers = roles.groups_A, np.arange(len(roles.groups_A))
    of_group = members_of(Ragged(np.arange(len(groups_A) + 1), groups_A), numbers, groups_A)
    there = [members_of(one, numbers, groups_A) for one in (known, near)]
    back = [
        ragged_sets(one.values, np.repeat(numbers, one.lengths()), len(numbers)) for one in there
    ]
    found = (sharing(known), of_group, *there, *back)
    return _by_row([one.take(roles.anchors_B[own])[0] for one in found])


def hidden_passages(roles: BatchRoles, own: slice, right: Ragged) -> NDArray[np.int64]:
    """Passages that are no negatives of the positive of a row.

    What the row ignores, its own positive and negatives, and what is right for an anchor of the
    batch for which its positive is right, too.

    Args:
        roles: Of the batch.
        own: The rows to take.
        right: (A,) distinct passages that are known positives of each anchor.

    Returns:
        As `other_right_anchors`, of distinct passages.
    """
    slots_SB = roles.slots_SB[:, own]
    num_rows, num_passages = slots_SB.shape[1], 1 + int(roles.slots_SB.max())
    owners = np.repeat(np.arange(len(right)), right.lengths())
    answers = sharing(ragged_sets(right.values, owners, num_passages))
    together, _ = answers.take(slots_SB[0])
    first, last = np.searchsorted(roles.ignored[0], [own.start, own.start + num_rows])
    ignored = roles.ignored[:, first:last] - np.array([[own.start], [0]])
    _, rows = np.nonzero(slots_SB >= 0)
    listed = ragged_sets(
        np.concatenate([ignored[0], rows]),
        np.concatenate([ignored[1], slots_SB[slots_SB >= 0]]),
        num_rows,
    )
    return _by_row([together, listed])


def sharing(sets: Ragged) -> Ragged:
    """For each row, all rows that have a value in common with it; itself, if it has any.

    Equal rows are treated as one, so that labels, whose texts all have the same positives, take no
    more than what is returned.

    Args:
        sets: (N,) rows, each rising.

    Returns:
        (N,) numbers of rows, in any order.
    """
    first, kinds = _equal_rows(sets)
    kept, _ = sets.take(first)
    # Values of one kind tell nothing of others.
    values, places, counts = np.unique(kept.values, return_inverse=True, return_counts=True)
    owners = np.repeat(np.arange(len(first)), kept.lengths())
    common = counts[places] > 1
    having = ragged_sets(places[common], owners[common], len(values))
    partners, _ = having.take(places[common])
    filled = np.flatnonzero(kept.lengths())
    of_kinds = ragged_sets(
        np.concatenate([np.repeat(owners[common], partners.lengths()), filled]),
        np.concatenate([partners.values, filled]),
        len(first),
    )
    rows, _ = _members(kinds, len(first)).take(of_kinds.values)
    found, _ = Ragged(rows.offsets[of_kinds.offsets], rows.values).take(kinds)
    return found


def _equal_rows(sets: Ragged) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The first row of each set of equal rows, and which of them each row is equal to."""
    digests = np.empty((len(sets), 2), np.uint64)
    for seed in range(2):
        mixed = mix_rows(seed, sets.values, sets.values)
        # Sums of 64 bits; where they overflow, differences are right all the same.
        ends = np.concatenate([np.zeros(1, np.uint64), np.cumsum(mixed, dtype=np.uint64)])
        digests[:, seed] = ends[sets.offsets[1:]] - ends[sets.offsets[:-1]]
    _, first, kinds = np.unique(digests, axis=0, return_index=True, return_inverse=True)
    return first, kinds.ravel()


def _members(kinds: NDArray[np.int64], num_kinds: int) -> Ragged:
    """The numbers of each kind."""
    counts = np.bincount(kinds, minlength=num_kinds)
    return Ragged(offsets_of(counts), np.argsort(kinds, kind="stable"))


def _by_row(parts: list[Ragged]) -> NDArray[np.int64]:
    """int64 (2, n): row and value of raggeds of as many rows, by row."""
    together = np.concatenate([_pairs(one) for one in parts], axis=1)
    return together[:, np.argsort(together[0], kind="stable")]


def _pairs(ragged: Ragged) -> NDArray[np.int64]:
    """int64 (2, n): row and value, by row."""
    return np.stack([np.repeat(np.arange(len(ragged)), ragged.lengths()), ragged.values])

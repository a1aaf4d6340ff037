"""Bind negatives to the rows of a batch, and name the passages that a row must ignore.

Shape letters: B rows of a batch, S slots of a pool, K negatives a row.
"""

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from stx_mine.core.ragged import Ragged
from stx_mine.core.random import mix


def bind_top(pools_BS: NDArray[np.int32], num_negatives: int) -> NDArray[np.int64]:
    """The first K of each pool; negatives may be shared by rows.

    Args:
        pools_BS: int32 (B, S) passage ids, best first; -1 pads.
        num_negatives: K.

    Returns:
        int64 (B, K) passage ids; -1 where the pool is short.
    """
    return pools_BS[:, :num_negatives].astype(np.int64)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _without(
    pools: Any, query_ids: Any, passage_groups: Any, offsets: Any, values: Any, avoided_by: Any
) -> Any:
    kept = np.full(pools.shape, -1, np.int32)
    for row in range(len(pools)):
        query, count = query_ids[row], 0
        for f in range(offsets[query], offsets[query + 1]):
            avoided_by[values[f]] = row
        for passage in pools[row]:
            if passage >= 0 and avoided_by[passage_groups[passage]] != row:
                kept[row, count] = passage
                count += 1
    return kept


def pools_without(
    pools_NS: NDArray[np.int32],
    query_ids: NDArray[np.int64],
    passage_groups: NDArray[np.int64],
    avoided: Ragged,
    num_groups: int,
) -> NDArray[np.int32]:
    """Pools less the passages whose group is avoided by the row's query, in their order.

    Args:
        pools_NS: int32 (N, S) passage ids; -1 pads.
        query_ids: int64 (N,).
        passage_groups: int64 (num passages,).
        avoided: Groups of each query.
        num_groups: Size of the group space.
    """
    kept: NDArray[np.int32] = _without(
        pools_NS,
        query_ids,
        passage_groups,
        avoided.offsets,
        avoided.values,
        np.full(num_groups, -1, np.int64),
    )
    return kept


def rotated(pools_BS: NDArray[np.int32], steps: int) -> NDArray[np.int32]:
    """Pools that begin `steps` places later and go on from their start.

    Args:
        pools_BS: int32 (B, S) passage ids; -1 pads.
        steps: At least 0; taken modulo the length of each pool.
    """
    lengths_B = (pools_BS >= 0).sum(1)
    slots = np.arange(pools_BS.shape[1])
    places_BS = (slots[None] + steps) % np.maximum(lengths_B, 1)[:, None]
    turned = np.take_along_axis(pools_BS, places_BS, axis=1)
    return np.where(slots[None] < lengths_B[:, None], turned, np.int32(-1))


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _take_all(
    query_ids: Any,
    anchors: Any,
    positives: Any,
    forbidden_offsets: Any,
    forbidden_values: Any,
    taken: Any,
) -> None:
    """Mark what no negative of the batch may be."""
    for row in range(len(query_ids)):
        query = query_ids[row]
        taken[anchors[row]] = True
        taken[positives[row]] = True
        for f in range(forbidden_offsets[query], forbidden_offsets[query + 1]):
            taken[forbidden_values[f]] = True


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _bind_clean(
    pools: Any,
    num_negatives: Any,
    query_ids: Any,
    anchors: Any,
    positives: Any,
    passage_groups: Any,
    forbidden_offsets: Any,
    forbidden_values: Any,
    taken: Any,
    seed: Any,
) -> Any:
    num_rows, num_passages = len(query_ids), len(passage_groups)
    # Passages are drawn from all while most are clean, then from a list of those that are.
    clean, num_clean, num_draws = np.empty(0, np.int64), -1, 0
    negatives = np.full((num_rows, num_negatives), -1, np.int64)
    num_random = np.zeros(num_rows, np.int64)
    _take_all(query_ids, anchors, positives, forbidden_offsets, forbidden_values, taken)
    for row in range(num_rows):
        bound = 0
        for passage in pools[row]:
            if bound == num_negatives or passage < 0:
                break
            if not taken[passage_groups[passage]]:
                negatives[row, bound] = passage
                taken[passage_groups[passage]] = True
                bound += 1
        while bound < num_negatives and num_clean != 0:
            number = mix(seed, row, num_draws)
            num_draws += 1
            if num_clean < 0:
                passage = np.int64(number % np.uint64(num_passages))
                if num_draws > num_passages:
                    clean = np.flatnonzero(~taken[passage_groups])
                    num_clean = len(clean)
            else:
                place = np.int64(number % np.uint64(num_clean))
                passage = clean[place]
                num_clean -= 1
                clean[place] = clean[num_clean]
            if not taken[passage_groups[passage]]:
                negatives[row, bound] = passage
                taken[passage_groups[passage]] = True
                bound += 1
                num_random[row] += 1
    return negatives, num_random


def bind_clean(
    pools_BS: NDArray[np.int32],
    num_negatives: int,
    query_ids: NDArray[np.int64],
    anchor_groups: NDArray[np.int64],
    positive_groups: NDArray[np.int64],
    passage_groups: NDArray[np.int64],
    forbidden: Ragged,
    num_groups: int,
    seed: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The first K of each pool that keep the batch free of repeats and known positives.

    Rows whose pool runs short take random passages that are clean in the batch, as long as there
    are any. Time is linear in the size of the batch and, where many rows run short, of the corpus.

    Args:
        pools_BS: int32 (B, S) passage ids, best first; -1 pads.
        num_negatives: K.
        query_ids: int64 (B,).
        anchor_groups: int64 (B,).
        positive_groups: int64 (B,).
        passage_groups: int64 (num passages,).
        forbidden: Forbidden groups of each query.
        num_groups: Size of the group space.
        seed: Seed of the random passages.

    Returns:
        int64 (B, K) passage ids (-1 where no clean passage was found), and int64 (B,) how many
        of them are random.
    """
    found: tuple[NDArray[np.int64], NDArray[np.int64]] = _bind_clean(
        pools_BS,
        num_negatives,
        query_ids,
        anchor_groups,
        positive_groups,
        passage_groups,
        forbidden.offsets,
        forbidden.values,
        np.zeros(num_groups, np.bool_),
        seed,
    )
    return found


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _present_of(
    query: Any, place_of: Any, present: Any, offsets: Any, values: Any, found: Any
) -> Any:
    """Write the places of the present groups that a query forbids, rising; how many there are."""
    first, last = offsets[query], offsets[query + 1]
    count = 0
    if last - first <= len(present):
        for f in range(first, last):
            if place_of[values[f]] >= 0:
                found[count] = place_of[values[f]]
                count += 1
        return count
    forbidden = values[first:last]
    for number, group in enumerate(present):
        place = np.searchsorted(forbidden, group)
        if place < len(forbidden) and forbidden[place] == group:
            found[count] = number
            count += 1
    return count


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _ignored(
    by_query: Any,
    query_ids: Any,
    positives: Any,
    place_of: Any,
    present: Any,
    members: Any,
    offsets: Any,
    values: Any,
) -> Any:
    """The lists of all rows. Rows come by query, so that a list is made once, not once a row."""
    ends = np.zeros(len(query_ids) + 1, np.int64)
    found = np.empty(len(present) + 1, np.int64)
    ignored = np.empty(0, np.int64)
    for is_last in (False, True):
        query, count = -1, 0
        for row in by_query:
            if query_ids[row] != query:
                query = query_ids[row]
                count = _present_of(query, place_of, present, offsets, values, found)
            place = ends[row]
            for number in found[:count]:
                for text in members[1][members[0][number] : members[0][number + 1]]:
                    if text == positives[row]:
                        continue
                    if is_last:
                        ignored[place] = text
                        place += 1
                    else:
                        ends[row + 1] += 1
        if not is_last:
            ends = np.cumsum(ends)
            ignored = np.empty(ends[-1], np.int64)
    return ends, ignored


def ignored_passages(
    query_ids: NDArray[np.int64],
    positives: NDArray[np.int64],
    negatives_BK: NDArray[np.int64],
    passage_groups: NDArray[np.int64],
    forbidden: Ragged,
    num_groups: int,
) -> Ragged:
    """Passages of the batch that are known positives of a row (or its own text) but not its own.

    Args:
        query_ids: int64 (B,).
        positives: int64 (B,) passage ids.
        negatives_BK: int64 (B, K) passage ids; -1 pads.
        passage_groups: int64 (num passages,).
        forbidden: Forbidden groups of each query.
        num_groups: Size of the group space.

    Returns:
        Passages to mask, a row each, by group, then rising.
    """
    passages = np.unique(np.concatenate([positives, negatives_BK[negatives_BK >= 0]]))
    groups = passage_groups[passages]
    order = np.argsort(groups, kind="stable")
    present, starts = np.unique(groups[order], return_index=True)
    place_of = np.full(num_groups, -1, np.int64)
    place_of[present] = np.arange(len(present))
    return Ragged(
        *_ignored(
            np.argsort(query_ids, kind="stable"),
            query_ids,
            positives,
            place_of,
            present,
            (np.append(starts, len(passages)), passages[order]),
            forbidden.offsets,
            forbidden.values,
        )
    )

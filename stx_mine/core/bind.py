"""Bind negatives to the rows of a batch, and name the passages that a row must ignore.

Shape letters: B rows of a batch, S slots of a pool, K negatives a row.
"""

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from stx_mine.core.random import mix
from stx_mine.ragged import Ragged

_RANDOM_TRIES = 4_096


def bind_top(pools_BS: NDArray[np.int32], num_negatives: int) -> NDArray[np.int64]:
    """The first K of each pool; negatives may be shared by rows.

    Args:
        pools_BS: int32 (B, S) passage ids, best first; -1 pads.
        num_negatives: K.

    Returns:
        int64 (B, K) passage ids; -1 where the pool is short.
    """
    return pools_BS[:, :num_negatives].astype(np.int64)


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
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
    num_rows = len(query_ids)
    negatives = np.full((num_rows, num_negatives), -1, np.int64)
    num_random = np.zeros(num_rows, np.int64)
    for row in range(num_rows):
        taken[anchors[row]] = True
        taken[positives[row]] = True
        for f in range(forbidden_offsets[query_ids[row]], forbidden_offsets[query_ids[row] + 1]):
            taken[forbidden_values[f]] = True
    for row in range(num_rows):
        bound = 0
        for passage in pools[row]:
            if bound == num_negatives or passage < 0:
                break
            if not taken[passage_groups[passage]]:
                negatives[row, bound] = passage
                taken[passage_groups[passage]] = True
                bound += 1
        attempt = 0
        while bound < num_negatives and attempt < _RANDOM_TRIES:
            passage = mix(seed, row, attempt) % np.uint64(len(passage_groups))
            attempt += 1
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

    Rows whose pool runs short take random passages that are clean in the batch.

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


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def _ignored(
    present: Any, query_ids: Any, positives: Any, forbidden_offsets: Any, forbidden_values: Any
) -> Any:
    offsets = np.zeros(len(query_ids) + 1, np.int64)
    total = 0
    for row in range(len(query_ids)):
        query = query_ids[row]
        total += forbidden_offsets[query + 1] - forbidden_offsets[query]
    values = np.empty(total, np.int64)
    count = 0
    for row in range(len(query_ids)):
        query = query_ids[row]
        for f in range(forbidden_offsets[query], forbidden_offsets[query + 1]):
            group = forbidden_values[f]
            if present[group] and group != positives[row]:
                values[count] = group
                count += 1
        offsets[row + 1] = count
    return offsets, values[:count]


def ignored_groups(
    query_ids: NDArray[np.int64],
    positive_groups: NDArray[np.int64],
    negative_groups_BK: NDArray[np.int64],
    forbidden: Ragged,
    num_groups: int,
) -> Ragged:
    """Passages of the batch that are known positives of a row (or its own text) but not its own.

    Args:
        query_ids: int64 (B,).
        positive_groups: int64 (B,).
        negative_groups_BK: int64 (B, K); -1 pads.
        forbidden: Forbidden groups of each query.
        num_groups: Size of the group space.

    Returns:
        Groups to mask, a row each, rising.
    """
    present = np.zeros(num_groups, np.bool_)
    present[positive_groups] = True
    present[negative_groups_BK[negative_groups_BK >= 0]] = True
    return Ragged(
        *_ignored(present, query_ids, positive_groups, forbidden.offsets, forbidden.values)
    )

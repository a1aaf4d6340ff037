"""forbidden(q): the groups of all positives of a query, and its own."""

import numpy as np
from numpy.typing import NDArray

from stx_mine.core.ragged import Ragged, offsets_of, ragged_sets


def positive_groups(
    pair_query_ids: NDArray[np.int64],
    pair_passage_ids: NDArray[np.int64],
    passage_groups: NDArray[np.int64],
    num_queries: int,
) -> Ragged:
    """The groups of all known positives of each query, rising."""
    return ragged_sets(pair_query_ids, passage_groups[pair_passage_ids], num_queries)


def forbidden_groups(
    pair_query_ids: NDArray[np.int64],
    pair_passage_ids: NDArray[np.int64],
    query_groups: NDArray[np.int64],
    passage_groups: NDArray[np.int64],
) -> Ragged:
    """The groups that no negative of a query may lie in: its positives' and its own, rising.

    Args:
        pair_query_ids: int64 (N,) query of each pair.
        pair_passage_ids: int64 (N,) positive of each pair.
        query_groups: int64 (num queries,).
        passage_groups: int64 (num passages,).
    """
    num_queries = len(query_groups)
    rows = np.concatenate([pair_query_ids, np.arange(num_queries)])
    values = np.concatenate([passage_groups[pair_passage_ids], query_groups])
    return ragged_sets(rows, values, num_queries)


def num_forbidden_passages(
    forbidden: Ragged, passage_groups: NDArray[np.int64], num_groups: int
) -> NDArray[np.int64]:
    """int64 (num queries,): hits that search may waste on what is forbidden to each query.

    Args:
        forbidden: (num queries,) forbidden groups.
        passage_groups: int64 (num passages,).
        num_groups: Size of the group space.
    """
    sizes = np.maximum(np.bincount(passage_groups, minlength=num_groups), 1)
    ends = offsets_of(sizes[forbidden.values])
    found: NDArray[np.int64] = np.diff(ends[forbidden.offsets])
    return found

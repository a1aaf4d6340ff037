"""How much of what is in doubt a budget pays for."""

import numpy as np
from numpy.typing import NDArray


def affordable(queries: NDArray[np.int64], num_positives: NDArray[np.int64], max_pairs: int) -> int:
    """How many candidates can be judged, the first ones, with the positives of their queries.

    Args:
        queries: int64 (N,) the query of each candidate, most important ones first.
        num_positives: int64 (num queries,) positives that are judged with the first candidate of
            each query.
        max_pairs: Candidates and positives, at most.
    """
    costs = np.ones(len(queries), np.int64)
    asked, first = np.unique(queries, return_index=True)
    costs[first] += num_positives[asked]
    return int(np.searchsorted(np.cumsum(costs), max_pairs, side="right"))


def within_calls(
    queries: NDArray[np.int64], num_beside: NDArray[np.int64], most: int, max_calls: int
) -> NDArray[np.bool_]:
    """Which candidates can be judged where a call lists passages of one query: whole queries.

    Args:
        queries: int64 (N,) the query of each candidate, most important ones first.
        num_beside: int64 (num queries,) passages that are listed beside the candidates of each.
        most: Passages of a call.
        max_calls: Calls.

    Returns:
        bool (N,).
    """
    asked, first, counts = np.unique(queries, return_index=True, return_counts=True)
    order = np.argsort(first)
    calls = -(-(counts[order] + num_beside[asked[order]]) // most)
    number = int(np.searchsorted(np.cumsum(calls), max_calls, side="right"))
    return np.isin(queries, asked[order][:number])

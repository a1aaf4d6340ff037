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

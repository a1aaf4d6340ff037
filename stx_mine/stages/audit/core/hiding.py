"""Which known positives are hidden, so that mining does not know of them.

Shape letters: N distinct positives of all queries, a (query, group) each.
"""

import numpy as np
from numpy.typing import NDArray

from stx_mine.core.ragged import offsets_of
from stx_mine.core.random import mix_rows


def choose_hidden(
    queries_N: NDArray[np.int64],
    groups_N: NDArray[np.int64],
    share: float,
    seed: int,
    max_queries: int,
) -> NDArray[np.bool_]:
    """Draw some of the positives of queries that have several; at least one stays of each.

    What is drawn depends on the seed, the query and the groups only, not on other queries.

    Args:
        queries_N: int64 (N,), rising.
        groups_N: int64 (N,), distinct within a query.
        share: Of a query's positives, in (0, 1]: rounded, but at least one and not all.
        seed: Of the draw.
        max_queries: Queries to draw of, at most.

    Returns:
        bool (N,).
    """
    queries, counts = np.unique(queries_N, return_counts=True)
    several = np.flatnonzero(counts > 1)
    order = np.argsort(mix_rows(seed, queries[several], queries[several]), kind="stable")
    drawn = np.zeros(len(queries), np.bool_)
    drawn[several[order[:max_queries]]] = True
    sizes = np.clip(np.floor(share * counts + 0.5).astype(np.int64), 1, np.maximum(counts - 1, 1))
    sizes[~drawn] = 0
    by_chance = np.lexsort([mix_rows(seed + 1, queries_N, groups_N), queries_N])
    places = np.arange(len(queries_N)) - np.repeat(offsets_of(counts)[:-1], counts)
    hidden = np.zeros(len(queries_N), np.bool_)
    hidden[by_chance[places < np.repeat(sizes, counts)]] = True
    return hidden

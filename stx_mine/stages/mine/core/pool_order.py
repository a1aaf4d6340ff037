"""The order in which hits of a unit enter its pool, for compiled callers."""

from typing import Any

import numba
import numpy as np

from stx_mine.core.random import mix


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def order_of_pool(hit_ids: Any, hit_scores: Any, eligible: Any, counter: Any, draw: Any) -> Any:
    """The order in which eligible hits enter the pool: as they are, or drawn."""
    sampling, seed, temperature = draw
    if sampling == 0:
        return np.arange(len(eligible))
    keys = np.empty(len(eligible), np.float64)
    for place in range(len(eligible)):
        hit = eligible[place]
        uniform = (float(mix(seed, counter, hit_ids[hit]) >> np.uint64(11)) + 0.5) * 2.0**-53
        # The largest keys in falling order are a weighted draw without replacement (Gumbel
        # top-k; Vieira 2014); with equal weights, an even one.
        keys[place] = np.log(-np.log(uniform))
        if sampling == 2:
            keys[place] -= hit_scores[hit] / temperature
    return np.argsort(keys, kind="mergesort")


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def known_first(order: Any, eligible: Any, known: Any) -> Any:
    """The same order, but with what is known to be a negative in front."""
    found = np.empty_like(order)
    placed = 0
    for wanted in (True, False):
        for place in order:
            if known[eligible[place]] == wanted:
                found[placed] = place
                placed += 1
    return found

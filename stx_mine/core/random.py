"""Counter-based random numbers: a value depends on its counters only, never on call order."""

from typing import Any

import numba
import numpy as np


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def mix(seed: Any, first: Any, second: Any) -> Any:
    """A uniform 64-bit number from three counters.

    Source: the output function of SplitMix64 (Steele, Lea, Flood 2014), applied to each
    counter in turn.
    """
    state = np.uint64(seed)
    for counter in (np.uint64(first), np.uint64(second)):
        state = state + np.uint64(0x9E3779B97F4A7C15) + counter * np.uint64(0xD1342543DE82EF95)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state = state ^ (state >> np.uint64(31))
    return state


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def mix_rows(seed: Any, first_N: Any, second_N: Any) -> Any:
    """uint64 (N,): what `mix` makes of each two counters."""
    found = np.empty(len(first_N), np.uint64)
    for row in range(len(first_N)):
        found[row] = mix(seed, first_N[row], second_N[row])
    return found

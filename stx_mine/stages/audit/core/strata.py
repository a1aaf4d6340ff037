"""How many negatives of each stratum are drawn, and which.

Shape letters: H strata, N negatives.
"""

import numpy as np
from numpy.typing import NDArray

# First rank of each stratum; the last one has no end.
FIRST_OF_STRATUM = np.array([0, 1, 2, 4, 8, 16, 32, 64])
# Drawn of each stratum where there are so many, so that each says something of its own.
_LEAST = 10


def stratum_of(ranks_N: NDArray[np.int32]) -> NDArray[np.int64]:
    """int64 (N,): the stratum of negatives by their 0-based rank among the candidates."""
    found: NDArray[np.int64] = np.searchsorted(FIRST_OF_STRATUM, ranks_N, "right") - 1
    return found


def sample_sizes(sizes_H: NDArray[np.int64], wanted: int) -> NDArray[np.int64]:
    """How many to draw of each stratum: as large a share of each, but at least ten of each.

    Args:
        sizes_H: int64 (H,) negatives there are.
        wanted: Negatives to draw of all together; all there are, where that is more.

    Returns:
        int64 (H,), together `wanted` or what there is.
    """
    if wanted >= sizes_H.sum():
        return sizes_H.copy()
    used = np.flatnonzero(sizes_H)
    least = min(_LEAST, wanted // len(used))
    drawn = np.minimum(sizes_H, least)
    room = sizes_H - drawn
    # What is left is spread by size; remainders go to the largest ones, shallow strata first.
    exact = (wanted - drawn.sum()) * room / max(1, room.sum())
    drawn += np.floor(exact).astype(np.int64)
    left = int(wanted - drawn.sum())
    open_H = np.where(drawn < sizes_H, exact - np.floor(exact), -1.0)
    drawn[np.argsort(-open_H, kind="stable")[:left]] += 1
    return drawn

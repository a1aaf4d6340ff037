"""Strata: which rows may meet in a batch, and in what order batches come.

Rows are sorted by a key and cut into strata of whole batches; each stratum is assigned by itself.
With difficulty as the key that is a curriculum, with topics as the key batches of like rows.
"""

import numpy as np
from numpy.typing import NDArray


def cut_strata(
    order: NDArray[np.int64], keys: NDArray[np.float64], stratum_rows: int
) -> list[NDArray[np.int64]]:
    """Cut rows into strata of rising keys.

    Args:
        order: int64 (N,) rows by priority.
        keys: float64, by row number.
        stratum_rows: Rows of every stratum but the last.

    Returns:
        Rows of each stratum, in their order of priority.
    """
    ranks = np.empty(len(order), np.int64)
    ranks[np.argsort(keys[order], kind="stable")] = np.arange(len(order))
    strata = ranks // stratum_rows
    by_stratum = order[np.argsort(strata, kind="stable")]
    return np.split(by_stratum, np.arange(stratum_rows, len(order), stratum_rows))


def blended(
    positions: NDArray[np.float64], strength: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Positions in [0, 1) mixed with chance: 1 keeps them, 0 is random.

    Args:
        positions: float64 (N,), in [0, 1).
        strength: In [0, 1].
        rng: Decides.
    """
    return strength * positions + (1 - strength) * rng.random(len(positions))

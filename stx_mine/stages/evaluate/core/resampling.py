"""Resampling of queries: intervals of means, and a paired test of differences.

Shape letters: Q queries, C columns (a metric of a model, or a difference of two), R draws.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

NUM_DRAWS = 10_000
LEVEL = 0.95
# Numbers of a block of draws.
_BLOCK = 1 << 22


def bootstrap_intervals(
    values_QC: NDArray[np.float64], seed: int, num_draws: int = NUM_DRAWS, level: float = LEVEL
) -> NDArray[np.float64]:
    """Percentile bootstrap of the mean of each column (Efron 1979).

    All columns see the same draws, so that of a column of differences the interval is that of a
    paired bootstrap. They depend on the number of queries and the seed alone.

    Args:
        values_QC: float64 (Q, C), at least one query.
        seed: Seed of the draws.
        num_draws: R.
        level: Share of the draws whose mean lies inside.

    Returns:
        float64 (2, C): lower and upper end.
    """
    means_RC = np.concatenate(
        [counts @ values_QC for counts in _drawn_counts(len(values_QC), seed, num_draws)]
    ) / len(values_QC)
    tail = (1 - level) / 2
    ends: NDArray[np.float64] = np.quantile(means_RC, [tail, 1 - tail], axis=0)
    return ends


def randomisation_p_values(
    differences_QC: NDArray[np.float64], seed: int, num_draws: int = NUM_DRAWS
) -> NDArray[np.float64]:
    """Two-sided paired randomisation test of a mean difference of 0 (Fisher 1935).

    If two models were alike, the sign of each query's difference would be a coin toss: the p-value
    is the share of tosses, the one that was seen among them, whose mean lies as far from 0.

    Args:
        differences_QC: float64 (Q, C), at least one query.
        seed: Seed of the tosses, which all columns share.
        num_draws: R; no p-value is below 1 / (R + 1).

    Returns:
        float64 (C,) in (0, 1].
    """
    # Sums that are equal but for rounding count as equal.
    observed_C = np.abs(differences_QC.sum(0)) - 1e-12 * np.abs(differences_QC).sum(0)
    as_far_C = np.zeros(differences_QC.shape[1], np.int64)
    for signs_RQ in _drawn_signs(len(differences_QC), seed, num_draws):
        as_far_C += (np.abs(signs_RQ @ differences_QC) >= observed_C).sum(0)
    return (1 + as_far_C) / (1 + num_draws)


def _drawn_counts(num: int, seed: int, num_draws: int) -> Iterator[NDArray[np.float64]]:
    """Blocks (R, Q): how often each query is in each draw of Q queries with replacement."""
    rng = np.random.default_rng(seed)
    for size in _blocks(num, num_draws):
        drawn = rng.integers(0, num, (size, num)) + np.arange(size)[:, None] * num
        counts = np.bincount(drawn.ravel(), minlength=size * num)
        yield counts.reshape(size, num).astype(np.float64)


def _drawn_signs(num: int, seed: int, num_draws: int) -> Iterator[NDArray[np.float64]]:
    """Blocks (R, Q) of -1 and 1."""
    rng = np.random.default_rng(seed)
    for size in _blocks(num, num_draws):
        yield 2.0 * rng.integers(0, 2, (size, num), np.int8) - 1


def _blocks(num: int, num_draws: int) -> Iterator[int]:
    """Draws of each block, which together are all."""
    size = max(1, _BLOCK // num)
    for start in range(0, num_draws, size):
        yield min(size, num_draws - start)

"""Shares with an interval of 95%: of a plain sample, of one by strata, of counts in clusters.

Shape letters: H strata, Q clusters.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Z = 1.959963984540054


class EstimatedRate(NamedTuple):
    """A share and its interval, all in [0, 1].

    Attributes:
        rate: The estimate.
        low: Lower end of the interval.
        high: Upper end of the interval.
    """

    rate: float
    low: float
    high: float


def wilson_interval(rate: Any, size: Any, z: Any = Z) -> tuple[Any, Any]:
    """The score interval of a binomial share (Wilson 1927).

    The ends are (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n).

    Args:
        rate: Share that was found, p, or an array of some.
        size: Size of the sample, n, above 0; an effective size need not be a whole number.
        z: Quantile of the normal distribution.

    Returns:
        Lower and upper end, as numbers or arrays.
    """
    square = z * z / size
    middle = (rate + square / 2) / (1 + square)
    half = z * np.sqrt(rate * (1 - rate) / size + square / (4 * size)) / (1 + square)
    return np.maximum(middle - half, 0.0), np.minimum(middle + half, 1.0)


def stratified_rate(
    false_H: NDArray[np.int64], sampled_H: NDArray[np.int64], sizes_H: NDArray[np.int64]
) -> EstimatedRate:
    """The share in all strata together, from a sample of each (Yan and Su 2010).

    With weights w, the shares of the strata, the ends are sums of w times those of the Wilson
    intervals of the strata, with one quantile z' for all of them: z' = z sqrt(sum w^2 v) /
    sum(w sqrt(v)), v = p (1 - p) / n + z^2 / 4n^2. Then one stratum, or several alike, have the
    Wilson interval of all samples together; z^2 / 4n^2, which is Wilson's own, keeps v above 0
    where no sample is false. A stratum without a sample may hold anything, from 0 to 1; its share
    counts as that of the others.

    Args:
        false_H: int64 (H,) what is false of each sample.
        sampled_H: int64 (H,) size of the sample of each, at least one above 0.
        sizes_H: int64 (H,) size of each stratum.
    """
    weights = sizes_H / sizes_H.sum()
    known = sampled_H > 0
    inside, sizes = weights[known], sampled_H[known]
    rates = false_H[known] / sizes
    spread = np.sqrt(rates * (1 - rates) / sizes + Z**2 / (4 * sizes**2))
    weighted = inside * spread
    z = Z * np.sqrt((weighted**2).sum()) / weighted.sum()
    lows, highs = wilson_interval(rates, sizes, z)
    rate = float((inside * rates).sum() / inside.sum())
    unknown = float(weights[~known].sum())
    low, high = float((inside * lows).sum()), float((inside * highs).sum()) + unknown
    return EstimatedRate(rate, min(low, rate), max(min(high, 1.0), rate))


def clustered_rate(false_Q: NDArray[np.int64], counts_Q: NDArray[np.int64]) -> EstimatedRate:
    """The share of a count in clusters, whose members are alike: the negatives of a query.

    Wilson's interval with the effective size n / d, where d is the variance of the ratio
    sum(false) / sum(counts) over clusters divided by p (1 - p) / n, at least 1 (Dean and Pagano
    2015). Where all or nothing is false, that variance says nothing, and n / d is the number of
    clusters.

    Args:
        false_Q: int64 (Q,) what is false in each cluster.
        counts_Q: int64 (Q,) size of each cluster; those of 0 play no part.
    """
    used = counts_Q > 0
    false, counts = false_Q[used], counts_Q[used]
    clusters, total = len(counts), int(counts.sum())
    if not total:
        return EstimatedRate(0.0, 0.0, 1.0)
    rate = float(false.sum() / total)
    size = float(clusters)
    if clusters > 1 and 0 < rate < 1:
        variance = clusters / (clusters - 1) * float(((false - rate * counts) ** 2).sum())
        size = min(total, rate * (1 - rate) * total**2 / variance) if variance else float(total)
    low, high = wilson_interval(rate, size)
    return EstimatedRate(rate, min(float(low), rate), max(float(high), rate))

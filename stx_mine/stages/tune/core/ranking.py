"""Which policy is the best, as far as queries and seeds can tell.

Shape letters: S seeds, Q queries.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# A normal variable lies so many standard deviations around its mean in 95 of 100 cases.
_WIDTH = 1.96
# Standard deviation of a seed where nothing tells: static students had .2 to .6 points
# (benchmarks/README.md), and a pooled one of few seeds may come out too small.
_SEED_DEVIATION, _LEAST_DEVIATION = 0.004, 0.002
# A policy that is so much worse at most, and cannot be told apart, is taken where it is cheaper.
TOLERANCE = 0.003


@dataclass(frozen=True)
class PolicyScores:
    """What a policy reached.

    Attributes:
        name: The policy.
        values_SQ: float64 (S, Q) metric of each query for each seed.
        seconds: What it would take from texts to model, at its full length.
    """

    name: str
    values_SQ: NDArray[np.float64]
    seconds: float

    @property
    def mean(self) -> float:
        """Over queries and seeds."""
        return float(self.values_SQ.mean())


@dataclass(frozen=True)
class Gap:
    """A difference of two policies.

    Attributes:
        mean: Mean of the one less that of the other.
        low: Lower end of its 95% interval.
        high: Upper end.
    """

    mean: float
    low: float
    high: float

    @property
    def tells(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


def seed_deviation(scored: Sequence[PolicyScores]) -> float:
    """Standard deviation of a policy's mean over queries from seed to seed, pooled."""
    several = [one.values_SQ.mean(1) for one in scored if len(one.values_SQ) > 1]
    freedom = sum(len(means) - 1 for means in several)
    if not freedom:
        return _SEED_DEVIATION
    squares = sum(float(((means - means.mean()) ** 2).sum()) for means in several)
    return max(_LEAST_DEVIATION, float(np.sqrt(squares / freedom)))


def gap(one: PolicyScores, other: PolicyScores, deviation: float) -> Gap:
    """The difference of two policies on the same queries, with what seeds and queries leave open.

    The variance of a mean over queries and that over seeds add up; queries are paired.

    Args:
        one: The one.
        other: The other.
        deviation: Of a seed.
    """
    differences_Q = one.values_SQ.mean(0) - other.values_SQ.mean(0)
    mean, num = float(differences_Q.mean()), len(differences_Q)
    of_queries = float(differences_Q.var(ddof=1)) / num if num > 1 else 0.0
    of_seeds = deviation**2 * (1 / len(one.values_SQ) + 1 / len(other.values_SQ))
    half = _WIDTH * float(np.sqrt(of_queries + of_seeds))
    return Gap(mean, mean - half, mean + half)


def ranked(scored: Sequence[PolicyScores]) -> list[PolicyScores]:
    """The best mean first."""
    return sorted(scored, key=lambda one: -one.mean)


def chosen(scored: Sequence[PolicyScores]) -> PolicyScores:
    """The policy to take: the best, or the cheapest that is hardly worse and cannot be told apart.

    Args:
        scored: Those that were run with as many seeds.
    """
    best, deviation = ranked(scored)[0], seed_deviation(scored)
    equal = [
        one
        for one in scored
        if one.mean >= best.mean - TOLERANCE and not gap(best, one, deviation).tells
    ]
    return min(equal, key=lambda one: (one.seconds, -one.mean))

"""Means of metrics with intervals, and paired differences between models.

Shape letters: Q queries.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from stx_mine.stages.evaluate.core.metrics import METRICS
from stx_mine.stages.evaluate.core.resampling import (
    LEVEL,
    NUM_DRAWS,
    bootstrap_intervals,
    randomisation_p_values,
)
from stx_mine.stages.evaluate.core.shares import InTraining, SeenShares

_Metric = dict[str, float]


@dataclass(frozen=True)
class Scored:
    """The metrics of one model, or of the first dimensions of its embeddings.

    Attributes:
        model: Its name.
        dims: How many dimensions; None for all.
        metrics: Metric -> float64 (Q,), all of the same queries.
    """

    model: str
    dims: int | None
    metrics: Mapping[str, NDArray[np.float64]]

    def values(self) -> NDArray[np.float64]:
        """float64 (Q, metrics)."""
        return np.stack([self.metrics[metric] for metric in METRICS], axis=1)


@dataclass(frozen=True)
class Score:
    """Means of one model over some queries.

    Attributes:
        model: Its name.
        dims: First dimensions of its embeddings that were compared; None for all.
        queries: `all`, or `seen` or `unseen` in training.
        num_queries: How many they are.
        metrics: Metric -> `mean`, and the ends `low` and `high` of its interval, each in [0, 1].
    """

    model: str
    dims: int | None
    queries: str
    num_queries: int
    metrics: Mapping[str, _Metric]


@dataclass(frozen=True)
class Difference:
    """What a model scores above another one on the same queries.

    Attributes:
        model: The one model.
        dims: Its dimensions; None for all.
        other: The other model, which is subtracted.
        other_dims: Its dimensions; None for all.
        queries: `all`, `seen` or `unseen`.
        num_queries: How many they are.
        metrics: Metric -> `mean`, `low` and `high` of the difference, each in [-1, 1], and `p` in
            (0, 1].
    """

    model: str
    dims: int | None
    other: str
    other_dims: int | None
    queries: str
    num_queries: int
    metrics: Mapping[str, _Metric]


@dataclass(frozen=True)
class Summary:
    """All scores and differences of one data set.

    Attributes:
        scores: Of all queries; then, where there are both, of the seen and of the unseen ones.
        differences: Of the same queries in the same order.
        seen: How much is in training; None if nobody can tell.
        seed: Seed of all resampling.
        level: Share of the draws whose mean lies inside an interval.
        num_draws: Draws of all resampling.
    """

    scores: list[Score]
    differences: list[Difference]
    seen: SeenShares | None
    seed: int
    level: float = LEVEL
    num_draws: int = NUM_DRAWS

    def means(self) -> dict[str, dict[str, float]]:
        """Model -> metric -> mean, of all queries and all dimensions."""
        return {
            score.model: {metric: score.metrics[metric]["mean"] for metric in METRICS}
            for score in self.scores
            if score.dims is None and score.queries == "all"
        }


def metric_summaries(
    scored: Sequence[Scored], in_training: InTraining | None, seed: int
) -> Summary:
    """Means with intervals, and paired differences.

    Models are compared at equal dimensions, and the first dimensions of a model with all of them.

    Args:
        scored: Every model at every number of dimensions, all dimensions first.
        in_training: What training knows; None if nobody can tell.
        seed: Seed of all resampling.
    """
    scores: list[Score] = []
    differences: list[Difference] = []
    pairs = [(one, other) for other, one in combinations(scored, 2) if _comparable(one, other)]
    seen = None if in_training is None else in_training.seen
    for name, rows in _parts(seen, len(scored[0].values())):
        means = [one.values()[rows] for one in scored]
        gaps = [one.values()[rows] - other.values()[rows] for one, other in pairs]
        # One pass of draws for all: a pair's gap and its means are of the same draws.
        ends = bootstrap_intervals(np.concatenate([*means, *gaps], axis=1), seed)
        cells = list(_cells([*means, *gaps], ends))
        for one, metrics in zip(scored, cells[: len(scored)], strict=True):
            scores.append(Score(one.model, one.dims, name, len(rows), metrics))
        for (one, other), gap, metrics in zip(pairs, gaps, cells[len(scored) :], strict=True):
            for metric, p in zip(METRICS, randomisation_p_values(gap, seed), strict=True):
                metrics[metric]["p"] = float(p)
            names = (one.model, one.dims, other.model, other.dims)
            differences.append(Difference(*names, name, len(rows), metrics))
    shares = None if in_training is None else in_training.shares
    return Summary(scores, differences, shares, seed)


def _comparable(one: Scored, other: Scored) -> bool:
    """Whether two are of equal dimensions, or the first dimensions of a model and all of them."""
    return one.dims == other.dims or (one.model == other.model and other.dims is None)


def _parts(
    seen: NDArray[np.bool_] | None, num_queries: int
) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Name and queries of all, and of those seen and unseen in training where there are both."""
    yield "all", np.arange(num_queries)
    if seen is not None and seen.any() and not seen.all():
        yield "seen", np.flatnonzero(seen)
        yield "unseen", np.flatnonzero(~seen)


def _cells(
    values: list[NDArray[np.float64]], ends: NDArray[np.float64]
) -> Iterator[dict[str, _Metric]]:
    """Of each matrix (Q, metrics): mean and interval of each metric."""
    for number, matrix in enumerate(values):
        first = number * len(METRICS)
        low, high = ends[:, first : first + len(METRICS)].tolist()
        yield {
            metric: {"mean": mean, "low": lower, "high": upper}
            for metric, mean, lower, upper in zip(
                METRICS, matrix.mean(0).tolist(), low, high, strict=True
            )
        }

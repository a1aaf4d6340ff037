"""Curves over the hits of queries: shares by score, scores by rank, what a margin leaves.

Shape letters: U units (queries, or pairs with pools of their own), H hits of all units, M margins.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stx_mine.core.ragged import Ragged

_QUANTILES = (0.1, 0.5, 0.9)


@dataclass(frozen=True)
class MarginCurve:
    """What relative margins leave.

    Attributes:
        margins: The margins, rising.
        negatives: Mean negatives of a row, at most k.
        full: Share of rows with k negatives, in [0, 1].
        empty: Share of rows without any.
    """

    margins: list[float]
    negatives: list[float]
    full: list[float]
    empty: list[float]


def margin_curve(
    margins: list[float],
    positives_U: NDArray[np.float32],
    hits: Ragged,
    scores_H: NDArray[np.float32],
    may_H: NDArray[np.bool_],
    always_H: NDArray[np.bool_],
    rows_U: NDArray[np.int64],
    *,
    k: int,
) -> MarginCurve:
    """What each relative margin leaves of hits that every other rule leaves.

    Args:
        margins: Relative margins: a hit passes where `score <= positive - |positive| * margin`.
        positives_U: float32 (U,) the score that margins count from.
        hits: (U,) of any values.
        scores_H: float32 (H,), aligned with `hits.values`.
        may_H: bool (H,) which hits only the margin may drop.
        always_H: bool (H,) which hits are negatives whatever the margin.
        rows_U: int64 (U,) rows that have the pool of a unit.
        k: Negatives of a full row.
    """
    units_H = np.repeat(np.arange(len(hits)), hits.lengths())
    num_rows = max(1, int(rows_U.sum()))
    fixed_U = np.bincount(units_H[always_H], minlength=len(hits))
    units, scores = units_H[may_H & ~always_H], scores_H[may_H & ~always_H]
    negatives, full, empty = [], [], []
    for margin in margins:
        # In float32, as the rule itself.
        limits_U = positives_U - np.abs(positives_U) * np.float32(margin)
        passed_U = fixed_U + np.bincount(units[scores <= limits_U[units]], minlength=len(hits))
        negatives.append(float((np.minimum(passed_U, k) * rows_U).sum() / num_rows))
        full.append(float(rows_U[passed_U >= k].sum() / num_rows))
        empty.append(float(rows_U[passed_U == 0].sum() / num_rows))
    return MarginCurve(list(margins), negatives, full, empty)


def score_edges(parts: list[NDArray[np.float32]], num_bins: int) -> list[float]:
    """Edges of bins of equal width that hold all finite scores; none where there are none."""
    scores = np.concatenate([one[np.isfinite(one)] for one in parts])
    if not len(scores):
        return []
    low, high = float(scores.min()), float(scores.max())
    if low == high:
        low, high = low - 0.5, high + 0.5
    return [float(edge) for edge in np.linspace(low, high, num_bins + 1)]


def shares_by_bin(scores: NDArray[np.float32], edges: list[float]) -> list[float]:
    """Share of the scores in each bin; all 0 where there are none. The last bin has its end."""
    counts, _ = np.histogram(scores.astype(np.float64), edges)
    return [float(one) for one in counts / max(1, len(scores))]


def ranks_of(hits: Ragged, candidate_H: NDArray[np.bool_]) -> NDArray[np.int64]:
    """int64 (H,): the 0-based rank of each hit among the candidates of its unit; -1 for others."""
    before_H = np.cumsum(candidate_H) - 1
    starts_U = np.concatenate([[0], np.cumsum(candidate_H)])[hits.offsets[:-1]]
    return np.where(candidate_H, before_H - np.repeat(starts_U, hits.lengths()), -1)


def scores_by_rank(
    ranks_H: NDArray[np.int64], scores_H: NDArray[np.float32], most: int
) -> tuple[list[int], list[list[float]]]:
    """The 10th, 50th and 90th percentile of the scores at up to `most` ranks.

    Returns:
        The ranks, rising, and the three curves over them.
    """
    known = ranks_H >= 0
    if not known.any():
        return [], [[], [], []]
    ranks, scores = ranks_H[known], scores_H[known]
    order = np.argsort(ranks, kind="stable")
    ends = np.cumsum(np.bincount(ranks))
    shown = np.unique(np.linspace(0, len(ends) - 1, most).astype(np.int64))
    by_rank = [
        np.quantile(scores[order[(ends[rank - 1] if rank else 0) : ends[rank]]], _QUANTILES)
        for rank in shown.tolist()
    ]
    curves = [[float(one[place]) for one in by_rank] for place in range(len(_QUANTILES))]
    return shown.tolist(), curves

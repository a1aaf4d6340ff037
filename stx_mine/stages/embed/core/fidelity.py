"""How much lower precision changes vectors, and the results of search with them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stx_mine.core.similarity import Similarity


@dataclass(frozen=True)
class Fidelity:
    """The effect of a lower precision on a sample.

    Attributes:
        mean_cosine: Mean cosine of a vector to that of float32.
        worst_cosine: The lowest.
        overlap_10: Mean fraction of a query's top 10 that float32 has too, in [0, 1].
        overlap_100: The same of its top 100.
        queries: Queries of the sample.
        passages: Passages of the sample.
    """

    mean_cosine: float
    worst_cosine: float
    overlap_10: float
    overlap_100: float
    queries: int
    passages: int


def measure_fidelity(
    exact_QD: NDArray[np.float32],
    lower_QD: NDArray[np.float32],
    exact_PD: NDArray[np.float32],
    lower_PD: NDArray[np.float32],
    similarity: Similarity,
) -> Fidelity:
    """Compare vectors of lower precision to those of float32.

    Args:
        exact_QD: float32 (Q, D) queries in float32.
        lower_QD: float32 (Q, D) the same in lower precision.
        exact_PD: float32 (P, D) passages in float32.
        lower_PD: float32 (P, D) the same in lower precision.
        similarity: How vectors are compared.

    Returns:
        Their cosines, and the overlap of the top of each query among the passages; a depth beyond
        half of the passages is measured at that half, since all of them always overlap.
    """
    cosines = np.concatenate([_cosines(exact_QD, lower_QD), _cosines(exact_PD, lower_PD)])
    exact = np.argsort(-_scores(exact_QD, exact_PD, similarity), axis=1, kind="stable")
    lower = np.argsort(-_scores(lower_QD, lower_PD, similarity), axis=1, kind="stable")
    most = max(1, len(exact_PD) // 2)
    return Fidelity(
        mean_cosine=float(cosines.mean()),
        worst_cosine=float(cosines.min()),
        overlap_10=_overlap(exact, lower, min(10, most)),
        overlap_100=_overlap(exact, lower, min(100, most)),
        queries=len(exact_QD),
        passages=len(exact_PD),
    )


def _cosines(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float64]:
    """float64 (N,); 1 where both vectors are zero."""
    a, b = one.astype(np.float64), other.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    products = np.einsum("nd,nd->n", a, b)
    same = (one == other).all(axis=1)
    return np.where(same, 1.0, products / np.where(lengths == 0, 1, lengths))


def _scores(
    queries: NDArray[np.float32], passages: NDArray[np.float32], similarity: Similarity
) -> NDArray[np.float64]:
    q, p = queries.astype(np.float64), passages.astype(np.float64)
    if Similarity(similarity).unit_length:
        p = p / np.maximum(np.linalg.norm(p, axis=1, keepdims=True), 1e-30)
    orders: NDArray[np.float64] = Similarity(similarity).order(q @ p.T, (p * p).sum(axis=1))
    return orders


def _overlap(one: NDArray[np.int64], other: NDArray[np.int64], depth: int) -> float:
    """Mean fraction of the first `depth` of each row that two orders have in common."""
    shared = [len(np.intersect1d(a[:depth], b[:depth])) for a, b in zip(one, other, strict=True)]
    return float(np.mean(shared)) / depth

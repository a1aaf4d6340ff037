"""The score of one (query, passage): float32, in a fixed order of summation.

A blocked matrix product sums in an order that depends on block sizes and hardware. Scores that
are stored or compared come from here, so that they are the same for every search.

Shape letters: Q queries, N vectors, K hits a query, D dimensions.
"""

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from stx_mine.core.similarity import Similarity
from stx_mine.search.lanes import lane_sum


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def score_one(query_D: Any, passage_D: Any, by_distance: bool) -> Any:
    """The score of one pair of contiguous float32 vectors, for compiled callers."""
    total = lane_sum(query_D, passage_D, by_distance)
    return -np.sqrt(total) if by_distance else total


def _score(queries_QD: Any, passages_ND: Any, rows_QK: Any, by_distance: bool) -> Any:
    scores_QK = np.empty(rows_QK.shape, np.float32)
    for q in numba.prange(rows_QK.shape[0]):
        for k in range(rows_QK.shape[1]):
            if rows_QK[q, k] < 0:
                scores_QK[q, k] = -np.inf
            else:
                scores_QK[q, k] = score_one(queries_QD[q], passages_ND[rows_QK[q, k]], by_distance)
    return scores_QK


_score_alone = numba.njit(cache=True, nogil=True)(_score)
_score_parallel = numba.njit(cache=True, nogil=True, parallel=True)(_score)


def score_hits(
    queries_QD: NDArray[np.float32],
    passages_ND: NDArray[np.float32],
    rows_QK: NDArray[np.int64],
    similarity: Similarity,
    *,
    alone: bool = False,
) -> NDArray[np.float32]:
    """Scores of hits; higher is closer.

    Args:
        queries_QD: float32 (Q, D), of unit length for cosine.
        passages_ND: float32 (N, D), of unit length for cosine.
        rows_QK: int64 (Q, K) row numbers in `passages_ND`; -1 pads.
        similarity: How they are compared.
        alone: Work in the calling thread alone. The other way must not run in two threads at once.

    Returns:
        float32 (Q, K); minus infinity where padded.
    """
    score = _score_alone if alone else _score_parallel
    scores: NDArray[np.float32] = score(
        np.ascontiguousarray(queries_QD),
        np.ascontiguousarray(passages_ND),
        rows_QK,
        Similarity(similarity).by_distance,
    )
    return scores


def product_scores(
    queries_QD: NDArray[np.float32], passages_ND: NDArray[np.float32], similarity: Similarity
) -> NDArray[np.float32]:
    """Scores of all queries with a few passages by a matrix product: for statistics only.

    Args:
        queries_QD: float32 (Q, D), of unit length for cosine.
        passages_ND: float32 (N, D), of unit length for cosine.
        similarity: How they are compared.

    Returns:
        float32 (Q, N), right up to rounding.
    """
    squares_Q = np.einsum("qd,qd->q", queries_QD, queries_QD)
    squares_N = np.einsum("nd,nd->n", passages_ND, passages_ND)
    values_QN = Similarity(similarity).order(queries_QD @ passages_ND.T, squares_N)
    return np.asarray(Similarity(similarity).score_of_order(values_QN, squares_Q), np.float32)

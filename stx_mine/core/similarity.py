"""How a model compares two vectors: its score, its order in a block of products, its bound.

A new way to compare is a member here and a branch in `search/lanes.py` where its sum differs. It
needs an order that a matrix product can make: Manhattan distance has none, and is refused.
"""

from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Squares of longer and shorter vectors, and sums of them, leave the range of float32.
LONGEST, _SHORTEST = 2.0**60, 2.0**-60


class Similarity(StrEnum):
    """A similarity function of sentence-transformers; a higher score is closer.

    Passages of one query are in the same order by their score and by what a block of
    products gives: q.p, or 2 q.p - |p|^2 where the score is a negative distance.
    """

    COSINE = "cosine"
    DOT = "dot"
    EUCLIDEAN = "euclidean"

    @property
    def unit_length(self) -> bool:
        """Whether vectors are scaled to unit length before they are compared."""
        return self is Similarity.COSINE

    @property
    def by_distance(self) -> bool:
        """Whether the score is a negative distance."""
        return self is Similarity.EUCLIDEAN

    def prepare(self, vectors_ND: NDArray[np.float32]) -> NDArray[np.float32]:
        """Vectors as they are compared; rows of zeros stay zero, so that they score 0."""
        return unit_rows(vectors_ND) if self.unit_length else vectors_ND

    def order(self, products: Any, squares_N: Any) -> Any:
        """What orders passages as their scores do.

        Args:
            products: q.p, (..., N), of NumPy or torch.
            squares_N: |p|^2, (N,).
        """
        return 2 * products - squares_N if self.by_distance else products

    def order_of_score(self, scores: Any, squares_Q: Any) -> Any:
        """What `order` gives for passages of these scores.

        Args:
            scores: (Q,).
            squares_Q: |q|^2, (Q,).
        """
        return squares_Q - scores**2 if self.by_distance else scores

    def score_of_order(self, orders_QN: Any, squares_Q: Any) -> Any:
        """The scores of passages by their `order`, right up to rounding.

        Args:
            orders_QN: (Q, N) as `order` gives them.
            squares_Q: |q|^2, (Q,).
        """
        if not self.by_distance:
            return orders_QN
        return -np.sqrt(np.maximum(squares_Q[:, None] - orders_QN, 0))

    def bound(
        self, sum_error: float, score_error: float, rounding_Q: Any, norms_Q: Any, longest: float
    ) -> Any:
        """How far an `order` of a product can lie from that of the score.

        Args:
            sum_error: Relative error of a sum of products.
            score_error: Relative error of the sum of a score.
            rounding_Q: float64 (Q,) what rounded vectors add to the error of q.p.
            norms_Q: float64 (Q,) |q|.
            longest: The largest |p|.

        Returns:
            float64 (Q,).
        """
        if self.by_distance:
            # 2 q.p and |p|^2 on one side, |q|^2 and the squared distance on the other.
            return 2 * rounding_Q + (2 * sum_error + score_error) * (norms_Q + longest) ** 2
        return (sum_error + score_error) * norms_Q * longest + rounding_Q


def unit_rows(vectors_ND: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale rows to unit length; rows of zeros stay zero."""
    norms = lengths(vectors_ND)
    norms[norms == 0] = 1
    return np.asarray(vectors_ND / norms[:, None], np.float32)


def lengths(vectors_ND: NDArray[Any]) -> NDArray[np.floating[Any]]:
    """float32 (N,) lengths of vectors; float64 where squares leave the range of float32."""
    vectors_ND = np.asarray(vectors_ND, np.float32)
    norms: NDArray[np.float32]
    exact: NDArray[np.float64]
    with np.errstate(over="ignore"):
        norms = np.sqrt(np.einsum("nd,nd->n", vectors_ND, vectors_ND))
    odd = np.flatnonzero((norms < _SHORTEST) | ~(norms <= LONGEST))
    if odd.size == 0:
        return norms
    exact = norms.astype(np.float64)
    exact[odd] = np.sqrt(np.square(vectors_ND[odd], dtype=np.float64).sum(axis=1))
    return exact

"""Exact search in blocks: a matrix product proposes, the fixed-order score decides.

The product of a block pair is off by at most the rounding bound of a float32 dot product. A
query whose K-th best score lies further than that above everything that was not proposed is
certainly complete; the few others (many near-ties) are scored against the whole corpus.

Shape letters: Q queries, P passages of a block, K hits a query, D dimensions.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from stx_mine.artifacts.vectors import Vectors
from stx_mine.search.score import score_hits

_SLACK = 16


@dataclass(frozen=True)
class Hits:
    """The top K of some queries, best first, ties by passage_id.

    Attributes:
        ids_QK: int64 (Q, K) passage ids; -1 pads where the corpus is smaller.
        scores_QK: float32 (Q, K); minus infinity pads.
        num_redone: Queries that needed the whole corpus scored.
    """

    ids_QK: NDArray[np.int64]
    scores_QK: NDArray[np.float32]
    num_redone: int = 0


class Searcher(Protocol):
    """Finds the closest passages of queries."""

    def search(self, queries_QD: NDArray[np.float32], num_hits: int) -> Hits:
        """The top `num_hits` of each query, best first, ties by passage_id."""
        ...


@dataclass(frozen=True)
class ExactSearcher:
    """Exact search of stored passages.

    Attributes:
        passages: The stored vectors.
        passage_block: Passages a matrix product.
        device: Where products run; None for CUDA where it is seen, else the CPU.
    """

    passages: Vectors
    passage_block: int = 16_384
    device: str | None = None

    def search(self, queries_QD: NDArray[np.float32], num_hits: int) -> Hits:
        """The exact top `num_hits` of each query.

        Args:
            queries_QD: float32 (Q, D), prepared as `Vectors.rows` gives them.
            num_hits: Hits a query, at least 1.
        """
        wanted = min(num_hits, len(self.passages))
        proposed_QK, values_QK = self._propose(queries_QD, min(wanted + _SLACK, len(self.passages)))
        scores_QK = self._rescore(queries_QD, proposed_QK)
        ids_QK, scores_QK = best_first(proposed_QK, scores_QK)
        num_redone = 0
        if proposed_QK.shape[1] < len(self.passages):
            bound_Q = self._bound(queries_QD)
            # Whatever was not proposed has a product of at most the last proposed one.
            unsure = (
                scores_QK[:, wanted - 1] <= self._score_of(values_QK[:, -1], queries_QD) + bound_Q
            )
            redo = np.flatnonzero(unsure)
            num_redone = len(redo)
            for q in redo:
                ids_QK[q], scores_QK[q] = self._whole(queries_QD[q : q + 1], ids_QK.shape[1])
        return Hits(ids_QK[:, :wanted], scores_QK[:, :wanted], num_redone)

    def _propose(
        self, queries_QD: NDArray[np.float32], num: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Ids and product values of the best `num` by blocked product, best first."""
        device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        queries = torch.from_numpy(queries_QD).to(device)
        values = torch.empty((len(queries), 0), device=device)
        ids = torch.empty((len(queries), 0), dtype=torch.int64, device=device)
        for start, block in self.passages.blocks(self.passage_block):
            passages = torch.from_numpy(block).to(device)
            product = queries @ passages.T
            if self.passages.similarity == "euclidean":
                # Same order as -|q - p|^2, less |q|^2 that all passages share.
                product.mul_(2).sub_(passages.square().sum(1))
            top = product.topk(min(num, product.shape[1]), dim=1)
            values = torch.cat([values, top.values], 1)
            ids = torch.cat([ids, top.indices + start], 1)
            if values.shape[1] > num:
                values, order = values.topk(num, dim=1)
                ids = ids.gather(1, order)
        values, order = values.sort(dim=1, descending=True)
        return ids.gather(1, order).cpu().numpy(), values.cpu().numpy()

    def _rescore(
        self, queries_QD: NDArray[np.float32], ids_QK: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        distinct, rows = np.unique(ids_QK, return_inverse=True)
        vectors = self.passages.take(distinct)
        return score_hits(queries_QD, vectors, rows.reshape(ids_QK.shape), self.passages.similarity)

    def _score_of(
        self, values_Q: NDArray[np.float32], queries_QD: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        values = values_Q.astype(np.float64)
        if self.passages.similarity != "euclidean":
            return values
        squares = np.einsum("qd,qd->q", queries_QD, queries_QD, dtype=np.float64)
        bound = self._square_bound(queries_QD)
        distances: NDArray[np.float64] = np.sqrt(np.maximum(squares - values - bound, 0))
        return -distances

    def _bound(self, queries_QD: NDArray[np.float32]) -> NDArray[np.float64]:
        """How far product and fixed-order score of one pair can lie apart, per query."""
        if self.passages.similarity == "euclidean":
            # The product's own error is inside _score_of; what is left is that of the score.
            norms: NDArray[np.float64] = np.linalg.norm(queries_QD.astype(np.float64), axis=1)
            return 1e-6 * (1 + norms)
        return self._square_bound(queries_QD)

    def _square_bound(self, queries_QD: NDArray[np.float32]) -> NDArray[np.float64]:
        # |fl(x.y) - x.y| <= gamma_D |x||y| for any order of summation (Higham 2002, section 3.1);
        # two such values are compared, and Euclidean doubles the product.
        unit = float(np.finfo(np.float32).eps) / 2
        gamma = self.passages.dim * unit / (1 - self.passages.dim * unit)
        norms: NDArray[np.float64] = np.linalg.norm(queries_QD.astype(np.float64), axis=1)
        longest = self._longest()
        if self.passages.similarity == "euclidean":
            return 4 * gamma * (norms + longest) ** 2
        return 2 * gamma * norms * longest

    def _longest(self) -> float:
        if self.passages.similarity == "cosine":
            return 1.0 + 1e-6
        return max(
            float(np.linalg.norm(block, axis=1).max())
            for _, block in self.passages.blocks(self.passage_block)
        )

    def _whole(
        self, query_1D: NDArray[np.float32], num: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The top `num` of one query by fixed-order scores of the whole corpus."""
        ids_1K = np.empty((1, 0), np.int64)
        scores_1K = np.empty((1, 0), np.float32)
        for start, block in self.passages.blocks(self.passage_block):
            rows = np.arange(len(block))[None]
            scores = score_hits(query_1D, block, rows, self.passages.similarity)
            ids_1K = np.concatenate([ids_1K, rows + start], 1)
            scores_1K = np.concatenate([scores_1K, scores], 1)
            ids_1K, scores_1K = best_first(ids_1K, scores_1K)
            ids_1K, scores_1K = ids_1K[:, :num], scores_1K[:, :num]
        return ids_1K[0], scores_1K[0]


def best_first(
    ids_QK: NDArray[np.int64], scores_QK: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Sort each row by falling score, ties by rising id."""
    by_id = np.argsort(ids_QK, axis=1, kind="stable")
    ids, scores = np.take_along_axis(ids_QK, by_id, 1), np.take_along_axis(scores_QK, by_id, 1)
    order = np.argsort(-scores, axis=1, kind="stable")
    return np.take_along_axis(ids, order, 1), np.take_along_axis(scores, order, 1)

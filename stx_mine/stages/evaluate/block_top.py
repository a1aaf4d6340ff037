"""The closest of passages that come in blocks and are not kept.

Shape letters: Q queries, P passages of a block, K hits per query, D dimensions.
"""

import numpy as np
from numpy.typing import NDArray

from stx_mine.core.similarity import Similarity
from stx_mine.search.exact import ExactSearcher
from stx_mine.search.stream import best_first
from stx_mine.store.vectors import Vectors

_QUERY_ROWS = 4_096


class BlockTop:
    """The closest passages of some queries so far: those that one search of all would find.

    Attributes:
        ids_QK: int64 (Q, K), best first, ties by id; fewer columns while there are fewer passages.
        scores_QK: float32 (Q, K).
        num_passages: Passages so far.
    """

    def __init__(
        self,
        queries_QD: NDArray[np.float32],
        num_hits: int,
        similarity: Similarity,
        device: str | None = None,
    ) -> None:
        """Begin without passages.

        Args:
            queries_QD: float32 (Q, D), as the model gives them.
            num_hits: K, at least 1.
            similarity: How vectors are compared.
            device: Where products run.
        """
        self._queries_QD = Similarity(similarity).prepare(np.ascontiguousarray(queries_QD))
        self._num_hits, self._similarity, self._device = num_hits, similarity, device
        self.ids_QK = np.empty((len(queries_QD), 0), np.int64)
        self.scores_QK = np.empty((len(queries_QD), 0), np.float32)
        self.num_passages = 0

    def offer(self, block_PD: NDArray[np.float32]) -> None:
        """Take the next passages, float32 (P, D), past all queries."""
        searcher = ExactSearcher(Vectors((block_PD,), self._similarity), device=self._device)
        parts = [
            searcher.search(self._queries_QD[start : start + _QUERY_ROWS], self._num_hits)
            for start in range(0, len(self._queries_QD), _QUERY_ROWS)
        ]
        ids_QK = np.concatenate([part.ids_QK for part in parts]) + self.num_passages
        scores_QK = np.concatenate([part.scores_QK for part in parts])
        ids_QK, scores_QK = best_first(
            np.concatenate([self.ids_QK, ids_QK], axis=1),
            np.concatenate([self.scores_QK, scores_QK], axis=1),
        )
        self.ids_QK = ids_QK[:, : self._num_hits]
        self.scores_QK = scores_QK[:, : self._num_hits]
        self.num_passages += len(block_PD)

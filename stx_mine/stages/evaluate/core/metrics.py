"""Retrieval metrics of one ranking per query, as trec_eval computes them.

Shape letters: Q queries, K ranks, J judgements.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stx_mine.core.ragged import Ragged

METRICS = ("ndcg@10", "mrr@10", "recall@100")
_CUT = 10
_DISCOUNTS = 1 / np.log2(np.arange(2, _CUT + 2))


@dataclass(frozen=True)
class Relevance:
    """What is judged of each query: every document that gains something or is relevant.

    Attributes:
        documents: (Q rows, J values) document ids, distinct within a query; -1 for a document that
            no ranking can hold, which counts in what could have been found.
        gains: float64 (J,) at least 0, of nDCG.
        is_relevant: Bool (J,), of MRR and Recall.
    """

    documents: Ragged
    gains: NDArray[np.float64]
    is_relevant: NDArray[np.bool_]

    @classmethod
    def binary(cls, relevant: Ragged) -> "Relevance":
        """Relevant documents that all gain 1."""
        num = len(relevant.values)
        return cls(relevant, np.ones(num), np.ones(num, np.bool_))

    def rows(self) -> NDArray[np.int64]:
        """int64 (J,): the query of each judgement."""
        return np.repeat(np.arange(len(self.documents)), self.documents.lengths())

    def num_relevant(self) -> NDArray[np.int64]:
        """int64 (Q,): relevant documents of each query."""
        return np.bincount(self.rows()[self.is_relevant], minlength=len(self.documents))


def retrieval_metrics(
    ranked_QK: NDArray[np.int64], judged: Relevance
) -> dict[str, NDArray[np.float64]]:
    """Per-query nDCG@10, MRR@10 and Recall@100.

    nDCG has the gain itself as gain (linear, not exponential) and 1 / log2(rank + 1), from rank 1,
    as discount. A query of which nothing is relevant scores 0.

    Source: trec_eval's `ndcg_cut.10`, `recip_rank` of the first ten, `recall.100`.

    Args:
        ranked_QK: int64 (Q, K) document ids, best first; -1 pads.
        judged: The judgements of the queries.

    Returns:
        Metric -> float64 (Q,), each in [0, 1].
    """
    places_QK = _places(ranked_QK, judged)
    found_QK = places_QK >= 0
    gains_QK = np.where(found_QK, np.append(judged.gains, 0.0)[places_QK], 0.0)
    relevant_QK = found_QK & np.append(judged.is_relevant, False)[places_QK]
    top_QK = relevant_QK[:, :_CUT]
    first = np.where(top_QK.any(1), top_QK.argmax(1) + 1, np.inf)
    return {
        "ndcg@10": _ratio(_discounted(gains_QK), _ideal(judged)),
        "mrr@10": 1 / first,
        "recall@100": _ratio(relevant_QK[:, :100].sum(1), judged.num_relevant()),
    }


def _places(ranked_QK: NDArray[np.int64], judged: Relevance) -> NDArray[np.int64]:
    """int64 (Q, K): the judgement of each ranked document; -1 for none."""
    documents, rows = judged.documents.values, judged.rows()
    width = max(int(ranked_QK.max(initial=0)), int(documents.max(initial=0))) + 1
    known = np.flatnonzero(documents >= 0)
    keys = rows[known] * width + documents[known]
    by_key = np.argsort(keys)
    wanted_QK = np.arange(len(ranked_QK))[:, None] * width + ranked_QK
    places_QK = np.searchsorted(keys[by_key], wanted_QK)
    keys, known = np.append(keys[by_key], -1), np.append(known[by_key], -1)
    return np.where((keys[places_QK] == wanted_QK) & (ranked_QK >= 0), known[places_QK], -1)


def _discounted(gains_QK: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64 (Q,): discounted gain of the first ranks."""
    top_QK = gains_QK[:, :_CUT]
    found: NDArray[np.float64] = (top_QK * _DISCOUNTS[: top_QK.shape[1]]).sum(1)
    return found


def _ideal(judged: Relevance) -> NDArray[np.float64]:
    """float64 (Q,): discounted gain of the best ranking of all that is judged."""
    rows = judged.rows()
    order = np.lexsort((-judged.gains, rows))
    ranks = np.arange(len(rows)) - judged.documents.offsets[rows]
    best = ranks < _CUT
    gains = judged.gains[order[best]] * _DISCOUNTS[ranks[best]]
    return np.bincount(rows[best], gains, len(judged.documents)).astype(np.float64)


def _ratio(
    part: NDArray[np.integer | np.float64], whole: NDArray[np.integer | np.float64]
) -> NDArray[np.float64]:
    """float64 (Q,): 0 where the whole is 0."""
    found: NDArray[np.float64] = np.divide(part, whole, out=np.zeros(len(whole)), where=whole > 0)
    return found

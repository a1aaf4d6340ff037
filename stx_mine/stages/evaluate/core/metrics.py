"""Retrieval metrics of one ranking per query, with binary relevance.

Shape letters: Q queries, K ranks.
"""

import numpy as np
from numpy.typing import NDArray

from stx_mine.core.ragged import Ragged

METRICS = ("ndcg@10", "mrr@10", "recall@100")


def retrieval_metrics(
    ranked_QK: NDArray[np.int64], relevant: Ragged
) -> dict[str, NDArray[np.float64]]:
    """Per-query nDCG@10, MRR@10 and Recall@100.

    Args:
        ranked_QK: int64 (Q, K) passage ids, best first; -1 pads.
        relevant: Relevant passage ids of each query; at least one each.

    Returns:
        Metric -> float64 (Q,), each in [0, 1].
    """
    rows = np.repeat(np.arange(len(relevant)), relevant.lengths())
    width = max(int(ranked_QK.max(initial=0)), int(relevant.values.max(initial=0))) + 1
    keys = np.unique(rows * width + relevant.values)
    wanted = np.arange(len(ranked_QK))[:, None] * width + ranked_QK
    gains_QK = np.isin(wanted, keys) & (ranked_QK >= 0)
    num_relevant = relevant.lengths()
    discounts = 1 / np.log2(np.arange(2, 12))
    top = gains_QK[:, :10]
    ideal = np.concatenate([[0.0], np.cumsum(discounts)])[np.minimum(num_relevant, 10)]
    first = np.where(top.any(1), top.argmax(1) + 1, np.inf)
    return {
        "ndcg@10": (top * discounts[: top.shape[1]]).sum(1) / ideal,
        "mrr@10": 1 / first,
        "recall@100": gains_QK[:, :100].sum(1) / num_relevant,
    }

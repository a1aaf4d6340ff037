"""From the closest texts of each query to its ranking of documents.

Shape letters: Q queries, K closest texts.
"""

import numpy as np
from numpy.typing import NDArray

from stx_mine.core.ragged import Ragged, offsets_of


def ranked_documents(
    ids_QK: NDArray[np.int64],
    scores_QK: NDArray[np.float32],
    documents: Ragged,
    left_out: Ragged,
    depth: int,
) -> NDArray[np.int64]:
    """Rank the documents of the closest texts; ties by rising document id.

    Args:
        ids_QK: int64 (Q, K) the closest texts of each query.
        scores_QK: float32 (Q, K) their scores; higher is closer.
        documents: Of each text the documents that it stands in, rising.
        left_out: Of each query the documents that are not ranked.
        depth: Ranks of the result.

    Returns:
        int64 (Q, depth), best first; -1 pads.
    """
    num_queries, num_texts = ids_QK.shape
    most = depth + int(left_out.lengths().max(initial=0))
    found, _ = documents.take(ids_QK.ravel(), most)
    lengths = found.lengths()
    rows = np.repeat(np.repeat(np.arange(num_queries), num_texts), lengths)
    scores = np.repeat(scores_QK.ravel(), lengths)
    width = 1 + max(int(found.values.max(initial=0)), int(left_out.values.max(initial=0)))
    away = np.repeat(np.arange(num_queries), left_out.lengths()) * width + left_out.values
    kept = np.flatnonzero(~np.isin(rows * width + found.values, away))
    order = kept[np.lexsort((found.values[kept], -scores[kept], rows[kept]))]
    rows = rows[order]
    ranks = np.arange(len(rows)) - offsets_of(np.bincount(rows, minlength=num_queries))[rows]
    ranked_QK = np.full((num_queries, depth), -1, np.int64)
    first = ranks < depth
    ranked_QK[rows[first], ranks[first]] = found.values[order[first]]
    return ranked_QK

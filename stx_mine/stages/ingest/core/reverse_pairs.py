"""The reverse of pairs that hold both ways, among the texts that there are.

Shape letters: N pairs, Q queries, K reverse positives.
"""

import numpy as np
from numpy.typing import NDArray


def reverse_of(
    pairs_N2: NDArray[np.int64],
    holds_both_ways_N: NDArray[np.bool_],
    query_texts_Q: NDArray[np.int64],
    num_passages: int,
) -> NDArray[np.int64]:
    """The (query, passage) whose texts are the passage and the query of a pair.

    Args:
        pairs_N2: int64 (N, 2) query_id, passage_id.
        holds_both_ways_N: bool (N,): whether the reverse of a pair holds too.
        query_texts_Q: int64 (Q,) the passage of equal text, or an id after all passages.
        num_passages: How many passages there are.

    Returns:
        int64 (K, 2), rising, each once: those that are no pairs themselves. A text that is in one
        role only gives none.
    """
    query_of = np.full(num_passages, -1)
    in_corpus = np.flatnonzero(query_texts_Q < num_passages)
    query_of[query_texts_Q[in_corpus]] = in_corpus
    queries, passages = pairs_N2[holds_both_ways_N].T
    reverse = np.stack([query_of[passages], query_texts_Q[queries]], axis=1)
    reverse = np.unique(reverse[(reverse[:, 0] >= 0) & (reverse[:, 1] < num_passages)], axis=0)
    own = reverse[:, 0] * num_passages + reverse[:, 1]
    known = pairs_N2[:, 0] * num_passages + pairs_N2[:, 1]
    return reverse[~np.isin(own, known)]

"""Why pairs are dropped: without text, of a text with itself, repeated.

Shape letters: N pairs, Q queries, P passages.
"""

import numpy as np
from numpy.typing import NDArray

# A pair is kept with code 0, and dropped for the reason at its code - 1.
DROP_REASONS = (
    "empty_query",
    "empty_passage",
    "query_is_its_passage",
    "repeated_pair",
    "in_an_earlier_source",
)


def drop_reasons(
    pairs_N2: NDArray[np.int64],
    sources_N: NDArray[np.integer],
    query_groups_Q: NDArray[np.int64],
    passage_groups_P: NDArray[np.int64] | None = None,
) -> NDArray[np.int8]:
    """Decide which pairs are kept; of equal pairs the first is.

    Args:
        pairs_N2: int64 (N, 2) query_id, passage_id; -1 for an empty text.
        sources_N: Whole numbers (N,), rising: the source of each pair.
        query_groups_Q: int64 (Q,) group of each query.
        passage_groups_P: int64 (P,) group of each passage; None where each is its own.

    Returns:
        int8 (N,): 0 for a kept pair, else 1 + the place of its reason in `DROP_REASONS`.
    """
    reasons = np.zeros(len(pairs_N2), np.int8)
    reasons[pairs_N2[:, 1] < 0] = 2
    reasons[pairs_N2[:, 0] < 0] = 1
    whole = np.flatnonzero(reasons == 0)
    queries, passages = pairs_N2[whole].T
    groups = passages if passage_groups_P is None else passage_groups_P[passages]
    is_itself = query_groups_Q[queries] == groups
    reasons[whole[is_itself]] = 3
    whole = whole[~is_itself]
    _, first, place = np.unique(pairs_N2[whole], axis=0, return_index=True, return_inverse=True)
    first_rows = first[place.reshape(-1)]
    is_elsewhere = sources_N[whole[first_rows]] < sources_N[whole]
    repeated = np.where(is_elsewhere, 5, 4)
    is_first = first_rows == np.arange(len(whole))
    reasons[whole] = np.where(is_first, 0, repeated)
    return reasons


def num_by_reason(reasons: NDArray[np.int8]) -> dict[str, int]:
    """Pairs dropped for each of `DROP_REASONS`, those without any too.

    Args:
        reasons: int8 (N,) of `drop_reasons`.
    """
    counts = np.bincount(reasons, minlength=len(DROP_REASONS) + 1).tolist()
    return dict(zip(DROP_REASONS, counts[1:], strict=True))

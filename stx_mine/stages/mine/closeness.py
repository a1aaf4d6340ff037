"""Closeness to the positive: which hits are probably answers that nobody labelled.

Shape letters: U units, P pairs of all units, H hits of all units, N distinct candidates,
D dimensions.
"""

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from stx_mine.core.ragged import Ragged
from stx_mine.search.score import score_one


def close_to_positive(
    queries_UD: NDArray[np.float32],
    positives_PD: NDArray[np.float32],
    pairs: Ragged,
    candidates_ND: NDArray[np.float32],
    hits: Ragged,
    factor: float,
) -> NDArray[np.bool_]:
    """Hits c with cos(q, c) + cos(p, c) > factor * (1 + cos(q, p)) for a positive p of the unit.

    In words: c lies at least `factor` as far along the middle of q and p as they themselves do.
    With vectors centred by role one factor fits sets as different as intents, shell commands and
    Chinese paragraphs; without, none does (`benchmarks/false_negatives.py`).

    Args:
        queries_UD: float32 (U, D) query of each unit, centred, of unit length.
        positives_PD: float32 (P, D) positives of all units, centred, of unit length.
        pairs: (U,) rows of each unit in `positives_PD`, as consecutive ranges.
        candidates_ND: float32 (N, D) distinct candidates, centred, of unit length.
        hits: (U,) rows in `candidates_ND` of each unit's hits.
        factor: Lower drops more; 0.7 is measured.

    Returns:
        bool (H,).
    """
    found: NDArray[np.bool_] = _close_to_positive(
        queries_UD, positives_PD, pairs.offsets, candidates_ND, hits.offsets, hits.values, factor
    )
    return found


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _close_to_positive(
    queries_UD: Any,
    positives_PD: Any,
    pair_offsets: Any,
    candidates_ND: Any,
    hit_offsets: Any,
    hit_rows: Any,
    factor: Any,
) -> Any:
    close_H = np.zeros(len(hit_rows), np.bool_)
    for unit in range(len(queries_UD)):
        for pair in range(pair_offsets[unit], pair_offsets[unit + 1]):
            positive_D = positives_PD[pair]
            limit = factor * (1 + score_one(queries_UD[unit], positive_D, False))
            for hit in range(hit_offsets[unit], hit_offsets[unit + 1]):
                candidate_D = candidates_ND[hit_rows[hit]]
                along = score_one(queries_UD[unit], candidate_D, False)
                along += score_one(positive_D, candidate_D, False)
                close_H[hit] |= along > limit
    return close_H

"""Which share of the trained weights is taken: the smallest that is as good as the best."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stx_mine.stages.evaluate.core.resampling import bootstrap_intervals


def pooled_queries(sets: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """The queries of several sets as one column, whose mean is the mean of the means of the sets.

    Args:
        sets: float64 (queries,) of each.

    Returns:
        float64 (queries of all,).
    """
    total = sum(map(len, sets))
    return np.concatenate([one * (total / (len(sets) * len(one))) for one in sets])


def smallest_as_good(values_QC: NDArray[np.float64], seed: int) -> int:
    """The first column from which on none can be told from the best, up to the best itself.

    Args:
        values_QC: float64 (queries, candidates), the smallest candidate first; more is better.
        seed: Of the paired bootstrap (95%); of equal means the first is the best.

    Returns:
        Number of the candidate.
    """
    best = int(np.argmax(values_QC.mean(0)))
    low, _ = bootstrap_intervals(values_QC[:, [best]] - values_QC[:, : best + 1], seed)
    better = np.flatnonzero(low > 0)
    return int(better[-1]) + 1 if len(better) else 0

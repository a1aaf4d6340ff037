"""Which of texts that are alike go: those that are like an earlier one that stays."""

import numpy as np
from numpy.typing import NDArray


def later_of_near(
    left_E: NDArray[np.int64], right_E: NDArray[np.int64], num_texts: int
) -> NDArray[np.bool_]:
    """Texts that are like an earlier one that stays; one that is only like these stays.

    Args:
        left_E: int64 (E,) the earlier text of each pair that is alike.
        right_E: int64 (E,) the later one.
        num_texts: Texts.

    Returns:
        bool (num_texts,).
    """
    goes = np.zeros(num_texts, bool)
    for edge in np.lexsort((left_E, right_E)).tolist():
        # All pairs whose later text is smaller are decided.
        if not goes[left_E[edge]]:
            goes[right_E[edge]] = True
    return goes

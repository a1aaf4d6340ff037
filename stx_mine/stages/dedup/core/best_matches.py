"""Of several matches of a text with the texts of a set, the one that says most."""

import numpy as np
from numpy.typing import NDArray


def best_matches(
    texts: NDArray[np.int64],
    sets: NDArray[np.int64],
    kinds: NDArray[np.int8],
    scores: NDArray[np.float32],
    others: NDArray[np.int64],
) -> NDArray[np.int64]:
    """One match for each text and set: the first kind, then the highest score, then the first text.

    Args:
        texts: int64 (N,) the text of each match.
        sets: int64 (N,) the set that it is found in.
        kinds: int8 (N,) kind of likeness; a lower one says more.
        scores: float32 (N,).
        others: int64 (N,) the text of the set.

    Returns:
        int64: numbers of the matches, by rising text and set.
    """
    order = np.lexsort((others, -scores, kinds, sets, texts))
    is_first = np.ones(len(order), bool)
    same = (texts[order][1:] == texts[order][:-1]) & (sets[order][1:] == sets[order][:-1])
    is_first[1:] = ~same
    return order[is_first]

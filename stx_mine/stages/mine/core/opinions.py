"""What judges think of a candidate: is it worse than the positive, or no negative at all?

Shape letters: H hits, J judges.
"""

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class Opinion(IntEnum):
    """What is thought of a candidate, beside its positive."""

    NONE = 0
    WORSE = 1
    CLOSE = 2
    BETTER = 3


def opinions_of(
    scores_H: NDArray[np.float32],
    positives_H: NDArray[np.float32],
    margin: float,
    floor: float = -np.inf,
) -> NDArray[np.uint8]:
    """The opinion of one judge about each hit.

    Args:
        scores_H: Its score of each hit; NaN for none.
        positives_H: Its score of the positive that each is compared with; NaN for none.
        margin: A hit is close that scores below the positive by at most this share of its score.
        floor: What half of the random passages score no higher than: a hit that does neither is
            worse, whatever the positive scores.
    """
    found = np.full(len(scores_H), Opinion.WORSE, np.uint8)
    # In float32 as the scores are, whatever the margin is.
    found[scores_H >= positives_H * np.float32(1 - margin)] = Opinion.CLOSE
    found[scores_H >= positives_H] = Opinion.BETTER
    found[scores_H <= floor] = Opinion.WORSE
    found[np.isnan(scores_H) | np.isnan(positives_H)] = Opinion.NONE
    return found


def agreed(opinions_JH: NDArray[np.uint8], votes: int) -> NDArray[np.uint8]:
    """What so many judges agree on: that a hit is better, else that it is close, else worse.

    Args:
        opinions_JH: The opinion of each judge.
        votes: Judges that have to agree, at least; one that is better is close, too.

    Returns:
        uint8 (H,); `Opinion.NONE` where too few agree.
    """
    found = np.full(opinions_JH.shape[1], Opinion.NONE, np.uint8)
    found[(opinions_JH == Opinion.WORSE).sum(0) >= votes] = Opinion.WORSE
    found[(opinions_JH >= Opinion.CLOSE).sum(0) >= votes] = Opinion.CLOSE
    found[(opinions_JH == Opinion.BETTER).sum(0) >= votes] = Opinion.BETTER
    return found


def last_opinions(opinions_JH: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The opinion of the last judge that has one: each decides what the one before left open.

    Args:
        opinions_JH: The opinion of each judge, in their order.

    Returns:
        uint8 (H,); `Opinion.NONE` where none has one.
    """
    found = np.full(opinions_JH.shape[1], Opinion.NONE, np.uint8)
    for opinions in opinions_JH:
        found = np.where(opinions == Opinion.NONE, found, opinions)
    return found

"""Why a hit is a negative or not."""

from enum import IntEnum


class Verdict(IntEnum):
    """Why a hit is a negative or is not, in the order in which the rules apply."""

    POOLED = 0
    OWN_TEXT = 1
    KNOWN_POSITIVE = 2
    DUPLICATE_GROUP = 3
    LANGUAGE = 4
    RANK_WINDOW = 5
    SCORE_WINDOW = 6
    ABSOLUTE_MARGIN = 7
    RELATIVE_MARGIN = 8
    UPPER_MARGIN = 9
    CLOSE_TO_POSITIVE = 10
    MAX_USES = 11
    BEYOND_POOL = 12

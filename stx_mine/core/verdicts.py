"""Why a hit is a negative or not: the one table of rules.

A new rule is a verdict and its entry here, one line of the kernel in `stages/mine/core/select.py`,
and its option in `stages/mine/config.py`.
"""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Verdict(IntEnum):
    """Why a hit is a negative or is not; `RULES` has the order in which the rules apply."""

    POOLED = 0
    OWN_TEXT = 1
    KNOWN_POSITIVE = 2
    DUPLICATE_GROUP = 3
    DROPPED_PASSAGE = 4
    JUDGED_POSITIVE = 5
    JUDGED_CLOSE = 6
    LANGUAGE = 7
    RANK_WINDOW = 8
    SCORE_WINDOW = 9
    ABSOLUTE_MARGIN = 10
    RELATIVE_MARGIN = 11
    UPPER_MARGIN = 12
    CLOSE_TO_POSITIVE = 13
    MAX_USES = 14
    BEYOND_POOL = 15
    UNLABELLED = 16


@dataclass(frozen=True)
class Rule:
    """What a person needs to know of a verdict.

    Attributes:
        meaning: Why a hit has it, as the rest of a sentence about the hit.
        off: The options of `mine` that set it, each with the value that turns it off; empty where
            it cannot be turned off.
        candidate: Whether the hit counts in ranks: it is no text that is excluded beforehand.
        eligible: Whether the hit passed every rule about its text and score.
    """

    meaning: str
    off: dict[str, Any] = field(default_factory=dict)
    candidate: bool = True
    eligible: bool = False


RULES: dict[Verdict, Rule] = {
    Verdict.POOLED: Rule("is kept in the pool", eligible=True),
    Verdict.OWN_TEXT: Rule("is the query itself", candidate=False),
    Verdict.KNOWN_POSITIVE: Rule("is a positive of the query", candidate=False),
    Verdict.DUPLICATE_GROUP: Rule("counts as the same text as a better hit", candidate=False),
    Verdict.DROPPED_PASSAGE: Rule(
        "is left out of the corpus as a duplicate (dedup --drop)", candidate=False
    ),
    Verdict.UNLABELLED: Rule(
        "is a positive of no row", {"negatives_from": "corpus"}, candidate=False
    ),
    Verdict.JUDGED_POSITIVE: Rule("is judged as relevant as the positive", {"judges": ()}),
    Verdict.JUDGED_CLOSE: Rule("is judged nearly as relevant as the positive", {"judges": ()}),
    Verdict.LANGUAGE: Rule("is not in the language asked for", {"negative_language": "any"}),
    Verdict.RANK_WINDOW: Rule("ranks outside of the window", {"range_min": 0, "range_max": None}),
    Verdict.SCORE_WINDOW: Rule(
        "scores outside of the window", {"min_score": None, "max_score": None}
    ),
    Verdict.ABSOLUTE_MARGIN: Rule(
        "scores above the positive less the absolute margin", {"absolute_margin": None}
    ),
    Verdict.RELATIVE_MARGIN: Rule(
        "scores above the positive less the relative margin", {"relative_margin": None}
    ),
    Verdict.UPPER_MARGIN: Rule("scores too far below the positive", {"upper_margin": None}),
    Verdict.CLOSE_TO_POSITIVE: Rule("is too close to the positive", {"closeness": None}),
    Verdict.MAX_USES: Rule("is a better negative of other queries", {"max_uses": None}),
    Verdict.BEYOND_POOL: Rule("would be kept in a larger pool", eligible=True),
}
NO_CANDIDATES = tuple(verdict for verdict, rule in RULES.items() if not rule.candidate)
ELIGIBLE = tuple(verdict for verdict, rule in RULES.items() if rule.eligible)


def candidate_ranks(verdicts_H: NDArray[np.uint8]) -> NDArray[np.int64]:
    """int64 (H,): the 0-based rank of one row's hits among its candidates; -1 where it is none."""
    candidates = ~np.isin(verdicts_H, NO_CANDIDATES)
    return np.where(candidates, np.cumsum(candidates) - 1, -1)

"""Which of many settings to recommend, and which of them are worth a look.

Shape letters: S settings.
"""

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

# Shares that differ by no more count as equal.
_ALIKE = 0.002
# What hardness may be given up for fewer false negatives: this part of the way from the hardest
# score down to that of random passages.
GIVEN_UP = 0.05


class ChoiceReason(Enum):
    """Why settings are recommended."""

    HARD = "hard"
    FEWEST_FALSE = "fewest false"
    MOST_CAUTIOUS = "most cautious"


@dataclass(frozen=True)
class RuleTrials:
    """What settings gave on a sample.

    Attributes:
        full_S: float64 (S,) share of the rows that are full.
        score_S: float64 (S,) mean score of the negatives: how hard they are.
        rate_S: float64 (S,) estimated share of false negatives; NaN where nobody can tell.
        high_S: float64 (S,) upper end of its interval; NaN likewise.
        options_S: int64 (S,) how many options differ from no rule at all.
        is_windowed_S: bool (S,) whether ranks are limited.
        random_score: Mean score of random passages: what is no harder than these is not hard.
    """

    full_S: NDArray[np.float64]
    score_S: NDArray[np.float64]
    rate_S: NDArray[np.float64]
    high_S: NDArray[np.float64]
    options_S: NDArray[np.int64]
    is_windowed_S: NDArray[np.bool_]
    random_score: float


@dataclass(frozen=True)
class Choice:
    """A recommendation.

    Attributes:
        number: Of the settings.
        reason: Why these.
        fills: Whether they fill as many rows as was asked for.
    """

    number: int
    reason: ChoiceReason
    fills: bool


def recommend(trials: RuleTrials, min_full: float, max_false: float) -> Choice:
    """Settings that fill enough rows, are hard, and have few false negatives.

    Of those that fill enough rows and are shown to have few enough false negatives, by the upper
    end of the interval, the hardest set the mark; of all that are nearly as hard (`GIVEN_UP`),
    those with the fewest false ones are chosen, or the simplest that lie in their interval.

    Where none fill enough, those that fill most take their place. Where none are shown to have few
    enough, those with the lowest upper end are chosen. Where nobody can tell false negatives,
    hardness is no merit: of the settings without a window of ranks the most cautious are chosen,
    with the lowest mean score. Equally good ones: the fewest options, then the hardest.

    Args:
        trials: At least one.
        min_full: Share of the rows to fill.
        max_false: Largest share of false negatives.
    """
    enough = trials.full_S >= min_full
    fills = bool(enough.any())
    if not fills:
        enough = trials.full_S >= trials.full_S.max() - _ALIKE
    known = enough & np.isfinite(trials.high_S)
    if not known.any():
        plain = enough & ~trials.is_windowed_S
        among = plain if plain.any() else enough
        return Choice(_least(trials, among, trials.score_S), ChoiceReason.MOST_CAUTIOUS, fills)
    allowed = known & (trials.high_S <= max_false)
    if not allowed.any():
        return Choice(_least(trials, known, trials.high_S), ChoiceReason.FEWEST_FALSE, fills)
    hardest = trials.score_S[allowed].max()
    mark = hardest - GIVEN_UP * max(hardest - trials.random_score, 0.0)
    hard = np.flatnonzero(allowed & (trials.score_S >= mark))
    fewest = hard[trials.rate_S[hard].argmin()]
    # What lies inside its interval cannot be told apart from it.
    limit = max(trials.high_S[fewest], trials.rate_S[fewest] + _ALIKE)
    return Choice(_simplest(trials, hard[trials.rate_S[hard] <= limit]), ChoiceReason.HARD, fills)


def _least(trials: RuleTrials, among: NDArray[np.bool_], values_S: NDArray[np.float64]) -> int:
    """That with the least value, or the simplest of those that are alike."""
    rows = np.flatnonzero(among)
    return _simplest(trials, rows[values_S[rows] <= values_S[rows].min() + _ALIKE])


def _simplest(trials: RuleTrials, rows: NDArray[np.int64]) -> int:
    """Of some settings those with the fewest options; of these the hardest."""
    order = np.lexsort([-trials.score_S[rows], trials.options_S[rows]])
    return int(rows[order[0]])


def unbeaten(trials: RuleTrials) -> NDArray[np.bool_]:
    """Bool (S,): settings that no others beat: at least as good in all, and better in something.

    What counts is full rows, hardness and false negatives, as far as these are known.
    """
    rates = np.where(np.isfinite(trials.rate_S), trials.rate_S, np.inf)
    merits = np.stack([trials.full_S, trials.score_S, -rates])
    no_worse = (merits[:, :, None] >= merits[:, None, :]).all(0)
    better = (merits[:, :, None] > merits[:, None, :]).any(0)
    places = np.empty(len(rates), np.int64)
    places[np.lexsort([np.arange(len(rates)), trials.options_S])] = np.arange(len(rates))
    sooner = places[:, None] < places[None, :]
    found: NDArray[np.bool_] = ~np.asarray((no_worse & (better | sooner)).any(0))
    return found

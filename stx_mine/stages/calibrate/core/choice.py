"""Which of many settings to recommend, and which of them are worth a look.

Shape letters: S settings.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

# Settings that are worth this share of the best are as good as it: the simplest is taken.
AS_GOOD = 0.98
# Scores that differ by no more are alike.
_ALIKE = 0.002


@dataclass(frozen=True)
class RuleTrials:
    """What settings gave on a sample.

    Attributes:
        full_S: float64 (S,) share of the rows that are full.
        score_S: float64 (S,) mean score of the negatives: how hard they are.
        rate_S: float64 (S,) share of false negatives among those of which it is known; NaN where
            nobody can tell.
        options_S: int64 (S,) how many options differ from no rule at all, which is one of them.
        is_windowed_S: bool (S,) whether ranks are limited.
        random_score: Mean score of random passages: what is no harder than these is not hard.
    """

    full_S: NDArray[np.float64]
    score_S: NDArray[np.float64]
    rate_S: NDArray[np.float64]
    options_S: NDArray[np.int64]
    is_windowed_S: NDArray[np.bool_]
    random_score: float

    @cached_property
    def no_rule(self) -> int:
        """The settings without any rule."""
        return int(self.options_S.argmin())

    @cached_property
    def hardness(self) -> NDArray[np.float64]:
        """float64 (S,): how far above random passages, as a share of what no rule gives."""
        span = self.score_S[self.no_rule] - self.random_score
        if span <= 0:
            return np.ones(len(self.score_S))
        above: NDArray[np.float64] = (self.score_S - self.random_score) / span
        return np.maximum(above, 0.0)

    @cached_property
    def false_part(self) -> NDArray[np.float64]:
        """float64 (S,): the share of false negatives, as a part of that of no rule; NaN likewise.

        Nothing can be avoided where no rule gives none.
        """
        base = self.rate_S[self.no_rule]
        return self.rate_S / base if base > 0 else np.where(np.isfinite(self.rate_S), 0.0, np.nan)


@dataclass(frozen=True)
class Choice:
    """A recommendation.

    Attributes:
        number: Of the settings.
        is_told: Whether false negatives were told, and so decided.
        fills: Whether they fill as many rows as was asked for.
    """

    number: int
    is_told: bool
    fills: bool


def recommend(trials: RuleTrials, min_full: float) -> Choice:
    """The settings that fill enough rows, stay hard and avoid false negatives.

    They are worth the share of the hardness of no rule that they keep, times the share of its false
    negatives that they avoid. Only shares of what no rule gives are compared: how many answers
    nobody has labelled is not known, but which part of them a rule keeps out is. Of settings that
    are nearly worth the best (`AS_GOOD`) the one with the fewest options is taken.

    Where none fill enough, those that fill most take their place. Where nobody can tell false
    negatives, hardness is no merit: of the settings without a window of ranks the most cautious are
    taken, with the lowest mean score.

    Args:
        trials: At least one.
        min_full: Share of the rows to fill.
    """
    enough = trials.full_S >= min_full
    fills = bool(enough.any())
    if not fills:
        enough = trials.full_S >= trials.full_S.max()
    told = enough & np.isfinite(trials.false_part)
    if told.any():
        rows = np.flatnonzero(told)
        worth = trials.hardness[rows] * (1 - trials.false_part[rows])
        best = worth.max()
        good = worth >= best - (1 - AS_GOOD) * abs(best)
        return Choice(_simplest(trials, rows[good], worth[good]), True, fills)
    plain = enough & ~trials.is_windowed_S
    rows = np.flatnonzero(plain if plain.any() else enough)
    good = trials.score_S[rows] <= trials.score_S[rows].min() + _ALIKE
    return Choice(_simplest(trials, rows[good], -trials.score_S[rows[good]]), False, fills)


def _simplest(trials: RuleTrials, rows: NDArray[np.int64], merits: NDArray[np.float64]) -> int:
    """Of some settings those with the fewest options; of these the one with most merit."""
    order = np.lexsort([-merits, trials.options_S[rows]])
    return int(rows[order[0]])


def unbeaten(trials: RuleTrials) -> NDArray[np.bool_]:
    """Bool (S,): settings that no others beat: at least as good in all, and better in something.

    What counts is full rows, hardness and false negatives, as far as these are known; of settings
    that are equal in all of it, the first with the fewest options is kept.
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

"""The results of a tuning: what was tried, what the best reached, which one is taken."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from stx_mine.stages.tune.core.ranking import PolicyScores, chosen, gap, ranked, seed_deviation
from stx_mine.stages.tune.trials import PolicyTrial
from stx_mine.store.artifact import Manifest
from stx_mine.store.files import read_json

RESULTS, TUNED_PIPELINE = "results.json", "tuned.yaml"


@dataclass(frozen=True)
class Finalist:
    """A policy that was run with several seeds.

    Attributes:
        name: Its changes, in words.
        changes: Stage -> field -> value.
        mean: Mean of the metric over queries and seeds.
        by_seed: Mean over the queries for each seed.
        gap: Mean difference to the policy that is taken; 0 for that one.
        low: Lower end of its 95% interval over queries and seeds.
        high: Upper end.
        k: Negatives of a row.
        batch_size: Rows of a step.
        steps: Optimizer steps.
        seconds: From texts to model, on the machine that tuned.
    """

    name: str
    changes: dict[str, dict[str, Any]]
    mean: float
    by_seed: list[float]
    gap: float
    low: float
    high: float
    k: int
    batch_size: int
    steps: int
    seconds: float

    @property
    def tells(self) -> bool:
        """Whether it can be told from the one that is taken."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class TuningResults:
    """What `results.json` holds.

    Attributes:
        metric: What was measured.
        queries: Queries of all evaluation sets.
        sets: Their names.
        untrained: Mean of the metric before training.
        finalists: The best mean first.
        taken: Name of the policy that is taken.
        trials: All that was run, in order.
        skipped: What the budget had no room for.
        notes: What was held out, and what of the file played no part.
    """

    metric: str
    queries: int
    sets: list[str]
    untrained: float
    finalists: list[Finalist]
    taken: str
    trials: list[PolicyTrial]
    skipped: list[str]
    notes: list[str]

    @property
    def winner(self) -> Finalist:
        """The policy that is taken."""
        return next(one for one in self.finalists if one.name == self.taken)

    def to_json(self) -> dict[str, Any]:
        """As the file holds it."""
        return asdict(self)

    @classmethod
    def read(cls, tuning: Manifest) -> Self:
        """Of a finished tuning.

        Args:
            tuning: Its manifest.

        Raises:
            DamagedError: Its file is damaged.
        """
        content = tuning.read(RESULTS, read_json)
        finalists = [Finalist(**one) for one in content["finalists"]]
        trials = [PolicyTrial.of_json(one) for one in content["trials"]]
        return cls(**{**content, "finalists": finalists, "trials": trials})


def finalists_of(
    scored: Sequence[PolicyScores], trials: Sequence[PolicyTrial]
) -> tuple[list[Finalist], str]:
    """The finalists, the best mean first, and the name of the one to take.

    Args:
        scored: What they reached.
        trials: All trials.
    """
    taken, deviation = chosen(scored), seed_deviation(scored)
    whole = {one.policy.name: one for one in trials if one.share == 1 and not one.failure}
    found = []
    for one in ranked(scored):
        trial, apart = whole[one.name], gap(one, taken, deviation)
        found.append(
            Finalist(
                one.name,
                trial.changes,
                one.mean,
                one.values_SQ.mean(1).tolist(),
                *((apart.mean, apart.low, apart.high) if one is not taken else (0.0, 0.0, 0.0)),
                trial.k,
                trial.batch_size,
                trial.whole_steps,
                one.seconds,
            )
        )
    return found, taken.name

"""Trials: one policy with one seed, and what came of it."""

from dataclasses import dataclass
from typing import Any, Self

from stx_mine.stages.tune.core.policies import TunedPolicy


@dataclass(frozen=True, kw_only=True)
class PolicyTrial:
    """One policy with one seed.

    Attributes:
        changes: Of the policy.
        seed: Of packing and training.
        share: Of the steps of the whole training, in (0, 1].
        failure: Why it could not be run; empty where it was.
        steps: Optimizer steps that were trained.
        whole_steps: Steps of the whole training.
        k: Negatives of a row.
        batch_size: Rows of a step.
        learning_rate: Its peak rate.
        seconds: What this trial took, evaluation included.
        training_seconds: What of it the training took.
        whole_seconds: What the whole training would take from texts to model.
        mean: Mean of the metric over the queries.
    """

    changes: dict[str, dict[str, Any]]
    seed: int
    share: float
    failure: str = ""
    steps: int = 0
    whole_steps: int = 0
    k: int = 0
    batch_size: int = 0
    learning_rate: float = 0.0
    seconds: float = 0.0
    training_seconds: float = 0.0
    whole_seconds: float = 0.0
    mean: float = float("nan")

    @property
    def policy(self) -> TunedPolicy:
        """What was tried."""
        return TunedPolicy(self.changes)

    @classmethod
    def of_json(cls, content: dict[str, Any]) -> Self:
        """Back from JSON."""
        return cls(**content)

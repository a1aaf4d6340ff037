"""How the texts of a run go through its model, as plan and manifest hold it."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from stx_mine.stages.embed.core.fidelity import Fidelity
from stx_mine.stages.embed.token_encoder import Tuning

# A table of token embeddings; a model whose own `encode` embeds; a function; vectors from files;
# too few texts for trials to pay; trials.
Reason = Literal["static", "encode", "function", "given", "default", "measured"]
# Why texts go through a model's own `encode`, in words.
BY_ENCODE = "it makes more of texts than token ids"


@dataclass(frozen=True)
class Trial:
    """One tuning that was tried, and its speed.

    Attributes:
        tuning: The tuning.
        tokens_per_s: Tokens per second.
    """

    tuning: Tuning
    tokens_per_s: float


@dataclass(frozen=True)
class Choices:
    """How texts go through the model, and why.

    Attributes:
        tuning: None where nothing can be tuned.
        reason: Where the tuning is from, or why there is none.
        trials: What was tried, in order.
        way: Backend, attention and precision where they are not plain torch in float32.
        fidelity: What the way does to vectors; None where there is no way.
    """

    tuning: Tuning | None
    reason: Reason
    trials: tuple[Trial, ...] = ()
    way: str | None = None
    fidelity: Fidelity | None = None

    def to_json(self) -> dict[str, Any]:
        """Tuning, reason and trials, JSON-ready."""
        return {
            "tuning": asdict(self.tuning) if self.tuning else None,
            "reason": self.reason,
            "trials": [
                {**asdict(trial.tuning), "tokens_per_s": trial.tokens_per_s}
                for trial in self.trials
            ],
        }

    def fidelity_json(self) -> dict[str, Any] | None:
        """Way and fidelity, JSON-ready; None where there is no way."""
        return {"way": self.way, **asdict(self.fidelity)} if self.fidelity else None

    def plan_json(self) -> dict[str, Any]:
        """All of it as the plan holds it, JSON-ready."""
        return {**self.to_json(), "fidelity": self.fidelity_json()}

    @classmethod
    def of_plan(cls, choices: dict[str, Any]) -> "Choices":
        """The choices that a plan holds."""
        return cls.from_json(choices, choices.get("fidelity"))

    @classmethod
    def from_json(cls, choices: dict[str, Any], fidelity: dict[str, Any] | None) -> "Choices":
        """The choices that a manifest holds in two parts.

        Args:
            choices: What `to_json` made.
            fidelity: What `fidelity_json` made.
        """
        tuning = choices["tuning"]
        numbers = dict(fidelity or {})
        way = numbers.pop("way", None)
        return cls(
            tuning=Tuning(**tuning) if tuning else None,
            reason=choices["reason"],
            trials=tuple(_trial(**trial) for trial in choices["trials"]),
            way=way,
            fidelity=Fidelity(**numbers) if numbers else None,
        )


def _trial(tokens_per_s: float, **tuning: Any) -> Trial:
    return Trial(Tuning(**tuning), tokens_per_s)

"""Options of `merge`."""

from dataclasses import dataclass
from typing import Literal

from stx_mine.errors import ConfigError
from stx_mine.models.config import ModelFields
from stx_mine.settings import StageConfig, option

# What a task vector may be multiplied with, in both directions.
_MOST = 100


@dataclass(frozen=True, kw_only=True)
class MergeConfig(ModelFields, StageConfig):
    """Average the weights of models of one kind into one model."""

    models: tuple[str, ...] = option(
        (),
        "Two models or more; the first gives prompts, settings and number format (default: the "
        "trained model of the run, then its base).",
        "merged",
        argument=True,
        group="Models",
    )
    to: str | None = option(None, "The folder to write.", group="Output")
    method: Literal["linear", "slerp", "task"] = option(
        "linear",
        "linear: the weighted mean; slerp: on the arc between two, per tensor; task: base + "
        "weighted differences to it.",
        "merged",
        group="Merging",
    )
    weights: tuple[float, ...] = option(
        (),
        "One a model, as in 0.7,0.3 (default: equal); linear and slerp divide them by their sum.",
        "merged",
        minimum=-_MOST,
        maximum=_MOST,
        group="Merging",
    )
    base: str | None = option(
        None,
        "The model that differences are taken to.",
        "merged",
        group="Models",
        needs="method=task",
    )

    def __post_init__(self) -> None:
        """Check what models, method and weights say together.

        Raises:
            ConfigError: One of them does not fit.
        """
        super().__post_init__()
        if self.to is None:
            raise ConfigError("expected --to FOLDER, found none; name the folder to write")
        if self.method == "task" and self.base is None:
            raise ConfigError(
                "--method task needs --base MODEL, found none; name the model that all others were "
                "tuned from"
            )
        if self.models:
            self.check_models(self.models)

    def check_models(self, models: tuple[str, ...]) -> None:
        """Check that models fit method and weights.

        Args:
            models: Their names.

        Raises:
            ConfigError: They are too few or too many, or weights are not one a model.
        """
        fewest = 1 if self.method == "task" else 2
        if len(models) < fewest:
            raise ConfigError(f"expected two models or more, found {models[0]} only; name another")
        if self.method == "slerp" and len(models) > 2:
            raise ConfigError(
                f"--method slerp is of exactly two models, found {len(models)}; leave some out, or "
                "give --method linear"
            )
        if not self.weights:
            return
        found = ",".join(f"{one:g}" for one in self.weights)
        if len(self.weights) != len(models):
            raise ConfigError(
                f"--weights must be {len(models)} numbers, one a model, found {found}; give such "
                f"as {','.join(f'{1 / len(models):.2g}' for _ in models)}"
            )
        if self.method != "task" and min(self.weights) < 0:
            raise ConfigError(
                f"--weights of --method {self.method} must be at least 0, found {found}; give "
                "--method task for the opposite of a difference"
            )
        if not any(self.weights):
            raise ConfigError(f"--weights must not all be 0, found {found}; give one above 0")

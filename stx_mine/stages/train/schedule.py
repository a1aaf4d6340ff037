"""The schedule of a run: how many steps, how fast, how often it is evaluated and saved."""

from dataclasses import dataclass
from typing import Any, Literal

from stx_mine.stages.train.config import TrainConfig
from stx_mine.store.batches import BatchShard

_EVALUATIONS, _LOG_LINES = 20, 100
Shape = Literal["linear", "cosine", "constant"]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long and how fast.

    Attributes:
        num_passes: Packings read, cycling; the last one in part where `max_steps` ends it.
        learning_rate: Peak rate.
        warmup: Share of the steps that warm up.
        seed: Seed of batch order and dropout.
        checkpoint_steps: Steps between checkpoints.
        shape: How the rate falls from its peak, which warming up reaches.
        floor: Where it ends, as a share of the peak; not for `constant`.
        evaluation_steps: Steps between evaluations; None: 20 evaluations a run.
        patience: Evaluations without a new best before training stops; 0: it never does.
        max_steps: Steps after which the run ends; None: with its passes.
    """

    num_passes: int
    learning_rate: float
    warmup: float
    seed: int
    checkpoint_steps: int
    shape: Shape = "linear"
    floor: float = 0.0
    evaluation_steps: int | None = None
    patience: int = 0
    max_steps: int | None = None

    @classmethod
    def of(
        cls, config: TrainConfig, packings: list[list[BatchShard]], learning_rate: float
    ) -> "Schedule":
        """The schedule that the config asks for, with the rate that was chosen."""
        passes = config.epochs or len(packings)
        if config.steps is not None:
            passes = -(-config.steps // count_steps(packings, 1))
        return cls(
            num_passes=passes,
            learning_rate=learning_rate,
            warmup=config.warmup,
            seed=config.seed,
            checkpoint_steps=config.checkpoint_steps,
            shape=config.schedule,
            floor=config.floor,
            evaluation_steps=config.evaluation_steps,
            patience=config.patience,
            max_steps=config.steps,
        )

    def num_steps(self, packings: list[list[BatchShard]]) -> int:
        """Optimizer steps of the run."""
        all_steps = count_steps(packings, self.num_passes)
        return all_steps if self.max_steps is None else min(all_steps, self.max_steps)

    def scheduler(self) -> tuple[str, dict[str, Any]]:
        """Name and arguments of the scheduler of `transformers` that does it."""
        if self.shape == "constant":
            return "constant_with_warmup", {}
        if self.shape == "cosine":
            return "cosine_with_min_lr", {"min_lr_rate": self.floor}
        lowest = self.floor * self.learning_rate
        return ("polynomial", {"lr_end": lowest}) if lowest else ("linear", {})

    def steps_between_evaluations(self, num_steps: int) -> int:
        """Steps from one evaluation to the next in a run of `num_steps`."""
        return self.evaluation_steps or -(-num_steps // _EVALUATIONS)

    def saves(self, num_steps: int, keeps_best: bool) -> int:
        """Steps between checkpoints; where the best is kept, each follows an evaluation."""
        each = self.steps_between_evaluations(num_steps) if keeps_best else 1
        return -(-self.checkpoint_steps // each) * each


def steps_between_lines(num_steps: int) -> int:
    """Steps from one line of the training log to the next in a run of `num_steps`."""
    return -(-num_steps // _LOG_LINES)


def count_steps(packings: list[list[BatchShard]], num_passes: int) -> int:
    """Steps of a run that reads packings `num_passes` times, one packing per pass."""
    return sum(shard.num_batches for shard in packings[0]) * num_passes

"""Probe learning rates: a few steps with each of three, judged by the loss on batches not seen."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from tempfile import TemporaryDirectory
from typing import Any

from sentence_transformers import SentenceTransformer
from torch import nn
from transformers import PrinterCallback

from stx_mine.errors import ConfigError
from stx_mine.stages.train.batch_collator import BatchCollator
from stx_mine.stages.train.evaluations import EvaluationPlan
from stx_mine.stages.train.monitor import TrainingMonitor
from stx_mine.stages.train.read_ahead import ReadAhead
from stx_mine.stages.train.schedule import Schedule
from stx_mine.stages.train.trainer import PackedTrainer, row_numbers, trainer_arguments
from stx_mine.store.batches import BatchShard

_FACTORS = (1 / 3, 1.0, 3.0)
_FEWEST_STEPS, _MOST_STEPS, _SHARE_OF_STEPS = 8, 20, 0.1
_HELD_ROWS, _HELD_SHARE = 1_024, 0.25


@dataclass(frozen=True)
class ProbePlan:
    """Which batches of the first packing a probe reads.

    Attributes:
        num_steps: It trains on so many first batches with each rate.
        held_back: (shard, number within it) of the last batches, which judge.
    """

    num_steps: int
    held_back: list[tuple[BatchShard, int]]


@dataclass(frozen=True)
class Probe:
    """What a probe found.

    Attributes:
        num_steps: Steps with each rate.
        before: Loss on what is held back, before training.
        losses: Rate -> that loss after the steps with it; rising rates.
    """

    num_steps: int
    before: float
    losses: dict[float, float]

    def diverged(self, rate: float) -> bool:
        """Whether a rate made the loss worse than it was, or not finite."""
        return not self.losses[rate] <= self.before

    def choose(self) -> tuple[float, str]:
        """The rate of the lowest loss (of equal ones the lower rate), and a sentence that says why.

        Raises:
            ConfigError: All rates diverged.
        """
        left = {rate: loss for rate, loss in self.losses.items() if not self.diverged(rate)}
        found = ", ".join(
            f"{rate:.3g}: {loss:.4f}{' (diverged)' if self.diverged(rate) else ''}"
            for rate, loss in self.losses.items()
        )
        words = (
            f"{self.num_steps} steps with each of three took the loss on held-back batches from "
            f"{self.before:.4f} to {found}"
        )
        if not left:
            raise ConfigError(
                f"--learning-rate probe found no rate that lowers the loss: {words}; give a number "
                f"below {min(self.losses):.2g}, or auto"
            )
        return min(left, key=lambda rate: left[rate]), words


def probe(
    model: SentenceTransformer,
    loss: nn.Module,
    packings: list[list[BatchShard]],
    collator: BatchCollator,
    schedule: Schedule,
    num_processes: int = 1,
    options: Mapping[str, Any] | None = None,
) -> Probe:
    """Train with a third of the schedule's rate, with it, and with three times it, each anew.

    Each is a short run: its rate warms up and falls as the schedule does, within its few steps.
    What decides is the mean loss of the last batches of the packing, which share no row with the
    first.

    Args:
        model: Has the same weights afterwards as before.
        loss: Of the model, without weights of its own.
        packings: Shards of each packing.
        collator: Reads them.
        schedule: Of the run that is to come.
        num_processes: Processes that share every batch.
        options: More keywords for the Trainer's arguments.

    Raises:
        ConfigError: A packing has one batch only.
    """
    plan = plan_probe(packings, schedule.num_steps(packings))
    before = {name: weight.detach().clone() for name, weight in model.state_dict().items()}
    losses = {}
    ahead = ReadAhead(collator, packings[0][0].batch_size)
    with TemporaryDirectory() as folder, ahead:
        for factor in (0.0, *_FACTORS):
            rate = factor * schedule.learning_rate
            arguments = trainer_arguments(
                model,
                packings,
                replace(schedule, learning_rate=rate),
                num_processes,
                output_dir=folder,
                max_steps=plan.num_steps,
                warmup_steps=round(schedule.warmup * plan.num_steps),
                save_strategy="no",
                logging_strategy="no",
                disable_tqdm=True,
                **(options or {}),
            )
            trainer = PackedTrainer(
                monitor=TrainingMonitor(EvaluationPlan(), collator),
                model=model,
                args=arguments,
                train_dataset=row_numbers(packings),
                loss=loss,
                data_collator=ahead,
            )
            losses[rate] = _loss_after(trainer, ahead, plan, trains=factor > 0)
            model.load_state_dict(before)
            model.zero_grad(set_to_none=True)
    untrained = losses.pop(0.0)
    return Probe(plan.num_steps, untrained, losses)


def _loss_after(trainer: PackedTrainer, ahead: ReadAhead, plan: ProbePlan, trains: bool) -> float:
    """The loss on the batches that judge, after the steps where it trains."""
    trainer.remove_callback(PrinterCallback)
    if trains:
        trainer.train()
    trainer.model.eval()
    ahead.settle()
    return trainer.loss_of(plan.held_back)


def plan_probe(packings: Sequence[Sequence[BatchShard]], num_steps: int) -> ProbePlan:
    """Decide what to train on and what to judge by.

    Args:
        packings: Shards of each packing.
        num_steps: Steps of the run that is to come.

    Raises:
        ConfigError: A packing has one batch only.
    """
    batches = [(shard, number) for shard in packings[0] for number in range(shard.num_batches)]
    if len(batches) < 2:
        raise ConfigError(
            f"--learning-rate probe needs at least 2 batches in a packing, found {len(batches)}; "
            "run `stx-mine pack` with a smaller --batch-size, or give auto or a number"
        )
    wanted = math.ceil(_HELD_ROWS / batches[0][0].batch_size)
    held = max(1, min(wanted, int(_HELD_SHARE * len(batches))))
    steps = max(_FEWEST_STEPS, min(_MOST_STEPS, int(_SHARE_OF_STEPS * num_steps)))
    return ProbePlan(min(steps, len(batches) - held), batches[-held:])

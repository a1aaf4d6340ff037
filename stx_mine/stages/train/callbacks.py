"""Callbacks of the Trainer: keep the best, stop in time, log what is saved, report elsewhere."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from transformers import (
    EarlyStoppingCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.integrations import TensorBoardCallback, WandbCallback

from stx_mine import progress
from stx_mine.errors import ConfigError
from stx_mine.stages.train.checkpoints import seal_state
from stx_mine.stages.train.evaluations import BEST


class KeepBest(EarlyStoppingCallback):  # type: ignore[misc]
    """Early stopping that saves every new best, and no checkpoint at which it stops.

    A run that is resumed from a checkpoint trains at least one step, so a checkpoint of the step
    that stopped would make it continue; from the one before it stops at the same step again.
    """

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float],
        **others: Any,
    ) -> None:
        """Save a new best; stop where patience ends."""
        metric = metrics[f"eval_{args.metric_for_best_model}"]
        if state.best_metric is None or metric > state.best_metric:
            control.should_save = True
        super().on_evaluate(args, state, control, metrics, **others)
        if control.should_training_stop and state.global_step < state.max_steps:
            control.should_save = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any
    ) -> None:
        """Find the best checkpoint again where the run directory was moved."""
        super().on_train_begin(args, state, control, **others)
        best = Path(args.output_dir) / f"checkpoint-{state.best_global_step}"
        if best.is_dir():
            state.best_model_checkpoint = str(best)


class ShowSteps(TrainerCallback):  # type: ignore[misc]
    """Shows how far training is, its loss and what evaluations say."""

    def __init__(self, shown: progress.Step) -> None:
        self.shown = shown
        self._facts: dict[str, str] = {}

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any
    ) -> None:
        """One step more."""
        self.shown.advance()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float],
        **others: Any,
    ) -> None:
        """Take down what is shown."""
        names = {"loss": "loss", "learning_rate": "rate", f"eval_{BEST}": "nDCG@10"}
        self._facts |= {
            word: f"{word} {logs[name]:.3g}" for name, word in names.items() if name in logs
        }
        self.shown.note = ", ".join(self._facts.values())


class LogWhatIsSaved(TrainerCallback):  # type: ignore[misc]
    """Log every step that is evaluated or saved, so that a resumed run logs what a whole one does.

    The logged loss is the mean since the last logged step, or since training was resumed.
    """

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any
    ) -> None:
        """Log too."""
        if control.should_evaluate or control.should_save:
            control.should_log = True


class SealState(TrainerCallback):  # type: ignore[misc]
    """Take down the checksum of the state of each checkpoint, which the Trainer writes last."""

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any
    ) -> None:
        """Seal the checkpoint of this step."""
        checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if args.should_save and checkpoint.is_dir():
            seal_state(checkpoint)


def check_reporters(names: tuple[str, ...]) -> None:
    """Refuse trackers whose package is not installed.

    Raises:
        ConfigError: One is not.
    """
    for name in names:
        if find_spec(name) is None:
            raise ConfigError(
                f"--report-to {name} needs the package {name}, which is not installed; run "
                f"`pip install {name}`, or leave it out: training_log.jsonl is always written"
            )


def reporters(names: tuple[str, ...], folder: Path, steps_done: int) -> list[TrainerCallback]:
    """The Trainer's own callbacks that log elsewhere.

    Args:
        names: `tensorboard`, `wandb`.
        folder: Where TensorBoard's files go.
        steps_done: What it shows after them is dropped, since those steps come again.
    """
    found: list[TrainerCallback] = []
    if "tensorboard" in names:
        from torch.utils.tensorboard import SummaryWriter

        purge = steps_done + 1 if steps_done else None
        found.append(TensorBoardCallback(SummaryWriter(str(folder), purge_step=purge)))
    if "wandb" in names:
        found.append(WandbCallback())
    return found

"""Train with SentenceTransformerTrainer on packed batches."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset
from safetensors import SafetensorError
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.base.modules import Module
from torch import Tensor, nn
from transformers import (
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from stx_mine import progress
from stx_mine.errors import ConfigError
from stx_mine.models.memory import give_back_memory
from stx_mine.stages.train.batch_collator import BatchCollator
from stx_mine.stages.train.callbacks import (
    KeepBest,
    LogWhatIsSaved,
    SealState,
    ShowSteps,
    reporters,
)
from stx_mine.stages.train.checkpoints import last_checkpoint, list_files, steps_done
from stx_mine.stages.train.evaluations import BEST, EvaluationPlan
from stx_mine.stages.train.monitor import TrainingMonitor, step_facts
from stx_mine.stages.train.outcome import broken_loss
from stx_mine.stages.train.processes import average_gradients, mean_over_processes
from stx_mine.stages.train.read_ahead import ForeseeingSampler, ReadAhead, Settle
from stx_mine.stages.train.schedule import Schedule, steps_between_lines
from stx_mine.store.batches import BatchShard
from stx_mine.store.files import written_by_library
from stx_mine.store.training_log import TERM

_TENSORBOARD = "tensorboard"


class PackedTrainer(SentenceTransformerTrainer):  # type: ignore[misc]
    """SentenceTransformerTrainer that averages gradients over processes after the backward pass.

    DistributedDataParallel would average while the backward pass runs, and counts on one forward
    pass for it; a packed batch takes several, some of them repeated within the backward pass.
    """

    def __init__(self, *, monitor: TrainingMonitor, **kwargs: Any) -> None:
        super().__init__(evaluator=monitor, **kwargs)
        self.monitor = monitor
        self._facts: dict[str, Tensor | int] = {}
        self._terms: dict[str, Tensor] = {}
        self._term_steps = 0
        self.control: TrainerControl
        self.accelerator.prepare_model = partial(
            self.accelerator.prepare_model, evaluation_mode=True
        )

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Adds no card: that of the library would describe numbers of rows."""

    def get_batch_sampler(self, *args: Any, **kwargs: Any) -> ForeseeingSampler:
        """The sampler of packed batches, which tells the collator what comes next."""
        sampler: ForeseeingSampler = super().get_batch_sampler(*args, **kwargs)
        sampler.ahead = self.data_collator
        return sampler

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Tensor:
        """One forward and backward pass; every process ends with the same gradients."""
        self._facts = step_facts(inputs)
        loss: Tensor = super().training_step(model, inputs, *args, **kwargs)
        average_gradients(model.parameters())
        return loss

    def track_loss_components(self, loss: dict[str, Tensor]) -> None:
        """Add up the terms of a loss over the training steps until they are logged."""
        if not self.model.training:
            return
        self._term_steps += 1
        for name, value in loss.items():
            self._terms[name] = self._terms.get(name, 0) + value.detach()

    def _mean_terms(self) -> dict[str, float]:
        """The mean of each term since they were logged last, over all processes."""
        means = {
            TERM + name: mean_over_processes(value.item() / self._term_steps, self.args.device)
            for name, value in self._terms.items()
        }
        self._terms, self._term_steps = {}, 0
        return means

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log a training step with what its batch held; anything else as it is."""
        if "loss" in logs:
            facts = {name: int(value) for name, value in self._facts.items()}
            mean = mean_over_processes(facts["tokens"], self.args.device)
            facts["tokens"] = round(mean * self.args.world_size)
            logs = {**logs, **self._mean_terms(), **facts}
            step, fine = self.state.global_step, math.isfinite(logs["loss"])
            self.monitor.logged(step, logs, self.control.should_evaluate and fine)
            if not fine:
                raise broken_loss(step, logs["loss"], self.args)
        super().log(logs, start_time)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Measure the model and let the callbacks act on it; draws no random number."""
        metrics = self.measure()
        handler = self.callback_handler
        self.control = handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def measure(self) -> dict[str, float]:
        """Measure the model as it is, and log the metrics."""
        self.model.eval()
        held_back = self.monitor.plan.held_back
        with progress.step("evaluating"):
            loss = self.loss_of(held_back) if held_back else None
            metrics = self.monitor(self.model, steps=self.state.global_step, validation_loss=loss)
        self.log(metrics)
        give_back_memory()
        return metrics

    def loss_of(self, batches: Sequence[tuple[BatchShard, int]]) -> float:
        """The mean loss of whole batches, which the processes share.

        Args:
            batches: (shard, number within it) of each.
        """
        rank, size = self.args.process_index, self.args.world_size
        losses = []
        with torch.no_grad():
            for shard, number in batches:
                inputs = self.monitor.collator.collate(shard.batch(number), rank, size)
                loss = self.compute_loss(self.model, self._prepare_inputs(inputs))
                losses.append(mean_over_processes(loss.item(), self.args.device))
        return sum(losses) / len(losses)

    def _save_rng_state(self, output_dir: str) -> None:
        """The last part of a checkpoint before its state; what it has is listed then."""
        super()._save_rng_state(output_dir)
        if self.args.should_save:
            list_files(Path(output_dir), self.args.world_size)

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        with written_by_library(Path(self.args.output_dir), SafetensorError):
            super()._save_checkpoint(*args, **kwargs)

    def _load_from_checkpoint(self, checkpoint_path: str) -> None:
        """Take over the weights that are trained; those that are frozen are as they were.

        Theirs takes all, in the number format of the base model's files, and finds a pooler where
        we have none.
        """
        model: SentenceTransformer = getattr(self.model, "_orig_mod", self.model)
        own = [type(one) for one in model.modules() if isinstance(one, Module)]
        # Code that came with a model is named from its file on.
        kinds = {f"{one.__module__}.{one.__name__}": one for one in own}
        kinds |= {f"{one.__module__.rpartition('.')[2]}.{one.__name__}": one for one in own}
        saved = type(model)._load_with_module_classes(
            checkpoint_path,
            kinds,
            device="cpu",
            trust_remote_code=model.trust_remote_code,
            model_kwargs={"dtype": torch.float32},
        )
        frozen = {name for name, one in model.named_parameters() if not one.requires_grad}
        found = saved.state_dict()
        wanted = model.state_dict().keys() - frozen
        model.load_state_dict({name: found[name] for name in wanted}, strict=False)

    def _load_best_model(self) -> None:
        # Theirs logs an error where that fails, and continues with the last weights.
        self._load_from_checkpoint(self.state.best_model_checkpoint)


class MeasureFirst(TrainerCallback):  # type: ignore[misc]
    """Measures the model before the first step."""

    def __init__(self, trainer: PackedTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any
    ) -> None:
        """Measure, unless training continues from a checkpoint."""
        if state.global_step == 0:
            self.trainer.measure()


@dataclass(frozen=True)
class Trained:
    """How a run ended.

    Attributes:
        steps: Steps that were trained.
        best_step: The step whose weights the model has, if the best are kept; else None.
    """

    steps: int
    best_step: int | None


def train(
    model: SentenceTransformer,
    loss: nn.Module,
    packings: list[list[BatchShard]],
    collator: BatchCollator,
    schedule: Schedule,
    folder: Path,
    num_processes: int = 1,
    plan: EvaluationPlan | None = None,
    options: Mapping[str, Any] | None = None,
) -> Trained:
    """Train a model in place; continue from the last checkpoint in `folder` if there is one.

    To the Trainer the whole run is one epoch: the sampler walks through all passes, so that a
    resumed run continues with the very next batch whatever wraps the sampler. Several processes
    share every batch, so that their number may change in between. Where there are evaluation
    sets, the weights of the best evaluation are those that the model has at the end.

    Args:
        model: The model.
        loss: Takes the features and labels that the collator gives.
        packings: Shards of each packing.
        collator: Reads them.
        schedule: How long and how fast.
        folder: Where checkpoints go; only process 0 writes.
        num_processes: Processes that share every batch; their number divides the batch size.
        plan: What to measure while it trains; None: nothing.
        options: More keywords for the Trainer's arguments.
    """
    plan = plan or EvaluationPlan()
    monitor = TrainingMonitor(plan, collator)
    checkpoint = last_checkpoint(folder)
    done = steps_done(Path(checkpoint)) if checkpoint else 0
    num_steps = schedule.num_steps(packings)
    counting = progress.step("training", num_steps - done, "steps")
    with ReadAhead(collator, packings[0][0].batch_size) as ahead, counting as counted:
        trainer = PackedTrainer(
            monitor=monitor,
            model=model,
            args=_arguments(
                model, packings, schedule, folder, num_processes, plan.evaluates, options or {}
            ),
            train_dataset=row_numbers(packings),
            loss=loss,
            data_collator=ahead,
            callbacks=[
                *(LogWhatIsSaved(), SealState(), Settle(ahead), ShowSteps(counted)),
                *reporters(plan.reporters, folder.parent / _TENSORBOARD, done),
                *([KeepBest(schedule.patience or num_steps + 1)] if plan.evaluates else ()),
            ],
        )
        # The Trainer's log dicts are for the stage to report.
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(MeasureFirst(trainer))
        monitor.begin(done, num_steps)
        trainer.train(resume_from_checkpoint=checkpoint)
    model.eval()
    give_back_memory()
    best = trainer.state.best_global_step if trainer.state.best_model_checkpoint else None
    return Trained(trainer.state.global_step, best)


def row_numbers(packings: list[list[BatchShard]]) -> Dataset:
    """The numbers of all rows, by which a sampler asks a collator for batches."""
    num_rows = sum(one.num_batches * one.batch_size for packing in packings for one in packing)
    # Without a fingerprint the table is pickled for one, by value where pyarrow lies in a folder
    # of `pip install --target`, which fails.
    return Dataset(pa.table({"row": np.arange(num_rows)}), fingerprint=f"rows-{num_rows}")


def _arguments(
    model: SentenceTransformer,
    packings: list[list[BatchShard]],
    schedule: Schedule,
    folder: Path,
    num_processes: int,
    keeps_best: bool,
    options: Mapping[str, Any],
) -> SentenceTransformerTrainingArguments:
    steps = schedule.num_steps(packings)
    return trainer_arguments(
        model,
        packings,
        schedule,
        num_processes,
        output_dir=str(folder),
        num_train_epochs=1,
        max_steps=steps,
        warmup_steps=round(schedule.warmup * steps),
        save_strategy="steps",
        save_steps=schedule.saves(steps, keeps_best),
        save_total_limit=1,
        logging_steps=steps_between_lines(steps),
        # Of the model as it came: what later losses are compared with.
        logging_first_step=True,
        eval_strategy="steps",
        eval_steps=schedule.steps_between_evaluations(steps),
        load_best_model_at_end=keeps_best,
        metric_for_best_model=BEST if keeps_best else None,
        restore_callback_states_from_checkpoint=True,
        disable_tqdm=True,
        **options,
    )


def trainer_arguments(
    model: SentenceTransformer,
    packings: list[list[BatchShard]],
    schedule: Schedule,
    num_processes: int,
    **others: Any,
) -> SentenceTransformerTrainingArguments:
    """Arguments of every Trainer that reads packed batches; `others` say how long and how often."""
    size = packings[0][0].batch_size
    scheduler, details = schedule.scheduler()
    arguments = SentenceTransformerTrainingArguments(
        per_device_train_batch_size=size // num_processes,
        learning_rate=schedule.learning_rate,
        lr_scheduler_type=scheduler,
        lr_scheduler_kwargs=details,
        seed=schedule.seed,
        data_seed=schedule.seed,
        batch_sampler=partial(
            ForeseeingSampler,
            packed_batch_size=size,
            num_packings=len(packings),
            num_passes=schedule.num_passes,
        ),
        # A loss that is not finite has to be seen, and looking costs a wait a step.
        logging_nan_inf_filter=False,
        report_to="none",
        use_cpu=model.device.type == "cpu",
        dataloader_drop_last=True,
        dataloader_pin_memory=model.device.type == "cuda",
        **{"weight_decay": 0.0, **others},
    )
    # One process uses one GPU: the Trainer would cut batches into pieces for all that it sees.
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1
    return arguments


def check_num_processes(num_processes: int, batch_size: int) -> None:
    """Refuse a number of processes that cannot share a batch equally.

    Raises:
        ConfigError: It does not divide the batch size.
    """
    if batch_size % num_processes:
        fit = [one for one in range(1, min(batch_size, 1_024) + 1) if batch_size % one == 0]
        raise ConfigError(
            f"expected a number of processes that divides the batch size {batch_size:,}, found "
            f"{num_processes}; start {', '.join(map(str, fit))}, or pack another --batch-size"
        )


def count_parameters(model: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)

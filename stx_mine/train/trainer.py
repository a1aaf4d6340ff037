"""Train with SentenceTransformerTrainer on packed batches."""

import json
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from torch import Tensor, nn
from transformers import PrinterCallback

from stx_mine.artifacts.batches import Shard
from stx_mine.errors import ConfigError
from stx_mine.train.batch_collator import BatchCollator
from stx_mine.train.packed_sampler import PackedBatchSampler
from stx_mine.train.processes import average_gradients

_STATE = "trainer_state.json"


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long and how fast.

    Attributes:
        num_passes: Packings read, cycling.
        learning_rate: Peak rate.
        warmup: Share of the steps that warm up.
        seed: Seed of batch order and dropout.
        checkpoint_steps: Steps between checkpoints.
    """

    num_passes: int
    learning_rate: float
    warmup: float
    seed: int
    checkpoint_steps: int


class PackedTrainer(SentenceTransformerTrainer):  # type: ignore[misc]
    """SentenceTransformerTrainer that averages gradients over processes after the backward pass.

    DistributedDataParallel would average while the backward pass runs, and counts on one forward
    pass for it; a packed batch takes several, some of them repeated within the backward pass.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.accelerator.prepare_model = partial(
            self.accelerator.prepare_model, evaluation_mode=True
        )

    def training_step(self, model: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        """One forward and backward pass; every process ends with the same gradients."""
        loss: Tensor = super().training_step(model, *args, **kwargs)
        average_gradients(model.parameters())
        return loss


def train(
    model: SentenceTransformer,
    loss: nn.Module,
    packings: list[list[Shard]],
    collator: BatchCollator,
    schedule: Schedule,
    folder: Path,
    num_processes: int = 1,
) -> list[dict[str, Any]]:
    """Train a model in place; go on from the last checkpoint in `folder` if there is one.

    To the Trainer the whole run is one epoch: the sampler walks through all passes, so that a
    resumed run goes on with the very next batch whatever wraps the sampler. Several processes
    share every batch, so that their number may change in between.

    Args:
        model: The model.
        loss: Takes the features and labels that the collator gives.
        packings: Shards of each packing.
        collator: Reads them.
        schedule: How long and how fast.
        folder: Where checkpoints go; only process 0 writes.
        num_processes: Processes that share every batch; their number divides the batch size.

    Returns:
        The Trainer's log, one entry a logged step; of process 0, if there are several.
    """
    num_rows = sum(one.num_batches * one.batch_size for packing in packings for one in packing)
    trainer = PackedTrainer(
        model=model,
        args=_arguments(model, packings, schedule, folder, num_processes),
        train_dataset=Dataset(pa.table({"row": np.arange(num_rows)})),
        loss=loss,
        data_collator=collator,
    )
    # The Trainer's log dicts are for the stage to report.
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=last_checkpoint(folder))
    model.eval()
    return list(trainer.state.log_history)


def _arguments(
    model: SentenceTransformer,
    packings: list[list[Shard]],
    schedule: Schedule,
    folder: Path,
    num_processes: int,
) -> SentenceTransformerTrainingArguments:
    size = packings[0][0].batch_size
    steps = sum(shard.num_batches for shard in packings[0]) * schedule.num_passes
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(folder),
        num_train_epochs=1,
        per_device_train_batch_size=size // num_processes,
        learning_rate=schedule.learning_rate,
        warmup_steps=round(schedule.warmup * steps),
        lr_scheduler_type="linear",
        weight_decay=0.0,
        seed=schedule.seed,
        data_seed=schedule.seed,
        batch_sampler=partial(
            PackedBatchSampler,
            packed_batch_size=size,
            num_packings=len(packings),
            num_passes=schedule.num_passes,
        ),
        save_strategy="steps",
        save_steps=schedule.checkpoint_steps,
        save_total_limit=1,
        logging_steps=max(1, steps // 20),
        report_to="none",
        disable_tqdm=not sys.stderr.isatty(),
        use_cpu=model.device.type == "cpu",
        dataloader_drop_last=True,
        dataloader_pin_memory=model.device.type == "cuda",
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


def last_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that was written to its end; None where there is none."""
    states = [(_steps_done(one), one.parent) for one in folder.glob("checkpoint-*/" + _STATE)]
    steps, newest = max(states, default=(0, folder))
    return str(newest) if steps else None


def _steps_done(state: Path) -> int:
    """Steps before a checkpoint; 0 if it is cut short: the Trainer writes this file last."""
    try:
        return int(json.loads(state.read_text("utf-8"))["global_step"])
    except ValueError:
        return 0


def count_parameters(model: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(one.numel() for one in model.parameters() if one.requires_grad)

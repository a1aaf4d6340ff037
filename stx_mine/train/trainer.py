"""Train with SentenceTransformerTrainer on packed batches."""

import os
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
from torch import nn
from transformers import PrinterCallback
from transformers.trainer_utils import get_last_checkpoint

from stx_mine.artifacts.batches import Shard
from stx_mine.errors import ConfigError
from stx_mine.models.tokenise import Tokeniser
from stx_mine.train.collator import PackedCollator
from stx_mine.train.packed_sampler import PackedBatchSampler


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


def train(
    model: SentenceTransformer,
    loss: nn.Module,
    packings: list[list[Shard]],
    schedule: Schedule,
    folder: Path,
) -> list[dict[str, Any]]:
    """Train a model in place; go on from the last checkpoint in `folder` if there is one.

    To the Trainer the whole run is one epoch: the sampler walks through all passes, so that a
    resumed run goes on with the very next batch whatever wraps the sampler.

    Args:
        model: The model.
        loss: Takes the features and labels of `PackedCollator`.
        packings: Shards of each packing.
        schedule: How long and how fast.
        folder: Where checkpoints go.

    Returns:
        The Trainer's log, one entry a logged step.

    Raises:
        ConfigError: Several processes were started.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            "training runs in one process so far, found WORLD_SIZE="
            f"{os.environ['WORLD_SIZE']}; start `stx-mine train` without torchrun"
        )
    shards = [shard for packing in packings for shard in packing]
    size = shards[0].batch_size
    num_rows = sum(shard.num_batches for shard in shards) * size
    batches = num_rows // size // len(packings)
    steps = batches * schedule.num_passes
    sampler = partial(
        PackedBatchSampler, num_packings=len(packings), num_passes=schedule.num_passes
    )
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(folder),
        num_train_epochs=1,
        per_device_train_batch_size=size,
        learning_rate=schedule.learning_rate,
        warmup_steps=round(schedule.warmup * steps),
        lr_scheduler_type="linear",
        weight_decay=0.0,
        seed=schedule.seed,
        data_seed=schedule.seed,
        batch_sampler=sampler,
        save_strategy="steps",
        save_steps=schedule.checkpoint_steps,
        save_total_limit=1,
        logging_steps=max(1, steps // 20),
        report_to="none",
        disable_tqdm=not sys.stderr.isatty(),
        use_cpu=model.device.type == "cpu",
        dataloader_pin_memory=model.device.type == "cuda",
    )
    trainer = SentenceTransformerTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset(pa.table({"row": np.arange(num_rows)})),
        loss=loss,
        data_collator=PackedCollator(shards, Tokeniser(model)),
    )
    # The Trainer's log dicts are for the stage to report.
    trainer.remove_callback(PrinterCallback)
    last = get_last_checkpoint(str(folder)) if folder.is_dir() else None
    trainer.train(resume_from_checkpoint=last)
    model.eval()
    return list(trainer.state.log_history)


def count_parameters(model: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(one.numel() for one in model.parameters() if one.requires_grad)

"""Part of `benchmarks.train`: one measurement in a process of its own, printed as JSON.

    python -m benchmarks.steps ARM RUN_DIR MODEL BATCH_TOKENS STEPS

Collation is not part of a step, but of the loops.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MultipleNegativesRankingLoss,
)
from torch import Tensor, nn

from stx_mine.models.load import load_model
from stx_mine.models.tokenise import Tokeniser
from stx_mine.stages.train.batch_collator import BatchCollator
from stx_mine.stages.train.choice import make_collator, make_loss
from stx_mine.stages.train.config import TrainConfig
from stx_mine.stages.train.schedule import Schedule
from stx_mine.stages.train.trainer import train
from stx_mine.store.batches import BatchShard, list_packings, slot_text_ids, text_columns

SCALE = 20.0
RATE = 1e-4
Features = dict[str, Tensor]


class Case:
    """A model, its packed batches and our loss of them."""

    def __init__(
        self,
        run_dir: str,
        model: str,
        batch_tokens: int | None,
        device: str = "cpu",
        activation_share: float | None = None,
    ) -> None:
        share = TrainConfig.activation_share if activation_share is None else activation_share
        self.config = TrainConfig(
            run_dir=run_dir, device=device, batch_tokens=batch_tokens, activation_share=share
        )
        self.model: SentenceTransformer = load_model(model, device)
        self.packings = list_packings(Path(run_dir, "batches"))
        self.collator: BatchCollator = make_collator(self.config, self.model, self.packings)
        self.loss = make_loss(self.config, self.model)

    @property
    def shard(self) -> BatchShard:
        """The first shard."""
        return self.packings[0][0]

    @property
    def num_batches(self) -> int:
        """Batches of the first packing."""
        return sum(shard.num_batches for shard in self.packings[0])

    def rows(self, batch: int) -> list[dict[str, int]]:
        """What a sampler gives for a batch."""
        size = self.shard.batch_size
        return [{"row": row} for row in range(batch * size, (batch + 1) * size)]

    def ours(self, batch: int) -> tuple[list[Features], dict[str, Tensor]]:
        """A batch for our loss."""
        return split(self.collator(self.rows(batch)))

    def columns(self, batch: int) -> list[Features]:
        """The same rows, every slot of them, for the library's losses."""
        table, tokenise = self.collator.read(batch), Tokeniser(self.model)
        return [
            tokenise(table.column(name).to_pylist(), "query" if name == "anchor" else "passage")
            for name in text_columns(self.shard.num_negatives)
        ]


def split(batch: dict[str, Any]) -> tuple[list[Features], dict[str, Tensor]]:
    """Features of anchors and of passages, and labels, as the Trainer gives them to a loss."""
    sides = [
        {
            name.removeprefix(f"{side}_"): value
            for name, value in batch.items()
            if name.startswith(f"{side}_")
        }
        for side in ("anchor", "passage")
    ]
    return sides, batch["label"]


def collate(case: Case, steps: int) -> dict[str, Any]:
    """Seconds to make each of the first batches, twice, on one core, and how many texts it has."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    seconds, slots, distinct = [], 0, 0
    # Opens the tokeniser, and knows the texts of one batch of a few rows.
    case.collator.collate(case.collator.read(0).slice(0, 2))
    for batch in [*range(min(steps, case.num_batches))] * 2:
        started = time.perf_counter()
        made = case.collator(case.rows(batch))
        seconds.append(time.perf_counter() - started)
        groups = slot_text_ids(case.collator.read(batch), case.shard.num_negatives)
        slots += int((groups >= 0).sum())
        distinct += int(made["label"]["num_passages"])
    return {
        "collate_s": statistics.median(seconds),
        "collate_first_s": seconds[0],
        "collate_s_by_batch": seconds,
        "slots_over_distinct": slots / distinct,
        "distinct_passages": distinct // len(seconds),
        "batches": case.num_batches,
    }


def timed_steps(
    case: Case, steps: int, prepare: Callable[[int], Any], loss: Callable[[Any], Tensor]
) -> dict[str, Any]:
    """Median seconds of forward, backward and optimizer step over prepared batches."""
    optimizer = torch.optim.AdamW(case.model.parameters(), lr=RATE)
    case.model.train()
    seconds, values = [], []
    for step in range(steps):
        inputs = prepare(step % case.num_batches)
        started = time.perf_counter()
        value = loss(inputs)
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - started)
        values.append(float(value.detach()))
    return {"seconds": statistics.median(seconds), "losses": values}


def bare_loop(case: Case, steps: int) -> dict[str, Any]:
    """Seconds between steps of a loop of torch alone: make a batch, loss, backward, AdamW."""
    optimizer = torch.optim.AdamW(case.model.parameters(), lr=RATE)
    case.model.train()
    clock = Clock(case.loss)
    for step in range(steps):
        clock(*case.ours(step % case.num_batches)).backward()
        optimizer.step()
        optimizer.zero_grad()
    clock.tick()
    return clock.report()


def trainer_loop(case: Case, steps: int) -> dict[str, Any]:
    """The same by our trainer."""
    clock = Clock(case.loss)
    passes = -(-steps // case.num_batches)
    schedule = Schedule(
        num_passes=passes, learning_rate=RATE, warmup=0.1, seed=0, checkpoint_steps=10_000
    )
    with tempfile.TemporaryDirectory() as folder:
        train(case.model, clock, case.packings[:1], case.collator, schedule, Path(folder))
    return clock.report()


class Clock(nn.Module):
    """A loss that notes when it is called."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss
        self.ticks: list[float] = []

    def tick(self) -> None:
        """Note the time."""
        self.ticks.append(time.perf_counter())

    def forward(self, features: list[Features], labels: dict[str, Tensor]) -> Tensor:
        """The loss."""
        self.tick()
        value: Tensor = self.loss(features, labels)
        return value

    def report(self) -> dict[str, Any]:
        """Median seconds from one call to the next, all but the first."""
        seconds = [later - one for one, later in zip(self.ticks, self.ticks[1:], strict=False)]
        return {"seconds": statistics.median(seconds[1:] or seconds), "steps": len(self.ticks)}


def library_loss(case: Case, cached: bool) -> nn.Module:
    """The library's loss with our mini-batch."""
    if not cached:
        return MultipleNegativesRankingLoss(case.model, scale=SCALE)
    tokens = case.config.batch_tokens
    return CachedMultipleNegativesRankingLoss(
        case.model, scale=SCALE, mini_batch_size=tokens, mini_batch_num_tokens=tokens
    )


def main() -> None:
    """Measure one arm and print it."""
    arm, run_dir, model, tokens, steps = sys.argv[1:]
    case, number = Case(run_dir, model, int(tokens)), int(steps)
    if arm in ("uncached", "cached"):
        loss = library_loss(case, arm == "cached")
        result = timed_steps(case, number, case.columns, lambda inputs: loss(inputs, None))
    elif arm == "ours":
        result = timed_steps(case, number, case.ours, lambda inputs: case.loss(*inputs))
    else:
        arms = {"collate": collate, "bare": bare_loop, "trainer": trainer_loop}
        result = arms[arm](case, number)
    print(json.dumps(result))


if __name__ == "__main__":
    main()

"""Part of `benchmarks.gpu`: a training step of ours beside the cached loss of the library.

    python -m benchmarks.gpu_train --output FILE [--device cuda] [--quick]

Both train MiniLM on the same rows with 8 negatives, the network in bfloat16 as `accelerate` makes
it for every Trainer, weights and loss in float32. A step is forward, backward and AdamW over a
batch that is already tokenised: `ours` and `cached_256`, `cached_1024` (the loss with that
`mini_batch_size`), `cached_1024_32768_tokens` (with `mini_batch_num_tokens` beside, ours by
default). `collate_s` is what making that batch takes. `ours_trainer` are seconds between
steps of our Trainer, which makes the next batch meanwhile. The library's texts are all slots of the
batch; ours are the distinct ones, and `slots_over_distinct` says how many fewer.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from benchmarks.gpu_data import MINILM, write_rows
from benchmarks.gpu_part import DeviceMemory, Part, synchronised_seconds
from benchmarks.steps import RATE, SCALE, Case, Clock, split
from stx_mine.cli import quiet
from stx_mine.models.tokenise import Tokeniser
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.embed.stage import run_embed
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.stage import run_mine
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.stage import run_pack
from stx_mine.stages.train.schedule import Schedule
from stx_mine.stages.train.trainer import train
from stx_mine.store.batches import slot_text_ids, text_columns

K = 8
WARM_ROWS = 256


@dataclass(frozen=True)
class MiniBatch:
    """Of the library's cached loss.

    Attributes:
        texts: Texts of one.
        tokens: Tokens of one, instead; the logits still have so many rows as `texts`.
    """

    texts: int
    tokens: int | None = None

    def __str__(self) -> str:
        return str(self.texts) if self.tokens is None else f"{self.texts}_{self.tokens}_tokens"


@dataclass(frozen=True)
class Sizes:
    """What is trained on.

    Attributes:
        pairs: Pairs at most.
        others: Passages of no pair.
        batches: Rows of a batch, one measured after the other.
        mini_batches: Of the library's loss, the most wanted first.
        seconds: Of an arm, until it ends after the step at hand.
        most_steps: Of an arm.
    """

    pairs: int
    others: int
    batches: tuple[int, ...]
    mini_batches: tuple[MiniBatch, ...]
    seconds: float
    most_steps: int


TRIED = (MiniBatch(1_024), MiniBatch(1_024, 32_768), MiniBatch(256))
FULL = Sizes(45_297, 110_000, (8_192, 32_768), TRIED, 5.0, 5)
QUICK = Sizes(16, 24, (4,), (MiniBatch(8), MiniBatch(8, 64)), 0.1, 2)


@dataclass
class Bench:
    """Batches of one size, and both losses on them.

    Attributes:
        run_dir: The run with mined rows.
        device: cuda or cpu.
        sizes: What is trained on.
    """

    run_dir: Path
    device: str
    sizes: Sizes

    def prepare(self) -> dict[str, Any]:
        """Embed and mine the rows."""
        started = time.perf_counter()
        files = write_rows(self.run_dir.parent, self.sizes.pairs, self.sizes.others)
        run_embed(EmbedConfig(run_dir=self.run, model=MINILM, device=self.device, **files))
        config = MineConfig(
            run_dir=self.run,
            device=self.device,
            search="exact",
            k=K,
            pool=K,
            relative_margin=None,
            negatives_from="corpus",
            short_rows="drop",
        )
        run_mine(config)
        return {"seconds": time.perf_counter() - started}

    @property
    def run(self) -> str:
        """The run directory as configs take it."""
        return str(self.run_dir)

    def pack(self, batch_size: int) -> dict[str, Any]:
        """Pack batches of a size; how many texts one has."""
        config = PackConfig(
            run_dir=self.run, batch_size=batch_size, k=K, packings=1, overwrite=True
        )
        seconds = synchronised_seconds(lambda: run_pack(config), self.device)
        case = self.case()
        table = case.collator.read(0)
        slots = slot_text_ids(table, case.shard.num_negatives)
        started = time.perf_counter()
        distinct = int(case.ours(0)[1]["num_passages"])
        ours_s = time.perf_counter() - started
        return {
            "pack_s": seconds,
            "rows": batch_size,
            "batches": case.num_batches,
            "passage_slots": int((slots >= 0).sum()),
            "distinct_passages": distinct,
            "slots_over_distinct": float((slots >= 0).sum() / distinct),
            "collate_s": ours_s,
        }

    def case(self) -> Case:
        """The packed batches with a fresh model, its network in bfloat16."""
        case = Case(self.run, MINILM, None, self.device)
        accelerator = Accelerator(mixed_precision="bf16", cpu=self.device == "cpu")
        accelerator.prepare_model(case.model, evaluation_mode=True)
        return case

    def ours(self) -> dict[str, Any]:
        """Our loss."""
        case = self.case()
        warm = case.collator.collate(case.collator.read(0).slice(0, WARM_ROWS))
        return self._steps(case, case.ours, split(warm), lambda one: case.loss(*one))

    def cached(self, mini_batch: MiniBatch) -> dict[str, Any]:
        """The loss of the library."""
        case = self.case()
        loss = CachedMultipleNegativesRankingLoss(
            case.model,
            scale=SCALE,
            mini_batch_size=mini_batch.texts,
            mini_batch_num_tokens=mini_batch.tokens,
        )
        names, tokenise = text_columns(case.shard.num_negatives), Tokeniser(case.model)
        table = case.collator.read(0).slice(0, WARM_ROWS)
        warm = [tokenise(table.column(name).to_pylist(), "passage") for name in names]
        return self._steps(case, case.columns, warm, lambda one: loss(one, None))

    def _steps(
        self,
        case: Case,
        prepare: Callable[[int], Any],
        warm: Any,
        loss: Callable[[Any], Tensor],
    ) -> dict[str, Any]:
        """Seconds of steps over prepared batches; on a GPU after one of few rows."""
        optimizer = torch.optim.AdamW(case.model.parameters(), lr=RATE)
        case.model.train()
        losses: list[float] = []

        def step(inputs: Any) -> None:
            value = loss(inputs)
            value.backward()
            nn.utils.clip_grad_norm_(case.model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(float(value.detach()))

        if self.device == "cuda":
            step(self._moved(warm))
        seconds: list[float] = []
        collated: list[float] = []
        with DeviceMemory(self.device) as memory:
            while len(seconds) < self.sizes.most_steps and sum(seconds) < self.sizes.seconds:
                started = time.perf_counter()
                inputs = prepare(len(seconds) % case.num_batches)
                collated.append(time.perf_counter() - started)
                inputs = self._moved(inputs)
                seconds.append(
                    synchronised_seconds(lambda inputs=inputs: step(inputs), self.device)
                )
        median, rows = statistics.median(seconds), case.shard.batch_size
        return {
            "step_s": median,
            "rows_per_s": rows / median,
            "collate_s": statistics.median(collated),
            "steps_s": seconds,
            "losses": losses[-len(seconds) :],
            "peak_device_gb": memory.peak_gb,
        }

    def trainer(self) -> dict[str, Any]:
        """Our Trainer over a few steps."""
        case = Case(self.run, MINILM, None, self.device)
        clock = Clock(case.loss)
        steps = self.sizes.most_steps + 1
        schedule = Schedule(
            num_passes=-(-steps // case.num_batches),
            max_steps=steps,
            learning_rate=RATE,
            warmup=0.1,
            seed=0,
            checkpoint_steps=10_000,
        )
        with tempfile.TemporaryDirectory() as folder, DeviceMemory(self.device) as memory:
            train(
                case.model,
                clock,
                case.packings,
                case.collator,
                schedule,
                Path(folder, "checkpoints"),
                options={"bf16": True},
            )
        found = clock.report()
        rows = case.shard.batch_size / found["seconds"]
        return {**found, "rows_per_s": rows, "peak_device_gb": memory.peak_gb}

    def _moved(self, inputs: Any) -> Any:
        return tree_map(lambda one: one.to(self.device) if isinstance(one, Tensor) else one, inputs)


def main() -> None:
    """Prepare the rows, then measure each batch size."""
    part = Part.of_command_line()
    quiet()
    sizes = QUICK if part.quick else FULL
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder, "run"), part.device, sizes)
        part.measure("rows", bench.prepare)
        if "error" not in part.results["rows"]:
            measure_batches(part, bench)


def measure_batches(part: Part, bench: Bench) -> None:
    """All arms on batches of each size; last what is expected to be the library's slower way."""
    best, *others = bench.sizes.mini_batches
    for size in bench.sizes.batches:
        least = least_seconds(size)
        part.measure(f"{size}_texts", lambda size=size: bench.pack(size), least)
        part.measure(f"{size}_ours", bench.ours, least)
        measure_cached(part, bench, size, best)
        part.measure(f"{size}_ours_trainer", bench.trainer, least)
    for size in reversed(bench.sizes.batches) if others else ():
        part.measure(f"{size}_texts_again", lambda size=size: bench.pack(size), least_seconds(size))
        for mini_batch in others:
            measure_cached(part, bench, size, mini_batch)


def measure_cached(part: Part, bench: Bench, size: int, mini_batch: MiniBatch) -> None:
    """The library's loss, and its step beside that of ours."""
    ours, theirs = f"{size}_ours", f"{size}_cached_{mini_batch}"
    part.measure(theirs, lambda: bench.cached(mini_batch), 2 * least_seconds(size))
    both = [part.results[arm].get("step_s") for arm in (theirs, ours)]
    if None not in both:
        part.keep(f"{theirs}_to_ours", {"ratio": both[0] / both[1]})


def least_seconds(size: int) -> float:
    """Seconds that an arm takes on a GPU with batches of so many rows."""
    return 5 if size < 10_000 else 12


if __name__ == "__main__":
    main()

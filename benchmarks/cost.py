"""What 64 negatives a row cost and bring, against 8 and none: texts and seconds a step, quality.

The library's trainer (MultipleNegativesRankingLoss with k columns of negatives) learns from the
very rows that ours packs: those that have all 64 negatives. Each side trains with each k for the
same number of steps, then for the same time: that of ours with 64. `stx-mine estimate` runs before
anything is packed, and what it foretold stands beside what was measured.

    python -m benchmarks.cost [--quick] [--output benchmarks/results/cost.json]
"""

import argparse
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from sentence_transformers.sentence_transformer.training_args import BatchSamplers
from transformers import PrinterCallback

from benchmarks import machine, peers
from benchmarks.arms import Budget
from benchmarks.datasets import RetrievalSet, load, part_of, write_files
from benchmarks.quality import QUICK_BATCH, QUICK_QUERIES, QUICK_ROWS
from stx_mine.cli import quiet
from stx_mine.models.load import load_model
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.embed.stage import run_embed
from stx_mine.stages.estimate.config import EstimateConfig
from stx_mine.stages.estimate.stage import run_estimate
from stx_mine.stages.export.config import ExportConfig
from stx_mine.stages.export.stage import run_export
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.stage import run_mine
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.stage import run_pack
from stx_mine.stages.train.config import TrainConfig
from stx_mine.stages.train.stage import run_train
from stx_mine.store.artifact import read_manifest
from stx_mine.store.files import read_json

MODEL = "package:wordllama"
KS = (0, 8, 64)
BATCH_SIZE, PASSES, RATE, SEED = 1_024, 2, 0.1, 0
SIDES = ("ours", "library")


@dataclass
class Trained:
    """One training.

    Attributes:
        steps: Optimizer steps.
        seconds: Of all of them, data loading included.
        texts: Texts that went through the model.
        ndcg: nDCG@10 of each test query.
    """

    steps: int
    seconds: float
    texts: int
    ndcg: np.ndarray = field(repr=False)

    def to_json(self) -> dict[str, float]:
        """Means a step, and the mean nDCG@10."""
        return {
            "steps": self.steps,
            "seconds": self.seconds,
            "seconds_a_step": self.seconds / self.steps,
            "texts_a_step": self.texts / self.steps,
            "ndcg@10": float(self.ndcg.mean()),
        }


@dataclass(frozen=True)
class Bench:
    """One set, mined once.

    Attributes:
        set_: The set.
        budget: Batch size, and steps where they are equal.
        run: Our run directory, with negatives and no batches.
        rows: The same rows with 64 columns of negatives.
    """

    set_: RetrievalSet
    budget: Budget
    run: Path
    rows: Dataset

    def train(self, side: str, k: int, steps: int) -> Trained:
        """Train one side with k negatives a row, about `steps` steps."""
        with counted_texts() as texts:
            if side == "ours":
                model, steps, seconds = self._train_ours(k, steps)
            else:
                model, seconds = self._train_library(k, steps)
        scores = peers.evaluate(model, self.set_.test, self.set_.corpus)
        return Trained(steps, seconds, texts[0], scores["ndcg_at_10_per_query"])

    def _train_ours(self, k: int, steps: int) -> tuple[SentenceTransformer, int, float]:
        run = self.run.with_name("trained")
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(self.run, run)
        batches = len(self.rows) // self.budget.batch_size
        passes = max(1, round(steps / batches))
        run_pack(
            PackConfig(run_dir=str(run), batch_size=self.budget.batch_size, k=k, packings=passes)
        )
        run_train(
            TrainConfig(run_dir=str(run), learning_rate=RATE, seed=SEED, checkpoint_steps=1_000_000)
        )
        counts = read_manifest(run / "model").counts
        return load_model(str(run / "model"), "cpu"), counts["steps"], counts["seconds"]

    def _train_library(self, k: int, steps: int) -> tuple[SentenceTransformer, float]:
        model = load_model(MODEL, "cpu")
        columns = ["anchor", "positive", *(f"negative_{j + 1}" for j in range(k))]
        trainer = SentenceTransformerTrainer(
            model=model,
            args=peers.training_arguments(
                steps=steps,
                batch_size=self.budget.batch_size,
                learning_rate=RATE,
                seed=SEED,
                output_dir=self.run.with_name("peer"),
                batch_sampler=BatchSamplers.BATCH_SAMPLER,
            ),
            train_dataset=self.rows.select_columns(columns),
            loss=MultipleNegativesRankingLoss(model, scale=1 / peers.TEMPERATURE),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        seconds = next(
            one["train_runtime"] for one in trainer.state.log_history if "train_runtime" in one
        )
        return model, seconds


@contextmanager
def counted_texts() -> Iterator[list[int]]:
    """Count the texts that static models embed with gradients meanwhile, whoever calls them."""
    plain, texts = StaticEmbedding.forward, [0]

    def forward(self: StaticEmbedding, features: dict, **kwargs: object) -> dict:
        if self.training:
            texts[0] += len(features["offsets"])
        return plain(self, features, **kwargs)

    StaticEmbedding.forward = forward
    try:
        yield texts
    finally:
        StaticEmbedding.forward = plain


def prepare(
    set_: RetrievalSet, batch_size: int, passes: int, folder: Path
) -> tuple[Bench, dict[str, int]]:
    """Embed, mine 64 negatives a row, and export the same rows for the library."""
    write_files(set_, folder / "files")
    files = {name: str(folder / "files" / f"{name}.parquet") for name in ("pairs", "corpus")}
    run = folder / "run"
    run_embed(EmbedConfig(run_dir=str(run), model=MODEL, device="cpu", **files))
    run_mine(
        MineConfig(
            run_dir=str(run),
            k=max(KS),
            pool=max(KS),
            depth=4 * max(KS),
            relative_margin=None,
            closeness=0.7,
            short_rows="drop",
            device="cpu",
        )
    )
    run_export(ExportConfig(run_dir=str(run), to="n-tuple", k=max(KS)))
    rows = Dataset(pq.read_table(run / "exports" / "n-tuple" / "data"))
    names = rows.column_names
    rows = rows.rename_columns(dict(zip(names[:2], ("anchor", "positive"), strict=True)))
    kept = {"pairs": len(set_.train), "rows": len(rows)}
    return Bench(set_, Budget(batch_size, passes, len(rows)), run, rows), kept


def foretell(bench: Bench) -> dict[int, dict[str, float]]:
    """What `stx-mine estimate --time` says of each k before anything is packed."""
    config = EstimateConfig(
        run_dir=str(bench.run), batch_size=bench.budget.batch_size, time=True, device="cpu"
    )
    run_estimate(config)
    cells = read_json(bench.run / "estimates" / "results.json")["cells"]
    return {
        one["k"]: {
            "texts_a_step": one["texts"],
            "texts_a_step_without_sharing": one["texts_without_sharing"],
            "seconds_a_step": one["in_batch"]["seconds_a_step"],
            "gib": one["in_batch"]["bytes"]["total"] / 2**30,
        }
        for one in cells
        if one["batch_size"] == bench.budget.batch_size and one["k"] in KS
    }


def main() -> None:
    """Train every arm and print the table; the last line is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a reduced run of under a minute")
    parser.add_argument("--output", type=Path, help="where to write the full results")
    arguments = parser.parse_args()
    quiet()
    set_, batch_size, passes = load("nl2bash"), BATCH_SIZE, PASSES
    if arguments.quick:
        set_, batch_size, passes = part_of(set_, QUICK_ROWS, QUICK_QUERIES), QUICK_BATCH, 1
    with tempfile.TemporaryDirectory() as folder:
        bench, kept = prepare(set_, batch_size, passes, Path(folder))
        estimated = foretell(bench)
        untrained = peers.evaluate(load_model(MODEL, "cpu"), set_.test, set_.corpus)
        arms = [(side, k) for side in SIDES for k in KS]
        equal_steps = {arm: bench.train(*arm, bench.budget.steps) for arm in arms}
        reference = equal_steps["ours", max(KS)]
        equal_time = {
            (side, k): reference
            if (side, k) == ("ours", max(KS))
            else bench.train(side, k, max(1, round(reference.seconds * one.steps / one.seconds)))
            for (side, k), one in equal_steps.items()
        }
    results = {
        "set": set_.name,
        **kept,
        "batch_size": batch_size,
        "learning_rate": RATE,
        "test_queries": len(set_.test.queries),
        "untrained_ndcg@10": untrained["ndcg_at_10"],
        "arms": [
            {
                "side": side,
                "k": k,
                "equal_steps": equal_steps[side, k].to_json(),
                "equal_time": equal_time[side, k].to_json(),
            }
            for side, k in arms
        ],
        "differences": {
            name: differences(trained)
            for name, trained in (("equal_steps", equal_steps), ("equal_time", equal_time))
        },
        "estimate": [{"k": k, **estimated[k]} for k in KS],
    }
    print_results(results)
    if arguments.output:
        content = {"machine": machine.describe(), "quick": arguments.quick, **results}
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(content, indent=2) + "\n")
    print(json.dumps(headline(results)))


def differences(trained: dict[tuple[str, int], Trained]) -> dict[str, dict[str, float]]:
    """Of the mean nDCG@10 to ours with 8 negatives, with a 95% paired bootstrap interval."""
    base = trained["ours", 8].ndcg
    found = {}
    for (side, k), one in trained.items():
        mean, low, high = peers.difference(one.ndcg, base)
        found[f"{side} {k} - ours 8"] = {"mean": mean, "low": low, "high": high}
    return found


def headline(results: dict) -> dict[str, float]:
    """What 64 negatives cost against 8, and how well it was foretold."""
    by_arm = {(one["side"], one["k"]): one for one in results["arms"]}
    found: dict[str, float] = {}
    for side in SIDES:
        many, few = (by_arm[side, k]["equal_steps"] for k in (64, 8))
        for name in ("texts_a_step", "seconds_a_step"):
            found[f"{side}_{name}_64_to_8"] = round(many[name] / few[name], 2)
        for way in ("equal_steps", "equal_time"):
            for k in KS:
                found[f"{side}_{way}_ndcg@10_{k}"] = round(by_arm[side, k][way]["ndcg@10"], 4)
    for one in results["estimate"]:
        measured = by_arm["ours", one["k"]]["equal_steps"]
        for name in ("texts_a_step", "seconds_a_step"):
            found[f"estimated_to_measured_{name}_{one['k']}"] = round(one[name] / measured[name], 3)
    return found


def print_results(results: dict) -> None:
    """Print the tables."""
    print(
        f"{results['set']}: {results['rows']:,} of {results['pairs']:,} pairs have 64 negatives, "
        f"{results['batch_size']:,} rows a step, {results['test_queries']:,} test queries, "
        f"untrained nDCG@10 {results['untrained_ndcg@10']:.4f}"
    )
    for one in results["arms"]:
        steps, time = one["equal_steps"], one["equal_time"]
        print(
            f"  {one['side']:<8} k={one['k']:<3} {steps['texts_a_step']:>9,.0f} texts "
            f"{steps['seconds_a_step']:>7.3f} s a step; {steps['steps']} steps: "
            f"{steps['ndcg@10']:.4f}; {time['seconds']:.1f} s, {time['steps']} steps: "
            f"{time['ndcg@10']:.4f}"
        )
    for one in results["estimate"]:
        print(
            f"  estimate k={one['k']:<3} {one['texts_a_step']:>9,.0f} texts "
            f"{one['seconds_a_step']:>7.3f} s a step, {one['gib']:.2f} GiB"
        )
    for way, gaps in results["differences"].items():
        for name, gap in gaps.items():
            print(f"  {way} {name}: {gap['mean']:+.4f} [{gap['low']:+.4f}, {gap['high']:+.4f}]")


if __name__ == "__main__":
    main()

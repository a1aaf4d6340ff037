"""What `tune` picks, beside what people would do without it, on a test split that it never saw.

    python -m benchmarks.tune [--quick] [--sets nl2bash wordnet] [--budget 15m]
    python -m benchmarks.tune --output benchmarks/results/tune.json

`tune` chooses on the tune split, from a pipeline with the defaults of `init`. Then these are
trained with each seed and tested once: plain in-batch negatives of sentence-transformers at the
default batch, rate and passes (`mnr`), the same at the batch, rate and passes that tune found (`mnr
as tuned`), our defaults (`k = 8`), and what tune took. A batch of four times the size has a quarter
of the steps. Seconds are those from texts to model, mining included.
"""

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks import machine, peers
from benchmarks.arms import Budget, Workbench
from benchmarks.datasets import NAMES, RetrievalSet, load, write_files
from benchmarks.quality import BOOTSTRAPS, MODELS, reduced
from stx_mine.cli import quiet
from stx_mine.commands import stage_of
from stx_mine.models.load import load_model
from stx_mine.pipeline import load_pipeline, run_pipeline
from stx_mine.stages.init.core.recipe import batch_size_of
from stx_mine.stages.train.core.learning_rate import default_learning_rate
from stx_mine.stages.tune.config import TuneConfig
from stx_mine.stages.tune.stage import run_tune

PASSES, SEEDS = 2, (0, 1, 2)
_MOST = {"static": 2_048, "minilm": 1_024}


def main() -> None:
    """Tune and test every set; the last line is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a reduced run of about a minute")
    parser.add_argument("--model", choices=list(MODELS), default="static")
    parser.add_argument("--sets", nargs="+", choices=NAMES, default=["nl2bash", "wordnet"])
    parser.add_argument("--budget", default="15m", help="of tune, for each set")
    parser.add_argument("--batch-size", type=int, help="of the pipeline (default: that of init)")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--output", type=Path, help="where to write the full results")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.sets, arguments.seeds, arguments.budget = arguments.sets[:1], [0], "20s"
    quiet()
    found: dict[str, Any] = {"machine": machine.describe(), "quick": arguments.quick, "sets": {}}
    for name in arguments.sets:
        found["sets"][name] = run_set(name, arguments)
        print_set(name, found["sets"][name])
        if arguments.output:
            arguments.output.parent.mkdir(parents=True, exist_ok=True)
            arguments.output.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps({name: one["gaps"] for name, one in found["sets"].items()}))


def run_set(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Tune on one set, and test what it took beside the others."""
    set_, setting = load(name), MODELS[arguments.model]
    if arguments.quick:
        set_ = reduced(set_)
    size = arguments.batch_size or batch_size_of(len(set_.train), _MOST[arguments.model])
    with tempfile.TemporaryDirectory() as folder:
        files, run = Path(folder) / "files", Path(folder) / "run"
        write_files(set_, files)
        embed = {"pairs": str(files / "pairs.parquet"), "corpus": str(files / "corpus.parquet")}
        if setting.max_length is not None:
            embed["max_length"] = setting.max_length
        pipeline = {
            "run_dir": str(run),
            "embed": {**embed, "model": setting.name},
            "mine": {"k": 8},
            "pack": {"batch_size": size},
            "train": {"epochs": PASSES, "evaluation": str(files / "tune.parquet")},
        }
        file = Path(folder) / "pipeline.yaml"
        file.write_text(yaml.safe_dump(pipeline, sort_keys=False))
        began = time.perf_counter()
        config = TuneConfig(pipeline=str(file), budget=arguments.budget)
        run_tune(config)
        seconds = time.perf_counter() - began
        tuned = json.loads((run / "tuning" / "results.json").read_text())
        winner = next(one for one in tuned["finalists"] if one["name"] == tuned["taken"])
        taken = yaml.safe_load((run / "tuning" / "tuned.yaml").read_text())
        bench = Workbench(
            set_,
            Budget(size, PASSES, len(set_.train)),
            Path(folder),
            setting.name,
            setting.max_length,
        )
        arms = {
            "mnr": lambda seed: _mnr(bench, size, None, PASSES, seed),
            "mnr as tuned": lambda seed: _mnr(
                bench,
                winner["batch_size"],
                taken["train"].get("learning_rate"),
                taken["train"]["epochs"],
                seed,
            ),
            "k = 8": lambda seed: _ours(bench, pipeline, seed),
            "tuned": lambda seed: _ours(bench, taken, seed),
        }
        results = {}
        for arm, train in arms.items():
            results[arm] = [_tested(set_, *train(seed)) for seed in arguments.seeds]
            means = [one["ndcg@10"] for one in results[arm]]
            print(f"  {name} {arm}: {np.mean(means):.4f}", flush=True)
    untrained = peers.evaluate(bench.base_model(), set_.test, set_.corpus)["ndcg_at_10"]
    return {
        "rows": len(set_.train),
        "corpus": len(set_.corpus),
        "batch_size": size,
        "budget": arguments.budget,
        "tuning_seconds": round(seconds, 1),
        "taken": winner["name"],
        "trials": len(tuned["trials"]),
        "finalists": tuned["finalists"],
        "untrained": untrained,
        "arms": {
            arm: {
                "ndcg@10": float(np.mean([one["ndcg@10"] for one in some])),
                "by_seed": [one["ndcg@10"] for one in some],
                "seconds": float(np.mean([one["seconds"] for one in some])),
            }
            for arm, some in results.items()
        },
        "gaps": _gaps(results),
    }


def _tested(set_: RetrievalSet, model: Any, seconds: float) -> dict[str, Any]:
    scores = peers.evaluate(model, set_.test, set_.corpus)
    return {
        "ndcg@10": scores["ndcg_at_10"],
        "per_query": scores["ndcg_at_10_per_query"],
        "seconds": seconds,
    }


def _mnr(
    bench: Workbench, size: int, rate: float | None, passes: int, seed: int
) -> tuple[Any, float]:
    model = bench.base_model()
    if rate is None:
        parameters = sum(one.numel() for one in model.parameters())
        rate, _ = default_learning_rate(size, parameters, "wordllama" in bench.base)
    began = time.perf_counter()
    trained = peers.train_mnr(
        bench.set_,
        model,
        steps=passes * (len(bench.set_.train) // size),
        batch_size=size,
        learning_rate=rate,
        seed=seed,
        output_dir=bench.folder / "peer",
    )
    return trained, time.perf_counter() - began


def _ours(bench: Workbench, pipeline: dict[str, Any], seed: int) -> tuple[Any, float]:
    """Train by a pipeline from the beginning; what is evaluated meanwhile chooses nothing."""
    run = bench.folder / "tested"
    shutil.rmtree(run, ignore_errors=True)
    own = {key: dict(one) if isinstance(one, dict) else one for key, one in pipeline.items()}
    own["run_dir"] = str(run)
    own["pack"]["seed"] = own["train"]["seed"] = seed
    del own["train"]["evaluation"]
    file = bench.folder / "tested.yaml"
    file.write_text(yaml.safe_dump(own))
    began = time.perf_counter()
    list(run_pipeline(load_pipeline(str(file), []), lambda name, one: stage_of(name)(one)))
    seconds = time.perf_counter() - began
    return load_model(str(run / "model"), "cpu", bench.max_length), seconds


def _gaps(results: dict[str, list[dict[str, Any]]]) -> dict[str, list[float]]:
    """Tuned less each other arm: mean and 95% interval, over queries and seeds, in points."""
    rng = np.random.default_rng(0)
    values = {arm: np.stack([one["per_query"] for one in some]) for arm, some in results.items()}
    found = {}
    for arm in values:
        if arm == "tuned":
            continue
        draws = []
        for _ in range(BOOTSTRAPS):
            num_seeds, num_queries = values["tuned"].shape
            queries = rng.integers(0, num_queries, num_queries)
            means = [
                values[name][rng.integers(0, num_seeds, num_seeds)].mean(0)[queries].mean()
                for name in ("tuned", arm)
            ]
            draws.append(means[0] - means[1])
        low, high = np.quantile(draws, [0.025, 0.975])
        mean = values["tuned"].mean() - values[arm].mean()
        found[f"tuned - {arm}"] = [round(100 * float(one), 2) for one in (mean, low, high)]
    return found


def print_set(name: str, result: dict[str, Any]) -> None:
    """Print what tune took, and the table of one set."""
    print(
        f"{name}: {result['rows']:,} rows, {result['corpus']:,} passages; took "
        f"{result['taken']} after {result['trials']} trials in {result['tuning_seconds']:.0f} s"
    )
    print(f"  untrained         {result['untrained']:.4f}")
    for arm, one in result["arms"].items():
        print(f"  {arm:<17} {one['ndcg@10']:.4f}  {one['seconds']:5.0f} s")
    for pair, (mean, low, high) in result["gaps"].items():
        print(f"  {pair}: {mean:+.2f} [{low:+.2f}, {high:+.2f}] points")


if __name__ == "__main__":
    main()

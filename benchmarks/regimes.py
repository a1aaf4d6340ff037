"""Where mined negatives pay: batch sizes by negatives a row, at equal steps and at equal texts.

    python -m benchmarks.regimes [--quick] [--sets nl2bash wordnet] [--model static]
    python -m benchmarks.regimes --output benchmarks/results/regimes.json

Every cell trains the same base model for the same passes over the same rows, packed anew for each,
at the default rate for its batch size; `longer` is k = 0 for as many more passes as k = 8 embeds
texts (five times, where no text is shared). Measured on the tune split, so that no test score is
seen. Each cell also has what `pack` says of its batches: how much of the corpus a batch holds, and
how often a row's own mined negative is harder than the positives of other rows. A cell is stored as
it ends: the same command continues.
"""

import argparse
import gc
import json
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks import machine, peers
from benchmarks.arms import Budget, Workbench
from benchmarks.datasets import NAMES, load, part_of
from benchmarks.quality import MODELS, QUICK_QUERIES, QUICK_ROWS
from benchmarks.stored_results import read_results
from stx_mine.cli import quiet
from stx_mine.models.load import load_model
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.stage import run_mine
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.stage import run_pack
from stx_mine.stages.train.config import TrainConfig
from stx_mine.stages.train.stage import run_train
from stx_mine.store.artifact import read_manifest

BATCH_SIZES, KS, SEEDS = (64, 256, 1_024, 4_096), (0, 1, 4, 8), (0, 1, 2)
# Texts of a row with k = 8, for each of a row without negatives.
LONGER = 5
FEWEST_STEPS = 5
QUICK_BATCHES, QUICK_KS = (64,), (0, 4)


def main() -> None:
    """Run the cells and print a table a set; the last line is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a reduced run of about a minute")
    parser.add_argument("--model", choices=list(MODELS), default="static")
    parser.add_argument("--sets", nargs="+", choices=NAMES, default=["nl2bash", "wordnet"])
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=list(BATCH_SIZES))
    parser.add_argument("--ks", nargs="+", type=int, default=list(KS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--passes", type=int, default=2)
    parser.add_argument("--output", type=Path, help="where to write the full results")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.batch_sizes, arguments.ks, arguments.seeds = QUICK_BATCHES, QUICK_KS, [0]
        arguments.sets = arguments.sets[:1]
    quiet()
    found = read_results(arguments.output) or {"machine": machine.describe(), "sets": {}}
    for name in arguments.sets:
        run_set(name, arguments, found)
        print_table(found["sets"][name])
    print(json.dumps({name: headline(one) for name, one in found["sets"].items()}))


def run_set(name: str, arguments: argparse.Namespace, found: dict[str, Any]) -> None:
    """All cells of one set that are not stored yet."""
    set_, setting = load(name), MODELS[arguments.model]
    if arguments.quick:
        set_ = part_of(set_, QUICK_ROWS, QUICK_QUERIES)
    label = name if arguments.model == "static" else f"{name}, {arguments.model}"
    cells = found["sets"].setdefault(
        name, {"label": label, "rows": len(set_.train), "corpus": len(set_.corpus), "cells": {}}
    )["cells"]
    with tempfile.TemporaryDirectory() as folder:
        bench = Workbench(
            set_,
            Budget(max(arguments.batch_sizes), arguments.passes, len(set_.train)),
            Path(folder),
            setting.name,
            setting.max_length,
        )
        if "untrained" not in found["sets"][name]:
            base = peers.evaluate(bench.base_model(), set_.tune, set_.corpus)
            found["sets"][name]["untrained"] = base["ndcg_at_10"]
        for size in arguments.batch_sizes:
            if len(set_.train) // size < FEWEST_STEPS:
                continue
            for k, longer in [*((k, False) for k in arguments.ks), (0, True)]:
                for seed in arguments.seeds:
                    key = f"{arguments.model} B={size} k={k}{' longer' * longer} seed={seed}"
                    if key in cells:
                        continue
                    passes = arguments.passes * (LONGER if longer else 1)
                    cells[key] = run_cell(bench, size, k, passes, seed)
                    print(f"  {name} {key}: {cells[key]['ndcg@10']:.4f}", flush=True)
                    if arguments.output:
                        arguments.output.parent.mkdir(parents=True, exist_ok=True)
                        arguments.output.write_text(json.dumps(found, indent=2) + "\n")


def run_cell(
    bench: Workbench,
    size: int,
    k: int,
    passes: int,
    seed: int,
    learning_rate: float | Literal["auto"] = "auto",
) -> dict[str, Any]:
    """One training."""
    run = bench.base_run()
    run_mine(MineConfig(run_dir=str(run), k=k))
    run_pack(
        PackConfig(run_dir=str(run), batch_size=size, packings=passes, seed=seed, overwrite=True)
    )
    hardness = read_manifest(run / "batches").extra["hardness"]
    began = time.perf_counter()
    counts = run_train(
        TrainConfig(
            run_dir=str(run),
            model=bench.base,
            max_length=bench.max_length,
            epochs=passes,
            learning_rate=learning_rate,
            seed=seed,
            checkpoint_steps=1_000_000,
            overwrite=True,
        )
    ).counts
    seconds = time.perf_counter() - began
    model = load_model(str(run / "model"), "cpu", bench.max_length)
    scores = peers.evaluate(model, bench.set_.tune, bench.set_.corpus)
    # A Trainer refers to itself: what it held is free only now.
    gc.collect()
    return {
        "batch_size": size,
        "k": k,
        "passes": passes,
        "seed": seed,
        "steps": counts["steps"],
        "learning_rate": counts["learning_rate"],
        "ndcg@10": scores["ndcg_at_10"],
        "training_seconds": round(seconds, 1),
        "hardness": hardness,
    }


def rows_of(result: dict[str, Any]) -> list[dict[str, Any]]:
    """A row a batch size, k and length: means over seeds, and the deviation of a seed."""
    groups: dict[tuple[int, int, int], list[dict[str, Any]]] = {}
    for cell in result["cells"].values():
        groups.setdefault((cell["batch_size"], cell["passes"], cell["k"]), []).append(cell)
    rows = []
    for (size, passes, k), cells in sorted(groups.items()):
        values = [one["ndcg@10"] for one in cells]
        hardness = cells[0]["hardness"]
        rows.append(
            {
                "batch_size": size,
                "passes": passes,
                "k": k,
                "ndcg@10": float(np.mean(values)),
                "deviation": float(np.std(values, ddof=1)) if len(values) > 1 else None,
                "seeds": len(values),
                "seconds": float(np.mean([one["training_seconds"] for one in cells])),
                "coverage": hardness["positives"] / hardness["passages"],
                "harder": hardness["harder"],
                "other_positive": hardness["other_positive"],
                "own_negative": hardness["own_negative"],
            }
        )
    return rows


def print_table(result: dict[str, Any]) -> None:
    """Print the cells of a set, each beside k = 0 of its batch size."""
    print(f"{result['label']}: {result['rows']:,} rows, {result['corpus']:,} passages")
    rows = rows_of(result)
    short = min(row["passes"] for row in rows)
    base = {row["batch_size"]: row for row in rows if row["k"] == 0 and row["passes"] == short}
    for row in rows:
        gain = row["ndcg@10"] - base[row["batch_size"]]["ndcg@10"]
        print(
            f"  B {row['batch_size']:>5}  k {row['k']:>2}  x{row['passes'] // short}  "
            f"{row['ndcg@10']:.4f} ({gain:+.4f})  {row['seconds']:5.0f} s  "
            f"coverage {row['coverage']:.1%}  harder {row['harder']:.0%}"
        )


def headline(result: dict[str, Any]) -> dict[str, float]:
    """What the most negatives give beside none, by batch size."""
    rows = rows_of(result)
    short, most = min(row["passes"] for row in rows), max(row["k"] for row in rows)
    value = {(row["batch_size"], row["k"], row["passes"]): row["ndcg@10"] for row in rows}
    sizes = sorted({row["batch_size"] for row in rows})
    return {
        f"B={size}": round(value[size, most, short] - value[size, 0, short], 4) for size in sizes
    }


if __name__ == "__main__":
    main()

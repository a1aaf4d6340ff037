"""Which passages should be negatives: those that are a positive of some row, or the whole corpus?

    python -m benchmarks.negatives_from [--quick] [--cases google google:3000:4:128]
    python -m benchmarks.negatives_from --output benchmarks/results/negatives_from.json

A case is a set, with fewer rows where a number follows (SET:ROWS:PASSES:BATCH): its corpus stays
whole, so that fewer of the passages are positives. Static student, k = 8 beside k = 0 at equal
steps, one rate for all, nDCG@10 on the tune split, whose passages are in the corpus but positives
of no training row. A case is stored as it ends: the same command continues.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine, peers
from benchmarks.arms import Budget, Ours, Recipe, Workbench
from benchmarks.datasets import load, part_of
from benchmarks.quality import MODELS, QUICK_QUERIES, QUICK_ROWS
from benchmarks.stored_results import read_results
from stx_mine.cli import quiet
from stx_mine.stages.init.core.recipe import batch_size_of

CASES = (
    "python",
    "google",
    "botocore",
    "nl2bash",
    "wordnet",
    "python:3000:4:128",
    "google:3000:4:128",
    "google:1000:8:64",
    "wordnet:5000:4:256",
)
RATE, PASSES, SEEDS = 0.1, 2, (0, 1)
ARMS = {
    "k = 0": Ours(mine={"k": 0}),
    "positives": Ours(mine={"negatives_from": "positives"}),
    "corpus": Ours(mine={"negatives_from": "corpus"}),
}


def main() -> None:
    """Train and print a line a case; the last line is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a reduced run of about a minute")
    parser.add_argument("--cases", nargs="+", default=list(CASES))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--output", type=Path, help="where to keep the results")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.cases, arguments.seeds = ["nl2bash"], [0]
    quiet()
    found = {"cases": {}} | read_results(arguments.output) | {"machine": machine.describe()}
    for case in arguments.cases:
        if case not in found["cases"]:
            found["cases"][case] = run_case(case, arguments.seeds, arguments.quick)
        print_case(case, found["cases"][case])
        if arguments.output:
            arguments.output.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps({case: gain(one) for case, one in found["cases"].items()}))


def run_case(case: str, seeds: list[int], quick: bool) -> dict[str, Any]:
    """All arms of one case."""
    name, *numbers = case.split(":")
    set_, passes = load(name), PASSES
    size = batch_size_of(len(set_.train), 2_048)
    if quick:
        set_, size = part_of(set_, QUICK_ROWS, QUICK_QUERIES, 2 * QUICK_ROWS), 64
    elif numbers:
        rows, passes, size = map(int, numbers)
        set_ = part_of(set_, rows, len(set_.tune.queries), len(set_.corpus))
    scores: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        budget = Budget(size, passes, len(set_.train))
        bench = Workbench(set_, budget, Path(folder), MODELS["static"].name, None)
        for arm, train in ARMS.items():
            models = (train(bench, Recipe(RATE), seed) for seed in seeds)
            found = (peers.evaluate(one, set_.tune, set_.corpus) for one in models)
            scores[arm] = [one["ndcg_at_10"] for one in found]
    positives = len({passage for _, passage in set_.train})
    return {
        "rows": len(set_.train),
        "corpus": len(set_.corpus),
        "positives": positives,
        "batch_size": size,
        "steps": budget.steps,
        "learning_rate": RATE,
        "ndcg@10": scores,
    }


def gain(result: dict[str, Any]) -> dict[str, float]:
    """Points beside k = 0."""
    means = {arm: float(np.mean(values)) for arm, values in result["ndcg@10"].items()}
    return {
        arm: round(100 * (mean - means["k = 0"]), 2) for arm, mean in means.items() if arm in ARMS
    }


def print_case(case: str, result: dict[str, Any]) -> None:
    """Print the means of a case, and the share of its passages that are positives."""
    share = result["positives"] / result["corpus"]
    words = "  ".join(f"{arm} {np.mean(v):.4f}" for arm, v in result["ndcg@10"].items())
    print(f"{case:<22} {share:4.0%} of {result['corpus']:,} are positives  {words}", flush=True)


if __name__ == "__main__":
    main()

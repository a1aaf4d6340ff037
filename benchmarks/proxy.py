"""Whether a static student tells which policy is the best for a transformer: it would be a proxy.

    python -m benchmarks.proxy [--quick] [--sets nl2bash google]
    python -m benchmarks.proxy --output benchmarks/results/proxy.json

Both students train on the same part of a set by the same policies, 64 rows a step, one pass, each
at the rate that `auto` takes for it. nDCG@10 on the tune split; Spearman's rank correlation of the
policies by set. A training is stored as it ends: the same command continues.
"""

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine, peers
from benchmarks.arms import MERGED_SHARE, TEMPERATURE, Budget, Ours, Recipe, Workbench
from benchmarks.datasets import NAMES, RetrievalSet, load, part_of
from benchmarks.quality import MODELS, QUICK_QUERIES, Setting
from benchmarks.stored_results import read_results
from stx_mine.cli import quiet

ROWS, QUERIES, PASSAGES, QUICK_ROWS = 2_048, 1_000, 4_000, 256
BATCH, K, SEED = 64, 4, 0
# A correlation that a proxy must have on every set.
WANTED = 0.7


@dataclass(frozen=True)
class Policy:
    """What both students are trained with.

    Attributes:
        train: Trains one.
        temperature: Of the loss.
    """

    train: Ours
    temperature: float = TEMPERATURE


POLICIES = {
    "k = 0": Policy(Ours(mine={"k": 0})),
    "k = 1": Policy(Ours(mine={"k": 1})),
    "k = 4": Policy(Ours()),
    "no margin": Policy(Ours(mine={"relative_margin": 0.0})),
    "closeness 0.7": Policy(Ours(mine={"closeness": 0.7, "relative_margin": None})),
    "random of the window": Policy(Ours(mine={"sampling": "random"})),
    "negatives from the corpus": Policy(Ours(mine={"negatives_from": "corpus"})),
    "temperature 0.1": Policy(Ours(), 0.1),
    "merged with the base": Policy(Ours(train={"merge_with_base": MERGED_SHARE})),
}
STUDENTS = {name: MODELS[name] for name in ("static", "minilm")}


def main() -> None:
    """Train and print a line a policy; the last line is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a reduced run of about a minute")
    parser.add_argument("--sets", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--output", type=Path, help="where to keep the results")
    arguments = parser.parse_args()
    quiet()
    found = {"sets": {}} | read_results(arguments.output) | {"machine": machine.describe()}
    for name in arguments.sets[:1] if arguments.quick else arguments.sets:
        set_ = part_of(load(name), ROWS, QUERIES, PASSAGES)
        policies = list(POLICIES)
        if arguments.quick:
            set_ = part_of(set_, QUICK_ROWS, QUICK_QUERIES)
            policies = ["k = 0", "k = 4", "temperature 0.1"]
        scores = found["sets"].setdefault(name, {})
        for student, setting in STUDENTS.items():
            known = scores.setdefault(student, {})
            with tempfile.TemporaryDirectory() as folder:
                bench = workbench(set_, setting, Path(folder))
                for policy in [one for one in policies if one not in known]:
                    known[policy] = trained(bench, POLICIES[policy])
                    print(
                        f"{name}, {student}, {policy}: {known[policy]['ndcg@10']:.4f}", flush=True
                    )
                    if arguments.output:
                        arguments.output.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps({name: correlation(scores) for name, scores in found["sets"].items()}))


def workbench(set_: RetrievalSet, setting: Setting, folder: Path) -> Workbench:
    """What all policies of a student share."""
    budget = Budget(BATCH, 1, len(set_.train))
    return Workbench(
        set_,
        budget,
        folder,
        setting.name,
        setting.max_length,
        K,
        setting.precision,
    )


def trained(bench: Workbench, policy: Policy) -> dict[str, float]:
    """nDCG@10 on the tune split, and processor seconds of the training."""
    began = time.process_time()
    recipe = Recipe(bench.default_rate(BATCH, bench.budget.steps), policy.temperature)
    model = policy.train(bench, recipe, SEED)
    seconds = time.process_time() - began
    set_ = bench.set_
    score = peers.evaluate(model, set_.tune, set_.corpus)["ndcg_at_10"]
    return {"ndcg@10": score, "processor_seconds": round(seconds, 1)}


def correlation(scores: dict[str, dict[str, Any]]) -> dict[str, float | bool] | None:
    """Spearman's over the policies that both students have; None below three."""
    both = [one for one in scores["static"] if one in scores.get("minilm", {})]
    if len(both) < 3:
        return None
    ranks = [
        np.argsort(np.argsort([scores[student][one]["ndcg@10"] for one in both]))
        for student in STUDENTS
    ]
    found = float(np.corrcoef(ranks)[0, 1])
    best = max(both, key=lambda one: scores["static"][one]["ndcg@10"])
    of_minilm = [scores["minilm"][one]["ndcg@10"] for one in both]
    return {
        "policies": len(both),
        "spearman": round(found, 2),
        "offered": found >= WANTED,
        # Points that MiniLM loses by the policy that is the best for the static student.
        "lost": round(100 * (max(of_minilm) - scores["minilm"][best]["ndcg@10"]), 2),
    }


if __name__ == "__main__":
    main()

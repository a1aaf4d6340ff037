"""Merged weights: a tuned model with its base, models of several seeds, models of two rounds.

A static student is trained on nl2bash (shell commands) as stx-mine trains by default, and every
model is measured there and on sets of other domains that no training saw: xquad-en (questions
about Wikipedia) and WordNet. Rounds train the base model anew with the negatives that the model
before mined, each with the full budget. `auto` is `train --merge-with-base auto` on the tune split.

    python -m benchmarks.merging [--quick] [--output benchmarks/results/merging.json]
"""

import argparse
import json
import shutil
import tempfile
import time
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from benchmarks import machine, peers
from benchmarks.arms import Budget, Ours, Recipe, Workbench
from benchmarks.datasets import Split, beir_set, load, part_of
from benchmarks.quality import QUICK_BATCH, QUICK_QUERIES, QUICK_ROWS
from stx_mine.cli import quiet
from stx_mine.models.load import load_model
from stx_mine.stages.merge.config import MergeConfig
from stx_mine.stages.merge.stage import run_merge
from stx_mine.store.artifact import read_manifest

TRAINED, BASE = "nl2bash", "package:wordllama"
SEEDS, ALPHAS = (0, 1, 2), (0.3, 0.5, 0.7)
PASSES, BATCH_SIZE, RATE = 4, 1_024, 0.1
# Arms whose difference to another one is told: (the one, the other).
COMPARED = (
    *((f"merged {alpha:g}", other) for alpha in ALPHAS for other in ("base", "tuned")),
    *(("merged auto", other) for other in ("base", "tuned")),
    *((f"{name} soup", "tuned") for name in ("seeds", "all seeds")),
    *(("rounds soup", other) for other in ("tuned", "round 2")),
)


@dataclass
class Measured:
    """Every model on every set.

    Attributes:
        sets: Name -> the split and the passages to search.
        scores: Set -> arm -> nDCG@10 of each query, an array a run.
    """

    sets: dict[str, tuple[Split, list[str]]]
    scores: dict[str, dict[str, list[NDArray[np.float64]]]] = field(default_factory=dict)

    def add(self, arm: str, model: SentenceTransformer | Path | str) -> None:
        """Measure one more model of an arm."""
        own = model if isinstance(model, SentenceTransformer) else load_model(str(model), "cpu")
        for name, (split, corpus) in self.sets.items():
            found = peers.evaluate(own, split, corpus)["ndcg_at_10_per_query"]
            self.scores.setdefault(name, {}).setdefault(arm, []).append(found)

    def summary(self) -> dict[str, dict[str, object]]:
        """Of each set: means by arm and run, and differences of arms, over their runs."""
        found: dict[str, dict[str, object]] = {}
        for name, arms in self.scores.items():
            of_query = {arm: np.mean(runs, axis=0) for arm, runs in arms.items()}
            gaps = {}
            for one, other in COMPARED:
                if one in of_query and other in of_query:
                    mean, low, high = peers.difference(of_query[one], of_query[other])
                    gaps[f"{one} - {other}"] = {"mean": mean, "low": low, "high": high}
            found[name] = {
                "queries": len(next(iter(of_query.values()))),
                "ndcg@10": {arm: float(values.mean()) for arm, values in of_query.items()},
                "by_run": {arm: [float(one.mean()) for one in runs] for arm, runs in arms.items()},
                "differences": gaps,
            }
        return found


def main() -> None:
    """Train, merge, measure; the last line is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a reduced run of about a minute")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--output", type=Path, help="where to write the full results")
    arguments = parser.parse_args()
    quiet()
    started = time.perf_counter()
    seeds = arguments.seeds[:2] if arguments.quick else arguments.seeds
    with tempfile.TemporaryDirectory() as folder:
        measured, alphas = run(Path(folder), seeds, arguments.quick)
    results = measured.summary()
    if arguments.output:
        content = {
            "machine": machine.describe(),
            "quick": arguments.quick,
            "trained_on": TRAINED,
            "model": BASE,
            "passes": PASSES,
            "learning_rate": RATE,
            "seeds": seeds,
            "auto_alphas": alphas,
            "seconds": round(time.perf_counter() - started),
            "sets": results,
        }
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(content, indent=2) + "\n")
    for name, result in results.items():
        print_set(name, result)
    print(json.dumps({name: headline(result) for name, result in results.items()}))


def run(folder: Path, seeds: list[int], quick: bool) -> tuple[Measured, list[float]]:
    """All arms; the shares that auto took come with them."""
    set_ = load(TRAINED)
    batch_size = BATCH_SIZE
    if quick:
        set_, batch_size = part_of(set_, QUICK_ROWS, QUICK_QUERIES), QUICK_BATCH
    sets = {TRAINED: (set_.test, set_.corpus), "xquad-en": beir_set("xquad-en")}
    if not quick:
        wordnet = load("wordnet")
        sets["wordnet"] = (wordnet.test, wordnet.corpus)
    bench = Workbench(set_, Budget(batch_size, PASSES, len(set_.train)), folder, BASE, None)
    measured, alphas = Measured(sets), list[float]()
    measured.add("base", BASE)
    for seed in seeds:
        models = trained(bench, seed)
        for arm, model in models.items():
            measured.add(arm, model)
        for alpha in ALPHAS:
            to = folder / f"merged-{alpha:g}-{seed}"
            measured.add(f"merged {alpha:g}", merged([models["tuned"], BASE], to, alpha))
        to = folder / f"rounds-{seed}"
        measured.add("rounds soup", merged([models["tuned"], models["round 2"]], to))
        alphas.append(auto_share(bench))
        print(f"  seed {seed}: {shares(measured)}", flush=True)
    tuned = [folder / f"tuned-{seed}" for seed in seeds]
    for number, pair in enumerate(combinations(tuned, 2)):
        measured.add("seeds soup", merged(list(pair), folder / f"soup-{number}"))
    if len(tuned) > 2:
        measured.add("all seeds soup", merged(tuned, folder / "soup-all"))
    return measured, alphas


def trained(bench: Workbench, seed: int) -> dict[str, Path | SentenceTransformer]:
    """The model of round 1 (tuned), that of round 2, and round 1 merged with its base by auto."""
    kept = {name: bench.folder / f"{name}-{seed}" for name in ("tuned", "round 2")}
    twice = replace(bench.budget, passes=2 * PASSES)
    second = Ours(rounds=2)(replace(bench, budget=twice), Recipe(RATE), seed)
    shutil.copytree(bench.folder / "ours" / "model", kept["tuned"])
    second.save_pretrained(str(kept["round 2"]), create_model_card=False)
    files = bench.folder / "files"
    watched = {
        "evaluation": (str(files / "tune.parquet"),),
        "evaluation_corpus": str(files / "corpus.parquet"),
        # The last weights, as those of the other arms.
        "evaluation_steps": 1_000_000,
        "patience": 0,
        "merge_with_base": "auto",
    }
    return {**kept, "merged auto": Ours(train=watched)(bench, Recipe(RATE), seed)}


def auto_share(bench: Workbench) -> float:
    """The share of the trained weights that the last training took."""
    manifest = read_manifest(bench.folder / "ours" / "model")
    return float(manifest.extra["merged_with_base"]["alpha"])


def merged(models: list[Path | SentenceTransformer | str], to: Path, alpha: float = 0.5) -> Path:
    """The linear merge: the first has this share of two; several have equal ones."""
    weights = (alpha, 1 - alpha) if len(models) == 2 else ()
    run_merge(MergeConfig(models=tuple(map(str, models)), weights=weights, to=str(to)))
    return to


def shares(measured: Measured) -> str:
    """The last run of each arm, on all sets."""
    return json.dumps(
        {
            name: {arm: round(float(runs[-1].mean()), 4) for arm, runs in arms.items()}
            for name, arms in measured.scores.items()
        }
    )


def headline(result: dict[str, object]) -> dict[str, float]:
    """nDCG@10 of each arm."""
    means = result["ndcg@10"]
    assert isinstance(means, dict)
    return {arm: round(value, 4) for arm, value in means.items()}


def print_set(name: str, result: dict[str, object]) -> None:
    """Print the table of one set."""
    means, gaps = result["ndcg@10"], result["differences"]
    assert isinstance(means, dict)
    assert isinstance(gaps, dict)
    print(f"{name}: {result['queries']} test queries")
    for arm, value in means.items():
        print(f"  {arm:<14} {value:.4f}")
    for pair, gap in gaps.items():
        print(f"  {pair}: {gap['mean']:+.4f} [{gap['low']:+.4f}, {gap['high']:+.4f}]")


if __name__ == "__main__":
    main()

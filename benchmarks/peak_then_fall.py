"""Retrieval that peaks early and falls, because titles are trained and questions are judged.

The passages are the paragraphs of xquad-en and descriptions of Debian packages. The evaluation is
real: the questions of xquad-en, over all these passages. Two sets of training pairs have the same
passages; they differ in the anchors:

- *titles*: what comes with the passages. Synopsis and first sentence of a description; name of
  the article and first sentence of a paragraph.
- *queries*: `stx-mine queries --method crop --method keywords --remove-share 0.9`.

Each is embedded, mined, packed (k = 0) and trained by the stages of the product, at 0.2, which the
recipe of sentence-transformers for static models gives batches of 2,048, and at the rate of
`--learning-rate auto`: once without evaluation data, so that the last weights stay, and once with
the tune half of the questions as `--evaluation`, so that the best ones are kept. The curve is that
of the tune half, the other figures those of the test half; the diagnoses are those of `train`.

    python -m benchmarks.peak_then_fall [--quick] [--seeds 0 1 2]
"""

import argparse
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks import machine, packages, peers
from benchmarks.datasets import (
    RetrievalSet,
    Split,
    beir_folder,
    read_beir_qrels,
    write_files,
    write_pairs,
)
from benchmarks.wheels import Pair
from stx_mine.cli import quiet
from stx_mine.core.terms import sentences
from stx_mine.models.load import load_model
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.embed.stage import run_embed
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.stage import run_mine
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.stage import run_pack
from stx_mine.stages.queries.config import QueriesConfig
from stx_mine.stages.queries.stage import run_queries
from stx_mine.stages.train.config import TrainConfig
from stx_mine.stages.train.stage import run_train
from stx_mine.store.artifact import Manifest, read_manifest
from stx_mine.store.training_log import TRAINING_LOG, read_log

MODEL = "package:wordllama"
# https://huggingface.co/blog/static-embeddings
RECIPE = 0.2
ARMS, RATES = ("titles", "queries"), (RECIPE, "auto")
VALIDATION_SHARE = 0.05


@dataclass(frozen=True)
class Size:
    """How much is done.

    Attributes:
        packages: Descriptions beside the paragraphs.
        batch_size: Rows a step.
        steps: Optimizer steps, about: whole passes.
        evaluations: Looks at the tune half, about.
    """

    packages: int
    batch_size: int
    steps: int
    evaluations: int


FULL, QUICK = Size(10_000, 256, 240, 20), Size(300, 64, 24, 4)


def read_xquad() -> tuple[list[Pair], Split]:
    """(article, paragraph) of each passage, and the questions."""
    folder = beir_folder("xquad-en")

    def rows(name: str) -> list[dict[str, str]]:
        return [json.loads(line) for line in (folder / name).read_text("utf-8").splitlines()]

    corpus = rows("corpus.jsonl")
    places = {one["_id"]: place for place, one in enumerate(corpus)}
    questions = {one["_id"]: one["text"] for one in rows("queries.jsonl")}
    answers: dict[str, set[int]] = {}
    for question, passage, _ in read_beir_qrels(folder, "test"):
        answers.setdefault(questions[question], set()).add(places[passage])
    pairs = [(one["title"].replace("_", " "), one["text"]) for one in corpus]
    return pairs, Split(list(answers), list(answers.values()))


def halves(split: Split, rng: np.random.Generator) -> tuple[Split, Split]:
    """A split cut in two at random."""
    order = rng.permutation(len(split.queries))
    one, two = (
        Split([split.queries[n] for n in half], [split.positives[n] for n in half])
        for half in np.array_split(order, 2)
    )
    return one, two


def first_sentence(text: str) -> str:
    """The first sentence of a text."""
    start, end = sentences(text)[0]
    return text[start:end]


def gather(size: Size, folder: Path, seed: int) -> dict[str, RetrievalSet]:
    """Read the passages, and make both kinds of anchors."""
    paragraphs, questions = read_xquad()
    titles = {text: [article, first_sentence(text)] for article, text in paragraphs}
    described: dict[str, list[str]] = {}
    for number, (title, text) in enumerate(packages.load()):
        # "name: synopsis" repeats the synopsis.
        if number % 3 < 2 and ". " in text:
            described.setdefault(text, []).append(title)
    rng = np.random.default_rng(seed)
    descriptions = list(described)
    for place in np.sort(rng.choice(len(described), size.packages, replace=False)).tolist():
        titles[descriptions[place]] = described[descriptions[place]][:2]
    tune, test = halves(questions, rng)
    given = [(title, text) for text, some in titles.items() for title in some if title != text]
    pairs = {"titles": given, "queries": made_queries(list(titles), folder)}
    return {arm: RetrievalSet(arm, pairs[arm], list(titles), tune, test) for arm in ARMS}


def made_queries(passages: list[str], folder: Path) -> list[Pair]:
    """Pairs of the passages by `stx-mine queries`."""
    write_pairs([(first_sentence(one), one) for one in passages], folder / "titled.parquet")
    run_queries(
        QueriesConfig(
            run_dir=str(folder / "made"),
            pairs=str(folder / "titled.parquet"),
            method=("crop", "keywords"),
            remove_share=0.9,
        )
    )
    rows = pq.read_table(folder / "made/queries/pairs.parquet").to_pylist()
    return [(row["query"], row["passage"]) for row in rows]


@dataclass(frozen=True)
class Trained:
    """One arm at one rate.

    Attributes:
        log: The lines of the training log, with the evaluations on the tune half.
        manifest: Of the model, with the diagnoses.
        last: nDCG@10 of each test question with the last weights.
        kept: With those that early stopping keeps.
    """

    log: list[dict[str, Any]]
    manifest: Manifest
    last: np.ndarray
    kept: np.ndarray

    def to_json(self, untrained: np.ndarray) -> dict[str, Any]:
        """The figures."""
        curve = {
            line["step"]: line["evaluations"]["tune"]["ndcg@10"]
            for line in self.log
            if "evaluations" in line
        }
        peak = max(curve, key=lambda step: curve[step])
        losses = [line["validation_loss"] for line in self.log if "validation_loss" in line]
        return {
            "steps": self.manifest.counts["steps"],
            "tune": {
                "untrained": curve[0],
                "peak": curve[peak],
                "peak_step": peak,
                "last": curve[max(curve)],
            },
            "test": {
                "last": float(self.last.mean()),
                "kept": float(self.kept.mean()),
                "last_to_untrained": peers.difference(self.last, untrained),
                "kept_to_untrained": peers.difference(self.kept, untrained),
            },
            "validation_loss": [losses[0], min(losses), losses[-1]],
            "curve": curve,
            "diagnoses": self.manifest.extra["diagnoses"],
        }


def train(
    set_: RetrievalSet, size: Size, folder: Path, seed: int
) -> Iterator[tuple[float | str, Trained]]:
    """Train one arm at each rate; yields the rate too."""
    files, run = folder / f"{set_.name}-files", folder / set_.name
    write_files(set_, files)
    corpus = str(files / "corpus.parquet")
    run_embed(
        EmbedConfig(
            run_dir=str(run), model=MODEL, pairs=str(files / "pairs.parquet"), corpus=corpus
        )
    )
    run_mine(MineConfig(run_dir=str(run), k=1))
    passes = max(1, round(size.steps / (len(set_.train) // size.batch_size)))
    run_pack(
        PackConfig(
            run_dir=str(run),
            batch_size=size.batch_size,
            k=0,
            packings=passes,
            seed=seed,
        )
    )
    for rate in RATES:
        common = {
            "run_dir": str(run),
            "learning_rate": rate,
            "validation_share": VALIDATION_SHARE,
            "checkpoint_steps": 1_000_000,
            "seed": seed,
            "overwrite": True,
        }
        run_train(TrainConfig(**common))
        last = measure(run / "model", set_)
        run_train(
            TrainConfig(
                **common,
                evaluation=(str(files / "tune.parquet"),),
                evaluation_corpus=corpus,
                evaluation_steps=max(1, size.steps // size.evaluations),
                patience=0,
            )
        )
        manifest, log = read_manifest(run / "model"), read_log(run / "model" / TRAINING_LOG)
        yield rate, Trained(log, manifest, last, measure(run / "model", set_))
    shutil.rmtree(run)


def measure(model: Path | str, set_: RetrievalSet) -> np.ndarray:
    """nDCG@10 of each test question."""
    found = peers.evaluate(load_model(str(model), "cpu"), set_.test, set_.corpus)
    return found["ndcg_at_10_per_query"]


def run(size: Size, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """All arms, rates and seeds."""
    results = []
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            sets = gather(size, Path(folder), seed)
            untrained = measure(MODEL, sets[ARMS[0]])
            for arm in ARMS:
                for rate, trained in train(sets[arm], size, Path(folder), seed):
                    one = {"arm": arm, "pairs": len(sets[arm].train), "rate": rate, "seed": seed}
                    one["untrained"] = float(untrained.mean())
                    results.append(one | trained.to_json(untrained))
                    show(results[-1])
    return results


def show(one: dict[str, Any]) -> None:
    """Print one training for a person."""
    tune, test = one["tune"], one["test"]
    losses = " -> ".join(f"{loss:.3f}" for loss in one["validation_loss"])
    print(
        f"{one['arm']:<8} rate {one['rate']} seed {one['seed']}, {one['steps']} steps; tune: "
        f"{tune['untrained']:.4f}, peak {tune['peak']:.4f} at step {tune['peak_step']}, last "
        f"{tune['last']:.4f}; test: untrained {one['untrained']:.4f}, last {test['last']:.4f}, "
        f"kept {test['kept']:.4f}; validation loss {losses}"
    )
    print("  " + " ".join(f"{step}:{value:.3f}" for step, value in one["curve"].items()))
    for sentence in one["diagnoses"]:
        print(f"  {sentence}", flush=True)


def headline(results: list[dict[str, Any]]) -> dict[str, float]:
    """Means over the seeds, by arm and rate: to the untrained model, on the test half."""
    found: dict[str, float] = {}
    for arm in ARMS:
        for rate in RATES:
            some = [one for one in results if (one["arm"], one["rate"]) == (arm, rate)]
            for kind in ("last", "kept"):
                gains = [one["test"][f"{kind}_to_untrained"][0] for one in some]
                found[f"{arm}_{rate}_{kind}"] = round(float(np.mean(gains)), 4)
            said = [len(one["diagnoses"]) for one in some]
            found[f"{arm}_{rate}_diagnoses"] = round(float(np.mean(said)), 1)
    return found


def main() -> None:
    """Run the benchmark; the last line is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a reduced run of under a minute")
    parser.add_argument("--seeds", nargs="+", type=int)
    parser.add_argument("--output", type=Path, help="where to write the full results")
    arguments = parser.parse_args()
    quiet()
    size = QUICK if arguments.quick else FULL
    results = run(size, arguments.seeds or ([0] if arguments.quick else [0, 1, 2]))
    if arguments.output:
        content = {
            "machine": machine.describe(),
            "quick": arguments.quick,
            "model": MODEL,
            "size": asdict(size),
            "runs": results,
        }
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(content, indent=2) + "\n")
    print(json.dumps(headline(results)))


if __name__ == "__main__":
    main()

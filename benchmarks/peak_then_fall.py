"""Retrieval that peaks early and falls, because titles are trained and questions are judged.

The passages are the paragraphs of xquad-en and descriptions of Debian packages. The evaluation is
real: the questions of xquad-en, over all these passages. Two sets of training pairs have the very
same passages and as many pairs; they differ in the anchors alone:

- *titles*: what comes with the passages. Synopsis and first sentence of a description; name of
  the article and first sentence of a paragraph.
- *queries*: `stx-mine queries --method crop --method keywords --remove-share 0.9`.

Each is trained at the plain learning rate (the default of `stx-mine train`) and at a tenth of it.
The curve is measured on the test half of the questions; what early stopping would keep is chosen on
the other half. `diagnose` reads the log of each run.

    python -m benchmarks.peak_then_fall [--quick] [--seeds 0 1 2]
"""

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks import machine, packages
from benchmarks.datasets import ROOT, Pair, write_pairs
from stx_mine.cli import quiet
from stx_mine.config import QueriesConfig
from stx_mine.core.metrics import retrieval_metrics
from stx_mine.core.terms import sentences
from stx_mine.core.titles import TitleShares, title_shares
from stx_mine.models.load import load_model
from stx_mine.ragged import ragged_sets
from stx_mine.stages.queries import run_queries
from stx_mine.train.diagnose import diagnose
from stx_mine.train.learning_rate import default_learning_rate

MODEL = "package:wordllama"
TEMPERATURE, WARMUP = 0.05, 0.1
HELD_BACK = 256
PATIENCE = 3
LOWER = 0.1


@dataclass(frozen=True)
class Size:
    """How much is done.

    Attributes:
        packages: Descriptions beside the paragraphs.
        batch_size: Rows a step; no passage twice in a batch.
        steps: Optimizer steps.
    """

    packages: int
    batch_size: int
    steps: int


FULL, QUICK = Size(2_000, 256, 120), Size(1_200, 256, 40)


@dataclass(frozen=True)
class Questions:
    """Questions, and the passage that answers each, by its place among the passages."""

    texts: list[str]
    answers: NDArray[np.int64]


@dataclass(frozen=True)
class Material:
    """Everything that the runs have in common.

    Attributes:
        passages: Distinct passages.
        tune: Questions that early stopping looks at.
        test: Questions that are reported.
        pairs: Arm -> (anchor, positive) of each passage, at least one each.
    """

    passages: list[str]
    tune: Questions
    test: Questions
    pairs: dict[str, list[list[Pair]]]

    def texts(self, arm: str) -> list[str]:
        """All distinct texts that a run of an arm sees."""
        trained = (text for some in self.pairs[arm] for pair in some for text in pair)
        return list(dict.fromkeys([*self.passages, *self.tune.texts, *self.test.texts, *trained]))


def read_xquad() -> tuple[list[Pair], list[str], list[str], list[str]]:
    """(article, paragraph), ids of the paragraphs, questions, and the id that answers each."""
    folder = Path(os.environ.get("STX_DATA", ROOT.parent / "shared" / "data")) / "xquad-en"
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is missing: set STX_DATA to the folder that holds it")

    def rows(name: str) -> list[dict[str, str]]:
        return [json.loads(line) for line in (folder / name).read_text("utf-8").splitlines()]

    corpus, queries = (
        rows("corpus.jsonl"),
        {one["_id"]: one["text"] for one in rows("queries.jsonl")},
    )
    lines = (folder / "qrels" / "test.tsv").read_text("utf-8").splitlines()[1:]
    judged = [line.split("\t")[:2] for line in lines]
    pairs = [(one["title"].replace("_", " "), one["text"]) for one in corpus]
    return (
        pairs,
        [one["_id"] for one in corpus],
        [queries[query] for query, _ in judged],
        [passage for _, passage in judged],
    )


def first_sentence(text: str) -> str:
    """The first sentence of a text."""
    start, end = sentences(text)[0]
    return text[start:end]


def gather(size: Size, folder: Path, seed: int) -> Material:
    """Read the passages, make both kinds of anchors."""
    paragraphs, ids, questions, answers = read_xquad()
    titles: dict[str, list[str]] = {}
    for article, text in paragraphs:
        titles[text] = [article, first_sentence(text)]
    described: dict[str, list[str]] = {}
    for number, (title, text) in enumerate(packages.load()):
        # "name: synopsis" repeats the synopsis.
        if len(sentences(text)) > 1 and number % 3 < 2:
            described.setdefault(text, []).append(title)
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(described), size.packages, replace=False)
    descriptions = list(described)
    for place in sorted(chosen.tolist()):
        titles[descriptions[place]] = described[descriptions[place]][:2]
    place_of = {name: number for number, name in enumerate(ids)}
    order = rng.permutation(len(questions))
    halves = [
        Questions([questions[n] for n in half], np.array([place_of[answers[n]] for n in half]))
        for half in np.array_split(order, 2)
    ]
    given = [[(one, text) for one in some] for text, some in titles.items()]
    pairs = {"titles": given, "queries": made_queries(given, folder)}
    return Material(list(titles), *halves, pairs)


def made_queries(given: list[list[Pair]], folder: Path) -> list[list[Pair]]:
    """Pairs of each passage by `stx-mine queries`; passages that get none keep their titles."""
    write_pairs([some[0] for some in given], folder / "titled.parquet")
    config = QueriesConfig(
        run_dir=str(folder / "run"),
        pairs=str(folder / "titled.parquet"),
        method=("crop", "keywords"),
        remove_share=0.9,
    )
    run_queries(config)
    found: list[list[Pair]] = [[] for _ in given]
    for row in pq.read_table(folder / "run/queries/pairs.parquet").to_pylist():
        found[row["source_row"]].append((row["query"], row["passage"]))
    return [made or some for made, some in zip(found, given, strict=True)]


class StaticModel(nn.Module):
    """The table of token embeddings of a static model, of the tokens that occur.

    Rows of other tokens would get no gradient, and only make Adam slower.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        super().__init__()
        module = load_model(MODEL, "cpu")[0]
        encoded = module.tokenizer.encode_batch(list(texts), add_special_tokens=False)
        used, places = np.unique(np.concatenate([one.ids for one in encoded]), return_inverse=True)
        cuts = np.cumsum([len(one.ids) for one in encoded])[:-1]
        self.ids = {
            text: torch.from_numpy(part)
            for text, part in zip(texts, np.split(places, cuts), strict=True)
        }
        weights = module.embedding.weight.detach()[torch.from_numpy(used)].clone()
        self.table = nn.EmbeddingBag.from_pretrained(weights, freeze=False, mode="mean")

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors, float32 (texts, dimensions)."""
        ids = [self.ids[text] for text in texts]
        offsets = torch.tensor([0, *map(len, ids[:-1])]).cumsum(0)
        return nn.functional.normalize(self.table(torch.cat(ids), offsets), dim=1)


def ranking_loss(model: StaticModel, pairs: list[Pair]) -> Tensor:
    """Multiple negatives ranking: softmax of each anchor over the positives of the batch."""
    anchors, positives = (model(list(column)) for column in zip(*pairs, strict=True))
    return nn.functional.cross_entropy(
        anchors @ positives.T / TEMPERATURE, torch.arange(len(anchors))
    )


def batches(
    pairs: list[list[Pair]], kept: NDArray[np.int64], size: Size, rng: np.random.Generator
) -> list[list[Pair]]:
    """The pairs of each step: each passage once a pass, with one of its pairs at random."""
    found: list[list[Pair]] = []
    while len(found) < size.steps:
        order = rng.permutation(kept)
        for start in range(0, len(order) - size.batch_size + 1, size.batch_size):
            found.append(drawn(pairs, order[start : start + size.batch_size], rng))
    return found[: size.steps]


def drawn(
    pairs: list[list[Pair]], places: NDArray[np.int64], rng: np.random.Generator
) -> list[Pair]:
    """One pair of each passage."""
    return [pairs[place][rng.integers(len(pairs[place]))] for place in places]


def measured_steps(steps: int) -> list[int]:
    """Dense in the first fifth of the training, then every tenth of it."""
    early = np.linspace(0, steps / 5, 9)
    late = np.linspace(steps / 5, steps, 9)
    return sorted({round(step) for step in (*early, *late)})


@torch.inference_mode()
def measure(model: StaticModel, material: Material, held_back: list[Pair]) -> dict[str, Any]:
    """What the log holds of a step, and nDCG@10 on the tune half."""
    passages = model(material.passages)
    anchors, positives = (list(column) for column in zip(*held_back, strict=True))
    cosines = model(anchors) @ model(positives).T
    loss = ranking_loss(model, held_back)
    means = {"positive": cosines.diagonal().mean(), "random": cosines.roll(1, 0).diagonal().mean()}
    metrics = {}
    for name, questions in (("test", material.test), ("tune", material.tune)):
        scores = model(questions.texts) @ passages.T
        ranked = scores.topk(100).indices.numpy()
        rows = np.arange(len(ranked))
        relevant = ragged_sets(rows, questions.answers, len(ranked))
        found = retrieval_metrics(ranked, relevant)
        metrics[name] = {metric: float(values.mean()) for metric, values in found.items()}
    return {
        "validation_loss": float(loss),
        "cosine": {kind: {"mean": float(mean)} for kind, mean in means.items()},
        "evaluations": {"xquad-en": metrics["test"]},
        "tune": metrics["tune"]["ndcg@10"],
    }


def train(material: Material, arm: str, size: Size, rate: float, seed: int) -> list[dict[str, Any]]:
    """Train one model; its log."""
    rng = np.random.default_rng(seed)
    pairs, model = material.pairs[arm], StaticModel(material.texts(arm))
    order = rng.permutation(len(pairs))
    held_back = drawn(pairs, order[:HELD_BACK], rng)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    warm = max(1, round(WARMUP * size.steps))
    log = [{"step": 0, **measure(model, material, held_back)}]
    wanted = set(measured_steps(size.steps))
    for step, batch in enumerate(batches(pairs, order[HELD_BACK:], size, rng), 1):
        left = (size.steps - step) / max(size.steps - warm, 1)
        now = rate * (step / warm if step <= warm else left)
        optimizer.param_groups[0]["lr"] = now
        loss = ranking_loss(model, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        entry: dict[str, Any] = {"step": step, "learning_rate": now, "loss": loss.item()}
        log.append(entry | (measure(model, material, held_back) if step in wanted else {}))
    return log


def early_stop(log: list[dict[str, Any]]) -> int:
    """The step that patience keeps: the best on the tune half before it ends."""
    measured = [(entry["step"], entry["tune"]) for entry in log if "tune" in entry]
    best, waited = measured[0], 0
    for step, value in measured[1:]:
        best, waited = ((step, value), 0) if value > best[1] else (best, waited + 1)
        if waited == PATIENCE:
            break
    return best[0]


def summary(log: list[dict[str, Any]], shares: TitleShares, asked: TitleShares) -> dict[str, Any]:
    """The figures of one run."""
    curve = {
        entry["step"]: entry["evaluations"]["xquad-en"]["ndcg@10"]
        for entry in log
        if "evaluations" in entry
    }
    losses = [entry["validation_loss"] for entry in log if "validation_loss" in entry]
    peak = max(curve, key=lambda step: curve[step])
    stopped = early_stop(log)
    return {
        "untrained": curve[0],
        "peak": curve[peak],
        "peak_step": peak,
        "last": curve[log[-1]["step"]],
        "stopped": curve[stopped],
        "stopped_step": stopped,
        "validation_loss": [losses[0], min(losses), losses[-1]],
        "curve": curve,
        "diagnoses": diagnose(log, training=shares, evaluations={"xquad-en": asked}),
    }


def run(size: Size, seeds: Sequence[int]) -> dict[str, Any]:
    """All arms and seeds."""
    plain, reason = default_learning_rate(size.batch_size, 0, True)
    results: dict[str, Any] = {"learning_rate": plain, "reason": reason, "runs": []}
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            material = gather(size, Path(folder), seed)
        asked = title_shares(
            (question, material.passages[answer])
            for question, answer in zip(material.test.texts, material.test.answers, strict=True)
        )
        for arm, pairs in material.pairs.items():
            shares = title_shares(pair for some in pairs for pair in some)
            for rate in (plain, plain * LOWER):
                log = train(material, arm, size, rate, seed)
                one = {"arm": arm, "rate": rate, "seed": seed, "title_like": asdict(shares)}
                results["runs"].append(one | summary(log, shares, asked))
                show(results["runs"][-1])
        results["questions"] = asdict(asked)
        results["passages"] = len(material.passages)
    return results


def show(one: dict[str, Any]) -> None:
    """Print one run for a person."""
    losses = " -> ".join(f"{loss:.3f}" for loss in one["validation_loss"])
    print(
        f"{one['arm']:<8} rate {one['rate']:.4f} seed {one['seed']}: untrained "
        f"{one['untrained']:.4f}, peak {one['peak']:.4f} at step {one['peak_step']}, last "
        f"{one['last']:.4f}, early stop {one['stopped']:.4f} at {one['stopped_step']}; validation "
        f"loss {losses}"
    )
    print("  " + " ".join(f"{step}:{value:.3f}" for step, value in one["curve"].items()))
    for sentence in one["diagnoses"]:
        print(f"  {sentence}")


def main() -> None:
    """Run the benchmark and print its results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seeds", nargs="+", type=int, default=None)
    args = parser.parse_args()
    quiet()
    size = QUICK if args.quick else FULL
    seeds = args.seeds or ([0] if args.quick else [0, 1, 2])
    results = {
        "machine": machine.describe(),
        "quick": args.quick,
        "model": MODEL,
        "size": asdict(size),
        **run(size, seeds),
    }
    if not args.quick:
        path = ROOT / "benchmarks" / "results" / "peak_then_fall.json"
        path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(results))


if __name__ == "__main__":
    main()

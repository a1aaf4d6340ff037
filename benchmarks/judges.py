"""False negatives after a judge: a small cross-encoder is trained on one set and judges another.

No cross-encoder comes in a package, so one is trained here from MiniLM, some hundred steps on the
pairs of an intent set, and judges the candidates of a set that it has not seen. Every query of that
set shows one positive; a hidden one that is mined is a false negative (`hidden_positives`). All
arms are runs of the program: embed, mine, judge, mine --judges. The margin of 0.05 is that of
`mine_hard_negatives(relative_margin=0.05)`; "margins" is the lowest false rate of any margin and
rank offset with at least the yield and the hardness of an arm (`false_negatives.beside`).

    python -m benchmarks.judges [--quick] [--sets banking77 clinc150 nl2bash] [--models minilm]

Prints one JSON object as its last line.
"""

import argparse
import json
import shutil
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset
from filelock import FileLock
from numpy.typing import NDArray
from sentence_transformers import CrossEncoder
from sentence_transformers.cross_encoder import (
    CrossEncoderTrainer,
    CrossEncoderTrainingArguments,
)
from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss

from benchmarks import machine
from benchmarks.false_negatives import K, Outcome, beside, margins, mine
from benchmarks.hidden_positives import MODELS, HiddenPositives, load
from benchmarks.wheels import CACHE
from stx_mine.cli import quiet
from stx_mine.core.verdicts import ELIGIBLE, Verdict
from stx_mine.models.load import open_model
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.embed.stage import run_embed
from stx_mine.stages.judge.config import JudgeConfig
from stx_mine.stages.judge.stage import run_judge
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.stage import run_mine
from stx_mine.store.artifact import require
from stx_mine.store.judgements import StoredJudgements
from stx_mine.store.negatives import pool_files, read_verdicts
from stx_mine.store.pools import PoolBlock
from stx_mine.store.run_dir import RunDir
from stx_mine.store.texts import TextStore

# Judged set -> the set that its judge is trained on.
TAUGHT_BY = {"banking77": "clinc150", "clinc150": "banking77", "nl2bash": "clinc150"}
STEPS, QUICK_STEPS, BATCH = 600, 30, 32
MAX_LENGTH = 64
ARMS = {
    "no rule": {"relative_margin": None},
    "margin 0.05": {"relative_margin": 0.05},
    "closeness 0.7": {"relative_margin": None, "closeness": 0.7},
    "judge": {"relative_margin": 0.05, "judges": ("judge",)},
    "judge, margin of its own 0.5": {
        "relative_margin": 0.05,
        "judges": ("judge",),
        "judged_margin": 0.5,
    },
}


def train_judge(name: str, steps: int, seed: int, device: str = "cpu") -> Path:
    """A cross-encoder that was trained on the pairs of a set; from the cache where it is there."""
    folder = CACHE / "judges" / f"{name}-{steps}-{seed}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not (folder / "config.json").exists():
            rows = judge_rows(name, steps, seed)
            _trained(rows, steps, seed, device).save_pretrained(str(folder))
    return folder


def judge_rows(name: str, steps: int, seed: int) -> pa.Table:
    """Columns query, passage, label of a set; from the cache where they are there."""
    file = CACHE / "judges" / f"{name}-{steps}-{seed}.parquet"
    if file.exists():
        return pq.read_table(file)
    set_ = load(name, seed)
    found = mine(set_, "static", seed)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(set_.queries))
    rows: list[tuple[str, str, float]] = []
    for query in order:
        text, hidden = set_.queries[query], set_.hidden.row(query)
        positives = [int(set_.shown[query]), *rng.permutation(hidden)[:1].tolist()]
        wrong = found.ids_QK[query][found.valid_QK[query] & ~found.false_QK[query]]
        negatives = [*rng.permutation(wrong[:50])[:3].tolist()]
        negatives += rng.integers(0, len(set_.passages), 1).tolist()
        known = {*positives, *hidden.tolist()}
        rows += [(text, set_.passages[one], 1.0) for one in positives]
        rows += [(text, set_.passages[one], 0.0) for one in negatives if one not in known]
        if len(rows) >= steps * BATCH:
            break
    columns = zip(*rows[: steps * BATCH], strict=True)
    found_rows = pa.table(dict(zip(("query", "passage", "label"), columns, strict=True)))
    pq.write_table(found_rows, file)
    return found_rows


def _trained(rows: pa.Table, steps: int, seed: int, device: str) -> CrossEncoder:
    base = Path(open_model(MODELS["minilm"]).model[0].model.name_or_path)
    model = CrossEncoder(str(base), num_labels=1, max_length=MAX_LENGTH, device=device)
    data = Dataset.from_dict(rows.to_pydict())
    with tempfile.TemporaryDirectory() as place:
        arguments = CrossEncoderTrainingArguments(
            place,
            max_steps=steps,
            per_device_train_batch_size=BATCH,
            learning_rate=5e-5,
            warmup_steps=steps // 10,
            save_strategy="no",
            report_to="none",
            logging_steps=100,
            seed=seed,
            use_cpu=device == "cpu",
        )
        CrossEncoderTrainer(model, arguments, data, loss=BinaryCrossEntropyLoss(model)).train()
    return model


def begin_run(
    set_: HiddenPositives, model: str, run: Path, pairs: list[tuple[int, int]] | None = None
) -> None:
    """Embed a set that shows one positive of each query, or the pairs that are named."""
    pairs = pairs or list(enumerate(set_.shown.tolist()))
    files = {
        "pairs": {
            "query": [set_.queries[query] for query, _ in pairs],
            "passage": [set_.passages[passage] for _, passage in pairs],
        },
        "corpus": {"passage": set_.passages},
    }
    for name, columns in files.items():
        pq.write_table(pa.table(columns), run / f"{name}.parquet")
    run_embed(
        EmbedConfig(
            run_dir=str(run / "run"),
            pairs=str(run / "pairs.parquet"),
            corpus=str(run / "corpus.parquet"),
            model=MODELS[model],
            max_length=MAX_LENGTH if model != "static" else None,
            device="cpu",
        )
    )


class Answers:
    """Which passage answers which query, by the ids of a run."""

    def __init__(self, set_: HiddenPositives, run: Path) -> None:
        self.store = TextStore.open(require(RunDir(run), "texts"))
        passages = {text: row for row, text in enumerate(self._texts("passages"))}
        queries = {text: row for row, text in enumerate(self._texts("queries"))}
        self.width = self.store.num_passages
        self.keys = np.array(
            sorted(
                queries[query] * self.width + passages[set_.passages[one]]
                for row, query in enumerate(set_.queries)
                for one in set_.hidden.row(row)
            ),
            np.int64,
        )

    def _texts(self, role: str) -> list[str]:
        table = getattr(self.store, role)
        return table.column("text").to_pylist()

    def are_false(
        self, queries: NDArray[np.int64], passages: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Whether each pair is a hidden positive."""
        return np.isin(queries * self.width + passages, self.keys)


def hits_of(run: Path) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]:
    """Query, passage and verdict of every hit."""
    negatives, parts = require(RunDir(run), "negatives"), []
    for name in pool_files(negatives):
        table = read_verdicts(negatives, name)
        lists = table.column("hit_ids").combine_chunks()
        lengths = np.diff(lists.offsets.to_numpy())
        queries = np.repeat(table.column("query_id").to_numpy(), lengths)
        verdicts = table.column("verdicts").combine_chunks().flatten().to_numpy()
        parts.append((queries, lists.flatten().to_numpy().astype(np.int64), verdicts))
    queries, passages, verdicts = (np.concatenate(one) for one in zip(*parts, strict=True))
    return queries, passages, verdicts


def outcome_of(run: Path, answers: Answers) -> Outcome:
    """What the pools of a run hold, the first 8 of each."""
    negatives = require(RunDir(run), "negatives")
    queries, passages, scores, sizes = [], [], [], []
    for name in pool_files(negatives):
        block = PoolBlock.read(negatives, name)
        first, places = block.pools.take(np.arange(len(block.pools)), K)
        queries.append(np.repeat(block.query_ids, first.lengths()))
        passages.append(first.values)
        scores.append(block.scores[places])
        sizes.append(first.lengths())
    flat = [np.concatenate(one) for one in (queries, passages, scores, sizes)]
    hit_queries, hit_passages, _ = hits_of(run)
    labelled = np.unique(hit_queries[answers.are_false(hit_queries, hit_passages)])
    of_labelled = np.isin(flat[0], labelled)
    false = answers.are_false(flat[0], flat[1])
    num_queries = answers.store.num_queries
    return Outcome(
        false_rate=float(false.sum() / max(of_labelled.sum(), 1)),
        negatives=len(flat[0]),
        filled=float(len(flat[0]) / (K * num_queries)),
        rows_full=float((flat[3] == K).sum() / num_queries),
        hardness=float(flat[2].mean()) if len(flat[2]) else 0.0,
        lost=0.0,
    )


def measure(
    name: str, model: str, judge: Path, seed: int, max_pairs: int, **limit: int
) -> dict[str, object]:
    """All arms on one set under one embedding model."""
    set_ = load(name, seed, **limit)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        begin_run(set_, model, folder)
        run = folder / "run"
        answers = Answers(set_, run)
        others = margins(mine(set_, model, seed))
        found: dict[str, object] = {}

        def select(**options: object) -> None:
            run_mine(MineConfig(run_dir=str(run), k=K, device="cpu", **options))

        select()
        started = time.perf_counter()
        options = {"cross_encoder": str(judge), "device": "cpu"}
        run_judge(JudgeConfig(run_dir=str(run), name="judge", **options))
        seconds = time.perf_counter() - started
        for arm, fields in ARMS.items():
            select(**fields)
            one = outcome_of(run, answers)
            found[arm] = {**asdict(one), "margins_false_rate": beside(one, others)}
        return {"arms": found, "judge": judged(run, answers, options, seconds, max_pairs)}


def judged(
    run: Path, answers: Answers, options: dict[str, str], seconds: float, max_pairs: int
) -> dict[str, object]:
    """How good the judge is, and how much of judging every candidate the band comes to."""
    run_mine(MineConfig(run_dir=str(run), k=K, judges=("judge",), device="cpu"))
    queries, passages, verdicts = hits_of(run)
    keys = queries * answers.width + passages
    store, kept = answers.store, set(keys[np.isin(verdicts, ELIGIBLE)].tolist())
    few = require(RunDir(run), "judgements", "judge")
    # All candidates of some queries: of all of them it would take hours.
    config = JudgeConfig(run_dir=str(run), name="all", band=1e6, max_pairs=max_pairs, **options)
    run_judge(config)
    whole = StoredJudgements.open(require(RunDir(run), "judgements", "all"), store)
    scores = whole.find(queries, passages)
    known = np.isfinite(scores)
    is_false = answers.are_false(queries, passages)
    run_mine(MineConfig(run_dir=str(run), k=K, judges=("all",), relative_margin=None, device="cpu"))
    again = hits_of(run)
    by_all = np.isin(again[2], (Verdict.JUDGED_POSITIVE, Verdict.JUDGED_CLOSE))
    removed = again[0][by_all] * answers.width + again[1][by_all]
    away = [key not in kept for key in removed.tolist()]
    return {
        "pairs": int(few.counts["judged"]),
        "pairs_a_second": few.counts["judged"] / seconds,
        "share_of_all_hits": few.counts["candidates"] / len(queries),
        "removals_of_all": len(away),
        "removals_kept_away_by_the_band": float(np.mean(away)) if away else None,
        "auc": area(scores[known & is_false], scores[known & ~is_false]),
    }


def area(of_true: NDArray[np.float32], of_false: NDArray[np.float32]) -> float | None:
    """Chance that a hidden positive scores above another candidate."""
    if not len(of_true) or not len(of_false):
        return None
    order = np.sort(of_false)
    below = np.searchsorted(order, of_true, "left") + np.searchsorted(order, of_true, "right")
    return float(below.mean() / (2 * len(order)))


def print_table(results: dict[str, dict[str, object]]) -> None:
    """A line an arm."""
    print("each: false rate (of margins at equal yield and hardness) / slots filled / hardness")
    for name, one in results.items():
        print(name, one["judge"])
        for arm, found in one["arms"].items():
            rival = found["margins_false_rate"]
            against = "" if rival is None else f" ({rival:.3f})"
            print(
                f"    {arm:<30} {found['false_rate']:.3f}{against} / {found['filled']:.2f} / "
                f"{found['hardness']:.3f}"
            )


def main() -> None:
    """Measure, print the table; the last line is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a short training, few queries")
    parser.add_argument("--sets", nargs="+", choices=list(TAUGHT_BY), default=list(TAUGHT_BY))
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=["static"])
    parser.add_argument("--queries", type=int, default=2_000, help="queries of a set, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    quiet()
    limit, steps, max_pairs = {"max_queries": arguments.queries}, STEPS, 20_000
    if arguments.quick:
        arguments.sets, limit, steps = ["banking77"], {"max_queries": 40}, QUICK_STEPS
        max_pairs = 1_000
    results = {}
    for name in arguments.sets:
        judge = train_judge(TAUGHT_BY[name], steps, arguments.seed)
        for model in arguments.models:
            results[f"{model} {name}"] = measure(
                name, model, judge, arguments.seed, max_pairs, **limit
            )
    if arguments.quick:
        shutil.rmtree(CACHE / "judges", ignore_errors=True)
    content = {"machine": machine.describe(), "quick": arguments.quick, "seed": arguments.seed}
    content |= {"steps": steps, "queries": limit["max_queries"], "results": results}
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(content, indent=2) + "\n")
    print_table(results)
    print(json.dumps(content))


if __name__ == "__main__":
    main()

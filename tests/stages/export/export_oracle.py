"""What the tests of exports share: every row of a run as a person reads it from its files."""

from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from datasets import Dataset, load_dataset

from stx_mine.stages.export.config import ExportConfig
from stx_mine.stages.export.stage import run_export
from stx_mine.store.artifact import require
from stx_mine.store.files import read_table
from stx_mine.store.negatives import pool_files
from stx_mine.store.run_dir import RunDir
from stx_mine.store.stage_report import StageReport
from stx_mine.store.texts import TextStore
from stx_mine.store.vectors import Vectors

K = 4


class Row(NamedTuple):
    """A pair as a person reads it from the files: texts, scores, its first K negatives."""

    query: str
    positive: str
    positive_score: float
    negatives: list[str]
    negative_scores: list[float]


def oracle(run_dir: Path) -> list[Row]:
    """Every pair, queries in order, its pool looked up pair by pair."""
    run = RunDir(run_dir)
    negatives, embeddings = require(run, "negatives"), require(run, "embeddings")
    store = TextStore.open(require(run, "texts"))
    queries = store.queries.column("text").to_pylist()
    passages = store.passages.column("text").to_pylist()
    pools = {
        unit["unit_id"]: (unit["passage_ids"][:K], unit["scores"][:K])
        for name in pool_files(negatives)
        for unit in read_table(negatives.folder / name).to_pylist()
    }
    vectors = {role: Vectors.open(embeddings, role) for role in ("queries", "passages")}
    matrices = {role: one.rows(0, len(one)).astype(np.float64) for role, one in vectors.items()}
    rows = []
    for query_id in range(len(queries)):
        for pair in np.flatnonzero(store.pair_query_ids == query_id):
            passage_id = store.pair_passage_ids[pair]
            ids, scores = pools[pair if negatives.extra["per_pair"] else query_id]
            score = float(matrices["queries"][query_id] @ matrices["passages"][passage_id])
            texts = [passages[one] for one in ids]
            rows.append(Row(queries[query_id], passages[passage_id], score, texts, scores))
    assert len(rows) == store.num_pairs
    return rows


def by_query(rows: list[Row]) -> list[tuple[list[Row], Row]]:
    """(rows of a query, the row whose negatives serve all of them)."""
    grouped = defaultdict(list)
    for row in rows:
        grouped[row.query].append(row)
    return [(group, min(group, key=lambda row: row.positive_score)) for group in grouped.values()]


def make(run_dir: Path, to: str, **fields: Any) -> StageReport:
    return run_export(ExportConfig(to=to, run_dir=str(run_dir), **fields))  # type: ignore[arg-type]


def load(run_dir: Path, to: str, cache: Path, name: str | None = None) -> Dataset:
    """What a person without stx-mine loads."""
    folder = str(run_dir / "exports" / to)
    return load_dataset(folder, name, split="train", cache_dir=str(cache))


def assert_equal_lines(found: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> None:
    """Equal texts and labels; scores as close as float32 is to float64."""
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert list(one) == list(other)
        for name, value in other.items():
            if "score" in name:
                assert one[name] == pytest.approx(value, abs=1e-6)
            else:
                assert one[name] == value

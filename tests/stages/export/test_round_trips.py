"""What is exported and read again gives the same pairs and the same negatives."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stx_mine.errors import InputError
from stx_mine.inputs.config import SourceFields
from stx_mine.inputs.pairs import PairSource
from stx_mine.inputs.run_file import RunFile
from stx_mine.stages.export.config import ExportConfig
from stx_mine.stages.export.layouts import LAYOUTS
from stx_mine.stages.export.stage import run_export
from stx_mine.stages.export.text_ids import NamedTexts
from stx_mine.stages.ingest.pairs import read_source
from stx_mine.store.artifact import require
from stx_mine.store.batches import ragged_column
from stx_mine.store.negatives import pool_files, read_verdicts
from stx_mine.store.pools import Pools
from stx_mine.store.run_dir import RunDir
from stx_mine.store.texts import TextStore

K = 3
Rows = set[tuple[str, str]]


@pytest.fixture(scope="module")
def mined(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small run, to export from."""
    return shutil.copytree(small_run, tmp_path_factory.mktemp("round") / "run")


def rows_of(run_dir: Path) -> tuple[Rows, Rows]:
    """The (query, positive) of rows with K negatives, and their (query, negative)."""
    store = TextStore.open(require(RunDir(run_dir), "texts"))
    pools = Pools.open(require(RunDir(run_dir), "negatives"), store.pair_query_ids)
    queries, passages = (
        table.column("text").to_pylist() for table in (store.queries, store.passages)
    )
    full = np.flatnonzero((pools.ids_NS[:, :K] >= 0).all(axis=1))
    asked = [queries[store.pair_query_ids[row]] for row in full]
    positives = {
        (query, passages[store.pair_passage_ids[row]])
        for query, row in zip(asked, full, strict=True)
    }
    negatives = {
        (query, passages[passage])
        for query, row in zip(asked, full, strict=True)
        for passage in pools.ids_NS[row, :K]
    }
    return positives, negatives


def exported(mined: Path, layout: str, **fields: Any) -> Path:
    """The folder of an export."""
    run_export(ExportConfig(run_dir=str(mined), to=layout, **fields))
    return mined / "exports" / layout


def read_again(path: Path, **fields: Any) -> tuple[Rows, Rows]:
    """(query, positive) and (query, negative) as `ingest` reads them."""
    source = PairSource.open(str(path), SourceFields(**fields), "train")
    found = read_source(source)
    texts = {}
    for role, stream in (("queries", source.queries()), ("passages", source.passages())):
        ids = iter(getattr(found, role).ids.tolist())
        texts[role] = {next(ids): text for block, _ in stream for text in block.to_pylist()}
    assert found.counts.pairs_dropped.get("unknown_passage_id", 0) == 0
    positives, negatives = (
        {(texts["queries"][q], texts["passages"][p]) for q, p in ids.tolist()}
        for ids in (found.pairs, found.negatives)
    )
    return positives, negatives


def as_lines(rows: tuple[Rows, Rows]) -> tuple[Rows, ...]:
    """Rows as layouts write them that have a line a text."""
    return tuple(
        {(re.sub(r"[\t\r\n]", " ", one), re.sub(r"[\t\r\n]", " ", other)) for one, other in role}
        for role in rows
    )


@pytest.mark.parametrize("layout", [to for to, layout in LAYOUTS.items() if layout.lines])
def test_an_export_read_again_gives_the_same_pairs_and_negatives(mined: Path, layout: str) -> None:
    folder = exported(mined, layout, k=K, short_rows="drop")
    wanted = rows_of(mined)
    assert read_again(folder) == (as_lines(wanted) if LAYOUTS[layout].one_line else wanted)


@pytest.mark.parametrize("layout", ["labeled-list", "tevatron", "colbert"])
def test_scores_of_an_export_change_nothing(mined: Path, layout: str) -> None:
    folder = exported(mined, layout, k=K, short_rows="drop", scores=True)
    wanted = rows_of(mined)
    assert read_again(folder) == (as_lines(wanted) if LAYOUTS[layout].one_line else wanted)


def all_pairs(run_dir: Path) -> Rows:
    """Every (query, positive) of a run."""
    store = TextStore.open(require(RunDir(run_dir), "texts"))
    queries, passages = store.queries.column("text"), store.passages.column("text")
    ids = zip(store.pair_query_ids, store.pair_passage_ids, strict=True)
    return {(queries[int(q)].as_py(), passages[int(p)].as_py()) for q, p in ids}


def test_judgements_read_again_are_the_pairs(mined: Path) -> None:
    beir = exported(mined, "beir")
    assert read_again(beir) == (all_pairs(mined), set())
    # A file of the folder is read with the texts beside it.
    assert read_again(beir / "qrels/train.tsv") == (all_pairs(mined), set())
    run = exported(mined, "trec-run")
    texts = {"queries": str(beir / "queries.jsonl"), "corpus": str(beir / "corpus.jsonl")}
    assert read_again(run / "qrels.trec", **texts) == (all_pairs(mined), set())
    with pytest.raises(InputError, match=r"found a TREC run, .*`mine --candidates`"):
        read_again(run / "run.trec", **texts)


def test_a_ranking_read_again_is_that_of_the_search(mined: Path) -> None:
    run = exported(mined, "trec-run") / "run.trec"
    queries, passages = [], []
    for some_queries, some_passages in RunFile.open(run).batches():
        queries += some_queries.to_pylist()
        passages += some_passages.to_pylist()
    store = TextStore.open(require(RunDir(mined), "texts"))
    names = NamedTexts(store, "original")
    negatives = require(RunDir(mined), "negatives")
    table = read_verdicts(negatives, pool_files(negatives)[0])
    hits = ragged_column(table, "hit_ids")
    asked = np.repeat(table.column("query_id").to_numpy(), hits.lengths())
    assert queries == names.query_ids.take(asked).cast("string").to_pylist()
    assert passages == names.passage_ids.take(hits.values).cast("string").to_pylist()

"""What is exported and read again gives the same pairs and the same negatives."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from stx_mine.inputs.config import SourceFields
from stx_mine.inputs.pairs import PairSource
from stx_mine.stages.export.config import ExportConfig
from stx_mine.stages.export.stage import run_export
from stx_mine.stages.ingest.pairs import read_source
from stx_mine.store.artifact import require
from stx_mine.store.negatives import Pools
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


@pytest.mark.parametrize(
    "layout",
    [
        *("triplet", "n-tuple", "labeled-pair", "labeled-list", "flagembedding"),
        *("three-table", "tevatron", "dpr", "ms-swift"),
    ],
)
def test_an_export_read_again_gives_the_same_pairs_and_negatives(mined: Path, layout: str) -> None:
    run_export(ExportConfig(run_dir=str(mined), to=layout, k=K, short_rows="drop"))
    source = PairSource.open(str(mined / "exports" / layout), SourceFields(), "train")
    found = read_source(source)
    texts = {}
    for role, stream in (("queries", source.queries()), ("passages", source.passages())):
        ids = iter(getattr(found, role).ids.tolist())
        texts[role] = {next(ids): text for block, _ in stream for text in block.to_pylist()}
    named = [
        {(texts["queries"][q], texts["passages"][p]) for q, p in ids.tolist()}
        for ids in (found.pairs, found.negatives)
    ]
    assert tuple(named) == rows_of(mined)

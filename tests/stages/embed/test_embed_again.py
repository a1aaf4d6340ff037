"""Other texts are embedded as a run embedded its own: its texts again give the stored vectors."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stx_mine.errors import ModelError
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.embed.embed_again import OtherTexts
from stx_mine.stages.embed.stage import run_embed
from stx_mine.store.artifact import require
from stx_mine.store.run_dir import RunDir
from stx_mine.store.texts import TextStore
from stx_mine.store.vectors import Vectors

PAIRS = [(f"what is number {n}", f"it is {n * n}, of course") for n in range(40)]


def embedded(folder: Path, **options: Any) -> RunDir:
    folder.mkdir(exist_ok=True)
    columns = {"query": [query for query, _ in PAIRS], "passage": [text for _, text in PAIRS]}
    pq.write_table(pa.table(columns), folder / "pairs.parquet")
    run = folder / "run"
    pairs = str(folder / "pairs.parquet")
    run_embed(EmbedConfig(pairs=pairs, run_dir=str(run), **options))
    return RunDir(run)


@pytest.mark.parametrize(
    "options",
    [
        {"query_prompt": "question: ", "passage_prompt": "", "max_length": 12},
        {"truncate_dim": 16, "normalize": True, "dtype": "float16"},
    ],
)
def test_texts_of_a_run_have_its_vectors_again(
    tmp_path: Path, tiny_transformer: Path, options: dict[str, Any]
) -> None:
    run = embedded(tmp_path, model=str(tiny_transformer), **options)
    texts, embeddings = require(run, "texts"), require(run, "embeddings")
    store = TextStore.open(texts)
    model = OtherTexts.of(embeddings, texts, "cpu", trusts_code=False)
    assert model is not None
    for role, table in (("query", store.queries), ("passage", store.passages)):
        stored = Vectors.open(embeddings, "queries" if role == "query" else "passages")
        found = Vectors((model.vectors(table["text"], role),), stored.similarity)
        np.testing.assert_allclose(
            found.rows(0, len(found)), stored.rows(0, len(stored)), atol=1e-3, rtol=0
        )
        assert len(found) == len(stored) == table.num_rows
    # They are not those without the settings.
    plain = embedded(tmp_path / "plain", model=str(tiny_transformer))
    other = Vectors.open(require(plain, "embeddings"), "queries")
    mine = Vectors.open(embeddings, "queries")
    same = other.dim == mine.dim and np.allclose(other.rows(0, 9), mine.rows(0, 9), atol=1e-3)
    assert not same


def test_a_function_and_files_embed_nothing_else(tmp_path: Path) -> None:
    for name, rows in (("queries", 40), ("passages", 40)):
        np.save(tmp_path / f"{name}.npy", np.random.default_rng(0).normal(size=(rows, 4)))
    vectors = {
        f"{one}_vectors": str(tmp_path / f"{file}.npy")
        for one, file in (("query", "queries"), ("passage", "passages"))
    }
    run = embedded(tmp_path, **vectors)
    texts, embeddings = require(run, "texts"), require(run, "embeddings")
    assert OtherTexts.of(embeddings, texts, "cpu", trusts_code=False) is None


def test_a_model_that_is_gone_is_said(tmp_path: Path, tiny_transformer: Path) -> None:
    model = tmp_path / "model"
    model.symlink_to(tiny_transformer)
    run = embedded(tmp_path, model=str(model))
    model.unlink()
    with pytest.raises(ModelError, match="model"):
        OtherTexts.of(require(run, "embeddings"), require(run, "texts"), "cpu", trusts_code=False)

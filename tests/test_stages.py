"""Stages on real data: the index, deep queries, evaluation."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from stx_mine.core.ragged import ragged_sets
from stx_mine.errors import ConfigError
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.embed.stage import run_embed
from stx_mine.stages.evaluate.config import EvaluateConfig
from stx_mine.stages.evaluate.core.metrics import Relevance, retrieval_metrics
from stx_mine.stages.evaluate.results import read_results
from stx_mine.stages.evaluate.stage import run_evaluate
from stx_mine.stages.index.config import IndexConfig
from stx_mine.stages.index.stage import run_index
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.stage import run_mine
from stx_mine.store.artifact import require
from stx_mine.store.hits import HitBlock, HitSource
from stx_mine.store.run_dir import RunDir
from stx_mine.store.texts import TextStore
from stx_mine.store.vectors import Vectors


def test_an_index_is_measured_and_then_searched(run_copy):
    found = run_index(IndexConfig(run_dir=str(run_copy), factory="IVF8,Flat", nprobe=8))
    assert found.counts["recall"] == pytest.approx(1, abs=1e-3)
    exact = run_mine(MineConfig(run_dir=str(run_copy), k=4, search="exact", device="cpu"))
    searched = run_mine(MineConfig(run_dir=str(run_copy), k=4, overwrite=True, device="cpu"))
    assert "FAISS" in searched.lines[0]
    assert searched.counts["pooled"] == exact.counts["pooled"]


def test_low_recall_is_refused(run_copy):
    with pytest.raises(ConfigError, match="recall@100"):
        run_index(
            IndexConfig(run_dir=str(run_copy), factory="IVF64,Flat", nprobe=1, min_recall=0.999)
        )


def test_hits_are_the_exact_top_of_each_query(small_run):
    run = RunDir(small_run)
    hits, embeddings = require(run, "hits", "dense"), require(run, "embeddings")
    block = HitBlock.read(hits, hits.content["files"][0]["file"], HitSource.DENSE)
    queries, passages = (Vectors.open(embeddings, role) for role in ("queries", "passages"))
    scores = queries.rows(0, len(queries)).astype(float) @ passages.rows(0, len(passages)).T
    store = TextStore.open(require(run, "texts"))
    positives = np.bincount(store.pair_query_ids, minlength=store.num_queries)
    for query in range(0, store.num_queries, 37):
        ids = block.hits.row(query)
        assert len(ids) == min(100 + positives[query] + 1, len(passages))
        found = scores[query, ids]
        assert (np.diff(found) <= 1e-6).all()
        assert np.delete(scores[query], ids).max() <= found.min() + 1e-6


def test_a_query_with_many_positives_deepens_no_other(small_input, tmp_path):
    table = pq.read_table(small_input / "pairs.parquet").to_pydict()
    rows = {
        "query": table["query"][:50] + [table["query"][0]] * 200,
        "passage": table["passage"][:50] + table["passage"][100:300],
    }
    pairs = tmp_path / "pairs.parquet"
    pq.write_table(pq.read_table(small_input / "pairs.parquet").from_pydict(rows), pairs)
    run = tmp_path / "run"
    run_embed(
        EmbedConfig(
            run_dir=str(run),
            pairs=str(pairs),
            corpus=str(small_input / "corpus.parquet"),
            device="cpu",
        )
    )
    run_mine(MineConfig(run_dir=str(run), k=4, depth=60, device="cpu"))
    hits = require(RunDir(run), "hits", "dense")
    lengths = HitBlock.read(hits, hits.content["files"][0]["file"], HitSource.DENSE).hits.lengths()
    store = TextStore.open(require(RunDir(run), "texts"))
    positives = np.bincount(store.pair_query_ids)
    assert positives[0] > 100
    np.testing.assert_array_equal(lengths, 60 + positives + 1)


def test_metrics_of_a_ranking_worked_by_hand():
    ranked = np.array([[5, 1, 9], [2, 3, 4], [7, 8, -1]])
    relevant = ragged_sets(np.array([0, 0, 1, 2]), np.array([1, 6, 2, 0]), 3)
    found = retrieval_metrics(ranked, Relevance.binary(relevant))
    ideal = 1 + 1 / np.log2(3)
    np.testing.assert_allclose(found["ndcg@10"], [(1 / np.log2(3)) / ideal, 1, 0])
    np.testing.assert_allclose(found["mrr@10"], [0.5, 1, 0])
    np.testing.assert_allclose(found["recall@100"], [0.5, 1, 0])


def test_evaluation_reads_a_beir_folder(shared_data, tmp_path):
    run_evaluate(
        EvaluateConfig(run_dir=str(tmp_path), data=str(shared_data / "xquad-en"), device="cpu")
    )
    (scores,) = read_results(RunDir(tmp_path), "xquad-en").values()
    assert 0.5 < scores["ndcg@10"] < scores["recall@100"] <= 1


def test_pipeline_files_of_the_repository_are_valid(repo_root):
    from stx_mine.pipeline import load_pipeline

    files = sorted((repo_root / "pipelines").glob("*.yaml"))
    assert {file.stem for file in files} >= {"quickstart", "minilm"}
    for file in files:
        assert load_pipeline(str(file), []).settings

"""The estimate: texts a step against brute-force counts of real packings, memory, time."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stx_mine.errors import ArtifactError, ConfigError
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.embed.stage import run_embed
from stx_mine.stages.estimate.config import EstimateConfig
from stx_mine.stages.estimate.core.step_cost import ModelShape, Texts, step_memory, texts_by_k
from stx_mine.stages.estimate.stage import run_estimate
from stx_mine.stages.estimate.step_texts import deeper_pools
from stx_mine.stages.ingest.config import IngestConfig
from stx_mine.stages.ingest.stage import run_ingest
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.stage import run_mine
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.hardness import BatchHardness
from stx_mine.stages.pack.stage import run_pack
from stx_mine.store.artifact import require
from stx_mine.store.digests import normalise
from stx_mine.store.files import read_json
from stx_mine.store.pools import Pools
from stx_mine.store.run_dir import RunDir
from stx_mine.store.texts import TextStore


def estimate(run: Path, **fields) -> dict:
    run_estimate(EstimateConfig(run_dir=str(run), device="cpu", **fields))
    return read_json(run / "estimates/results.json")


def cell_of(results: dict, batch_size: int, k: int) -> dict:
    (found,) = (one for one in results["cells"] if (one["batch_size"], one["k"]) == (batch_size, k))
    return found


def texts_of_batches(folder: Path, batch_size: int) -> list[tuple[int, int, int]]:
    """(distinct anchors, distinct passages, slots) of each batch, from the texts in its columns."""
    counts = []
    for path in sorted(folder.glob("train-*.parquet")):
        table = pq.read_table(path)
        names = [name for name in table.column_names if name.startswith("negative_")]
        names.remove("negative_ids")
        for start in range(0, table.num_rows, batch_size):
            batch = table.slice(start, batch_size)
            texts = {
                name: [
                    text
                    for text in normalise(batch[name].combine_chunks()).to_pylist()
                    if text  # Nulls become empty.
                ]
                for name in ("anchor", "positive", *names)
            }
            passages = [text for name in ("positive", *names) for text in texts[name]]
            counts.append(
                (len(set(texts["anchor"])), len(set(passages)), len(texts["anchor"] + passages))
            )
    return counts


# --- counting ---


@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(0, 5))
def test_texts_by_k_are_those_of_sets(seed, num_rows, num_negatives):
    rng = np.random.default_rng(seed)
    anchors, positives = rng.integers(0, 8, (2, num_rows))
    negatives = rng.integers(-1, 8, (num_rows, num_negatives))
    negatives = -np.sort(-negatives, axis=1)  # What is missing comes last.
    found = texts_by_k(anchors, positives, negatives)
    assert len(found) == num_negatives + 1
    for k, one in enumerate(found):
        real = negatives[:, :k][negatives[:, :k] >= 0].tolist()
        passages = positives.tolist() + real
        assert one == Texts(len(set(anchors)), len(set(passages)), num_rows + len(passages))


@pytest.mark.parametrize("positive_score", ["lowest", "pair"])
def test_deeper_pools_are_those_that_mine_would_keep(run_copy, positive_score):
    fields = {"k": 4, "relative_margin": None, "positive_score": positive_score, "device": "cpu"}
    run_mine(MineConfig(run_dir=str(run_copy), pool=5, **fields))
    run = RunDir(run_copy)
    store = TextStore.open(require(run, "texts"))
    found = deeper_pools(require(run, "negatives"), store.pair_query_ids, 64)
    run_mine(MineConfig(run_dir=str(run_copy), pool=64, overwrite=True, **fields))
    expected = Pools.open(require(run, "negatives"), store.pair_query_ids).ids_NS
    assert (expected[:, 63] >= 0).any()
    np.testing.assert_array_equal(found, expected)


def test_interactions_are_more_scores_of_the_batch(run_copy):
    plain = cell_of(estimate(run_copy, batch_size=64), 64, 4)
    for interactions, added in (
        (("query-query",), plain["queries"]),
        (("passage-query", "passage-passage"), plain["texts"]),
    ):
        cell = cell_of(estimate(run_copy, batch_size=64, interactions=interactions), 64, 4)
        scores = cell["in_batch"]["scores"] - plain["in_batch"]["scores"]
        assert scores == pytest.approx(64 * added)
        buffers = [one["in_batch"]["bytes"]["scores"] for one in (cell, plain)]
        assert buffers[0] > buffers[1]
        assert cell["own_negatives"] == plain["own_negatives"]


@pytest.mark.parametrize("batch_size", [50, 256])
def test_a_dry_run_counts_what_is_packed_then(run_copy, batch_size):
    before = estimate(run_copy, batch_size=batch_size)
    assert before["k"] == 4, "the k of mine"
    run_pack(PackConfig(run_dir=str(run_copy), batch_size=batch_size))
    counts = np.array(texts_of_batches(run_copy / "batches/epoch-000", batch_size))
    assert len(counts) == 600 // batch_size <= 16
    cell = cell_of(before, batch_size, 4)
    assert cell["counted"] == "dry run"
    anchors, passages, slots = counts.mean(0)
    assert (cell["queries"], cell["passages"]) == pytest.approx((anchors, passages))
    assert cell["texts"] == pytest.approx(anchors + passages)
    assert cell["texts_without_sharing"] == pytest.approx(slots)
    assert cell["most_texts"] == (counts[:, 0] + counts[:, 1]).max()
    assert cell["in_batch"]["scores"] == pytest.approx(batch_size * passages)
    assert cell["own_negatives"]["scores"] == pytest.approx(slots - batch_size)
    assert cell["texts"] < cell["texts_without_sharing"]

    after = estimate(run_copy)
    assert (after["batch_size"], after["k"]) == (batch_size, 4), "those of batches/"
    packings = sorted((run_copy / "batches").glob("epoch-*"))
    every = [one for folder in packings for one in texts_of_batches(folder, batch_size)]
    cell = cell_of(after, batch_size, 4)
    assert (cell["counted"], cell["batches_counted"]) == ("batches", len(every))
    assert cell["texts"] == pytest.approx(np.mean([a + p for a, p, _ in every]))
    assert cell["steps"] == len(every), "a pass over every packing"
    assert cell_of(after, batch_size, 1)["counted"] == "dry run"
    assert cell_of(estimate(run_copy, epochs=7), batch_size, 4)["steps"] == len(counts) * 7


@pytest.mark.parametrize("layout", ["inline", "ids"])
def test_strict_batches_share_nothing(run_copy, layout):
    run_pack(PackConfig(run_dir=str(run_copy), batch_size=32, k=2, policy="strict", layout=layout))
    cell = cell_of(estimate(run_copy), 32, 2)
    assert cell["texts"] == cell["texts_without_sharing"] == 32 * 4


def test_hardness_is_that_which_pack_tells(run_copy):
    """By batch size; of what was not mined, and of rows without negatives, nothing is told."""
    results = estimate(run_copy, batch_size=16)
    for size in (16, 64):
        run_pack(PackConfig(run_dir=str(run_copy), batch_size=size, overwrite=True))
        told = BatchHardness.read(require(RunDir(run_copy), "batches"))
        assert told is not None
        assert cell_of(results, size, 8)["harder"] == told.harder
        assert cell_of(results, size, 0)["harder"] is None
        if size == 16:
            assert results["hardness"] == asdict(told)
    assert estimate(run_copy, k=0, batch_size=16, overwrite=True)["hardness"] is None


def test_more_negatives_and_rows_cost_more(run_copy):
    results = estimate(run_copy, batch_size=64)
    sizes = {one["batch_size"] for one in results["cells"]}
    assert sizes == {64, 256}, "powers of 4 up to the 600 rows"
    for size in sizes:
        cells = [cell_of(results, size, k) for k in (0, 1, 4, 8, 16, 64)]
        for key in ("texts", "texts_without_sharing"):
            assert [one[key] for one in cells] == sorted({one[key] for one in cells})
        for one in cells:
            for way in ("in_batch", "own_negatives"):
                assert one[way]["bytes"]["total"] > 16 * results["model"]["parameters"]
                assert one[way]["seconds"] is None


def test_before_mining_counts_are_bounds_and_said_to_be(small_input, tmp_path):
    files = {name: str(small_input / f"{name}.parquet") for name in ("pairs", "corpus")}
    run = tmp_path / "run"
    run_ingest(IngestConfig(run_dir=str(run), **files))
    report = run_estimate(EstimateConfig(run_dir=str(run), batch_size=64, device="cpu"))
    assert "an upper bound before mining" in report.lines[1]
    before = read_json(run / "estimates/results.json")
    run_embed(EmbedConfig(run_dir=str(run), device="cpu"))
    run_mine(MineConfig(run_dir=str(run), k=4, device="cpu"))
    after = estimate(run, batch_size=64)
    for k in (0, 1, 4, 8, 16, 64):
        bound, counted = (cell_of(one, 64, k) for one in (before, after))
        assert bound["counted"] == ("at most" if k else "dry run")
        assert counted["counted"] == "dry run"
        if k:
            assert bound["texts"] >= counted["texts"]
            assert bound["texts_without_sharing"] >= counted["texts_without_sharing"]
        else:
            assert bound["texts"] == pytest.approx(counted["texts"], rel=0.02)


# --- memory ---


def test_memory_of_a_static_model_worked_by_hand():
    model = ModelShape(1_000, 8, query_tokens=5, passage_tokens=20, longest_tokens=50)
    options = {"chunk_rows": 16, "batch_tokens": 100}
    found = step_memory(Texts(30, 70, 150), model, 32, 4, in_batch=True, **options)
    assert found.parameters == 16_000
    assert found.embeddings == 24 * 8 * 100
    assert found.activations == 8 * (30 * 5 + 70 * 20)
    assert found.scores == 4 * 16 * 70
    assert found.total == 16_000 + 19_200 + 12_400 + 4_480
    own = step_memory(Texts(30, 70, 150), model, 32, 4, in_batch=False, **options)
    assert own.scores == 2 * 4 * 16 * 5 * 8


def test_memory_of_a_transformer_follows_its_mini_batch():
    shape = {"query_tokens": 5, "passage_tokens": 20, "longest_tokens": 50}
    options = {"in_batch": True, "chunk_rows": 16}
    model = ModelShape(1_000, 8, **shape, layers=3, hidden=10, heads=2)
    few, many = Texts(2, 4, 8), Texts(300, 700, 1_500)
    found = [
        step_memory(texts, model, 32, 4, batch_tokens=tokens, **options).activations
        for texts, tokens in ((few, 1_000), (many, 1_000), (many, 10))
    ]
    a_token = 3 * (66 * 10 + 9 * 2 * 50)
    assert found == [90 * a_token, 1_000 * a_token, 50 * a_token]


# --- the command ---


def test_a_transformer_is_measured_and_remembered(run_copy, tiny_transformer, cli_here):
    command = ["estimate", "--model", tiny_transformer, "--time", "--batch-tokens", "256"]
    command += ["--batch-size", "64", "--max-length", "32", "--device", "cpu"]
    done = cli_here(*command, run_dir=run_copy)
    assert done.code == 0, done
    assert "s a step" in done.stdout
    results = read_json(run_copy / "estimates/results.json")
    model, timed = results["model"], results["measured_seconds"]
    assert (model["layers"], model["hidden"], model["dim"]) == (2, 32, 32)
    assert model["longest_tokens"] <= 32
    # So little work that what one part of it costs can vanish in the noise, but not all of it.
    parts = [timed[name] for name in ("query", "passage", "score", "own_score")]
    assert min(parts) >= 0 < sum(parts)
    for one in results["cells"]:
        assert one["kept_share"] == 1
        query, passage = (timed[role] - timed[f"{role}_again"] for role in ("query", "passage"))
        expected = one["queries"] * query + one["passages"] * passage
        expected += one["in_batch"]["scores"] * timed["score"] + timed["fixed"]
        assert one["in_batch"]["seconds_a_step"] == pytest.approx(expected)
        assert one["in_batch"]["seconds"] == pytest.approx(expected * one["steps"])
    again = cli_here(*command, run_dir=run_copy)
    assert "estimates: done before, skipped" in again.stdout
    assert again.stdout.splitlines()[1:] == done.stdout.splitlines()[1:]


def test_what_cannot_be_read_is_named(run_copy):
    run_pack(PackConfig(run_dir=str(run_copy), batch_size=64))
    run_mine(MineConfig(run_dir=str(run_copy), k=2, relative_margin=None, device="cpu"))
    report = run_estimate(EstimateConfig(run_dir=str(run_copy), batch_size=64, device="cpu"))
    assert any("batches/ is not read" in one and "stale" in one for one in report.warnings)
    labels = {"layout": "labels", "batch_size": 64, "overwrite": True}
    run_pack(PackConfig(run_dir=str(run_copy), **labels))
    report = run_estimate(EstimateConfig(run_dir=str(run_copy), batch_size=64, device="cpu"))
    assert report.warnings == ("batches/ is not read: it holds (text, label) rows",)
    assert cell_of(read_json(run_copy / "estimates/results.json"), 64, 2)["counted"] == "dry run"


def test_sizes_that_cannot_be_filled_are_refused(run_copy, tmp_path):
    with pytest.raises(ConfigError, match=r"no batch of 601 rows .* 600 rows"):
        estimate(run_copy, batch_size=601)
    with pytest.raises(ArtifactError, match=r"texts/ is missing; run `stx-mine embed PAIRS`"):
        estimate(tmp_path)

"""Evaluation: resampling, queries seen in training, prefixes of embeddings, several data sets."""

import json
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stx_mine.core.ragged import ragged_sets
from stx_mine.core.similarity import Similarity
from stx_mine.errors import ConfigError
from stx_mine.inputs.pairs import PairSource
from stx_mine.models.encoder import SentenceTransformerEncoder
from stx_mine.search.exact import ExactSearcher
from stx_mine.stages.evaluate import model_metrics
from stx_mine.stages.evaluate import report as report_module
from stx_mine.stages.evaluate.block_top import BlockTop
from stx_mine.stages.evaluate.config import EvaluateConfig
from stx_mine.stages.evaluate.core.metrics import METRICS, Relevance, retrieval_metrics
from stx_mine.stages.evaluate.core.resampling import bootstrap_intervals, randomisation_p_values
from stx_mine.stages.evaluate.core.shares import InTraining, Share
from stx_mine.stages.evaluate.core.summaries import Scored, metric_summaries
from stx_mine.stages.evaluate.leaks import in_training
from stx_mine.stages.evaluate.model_metrics import evaluate, evaluate_dims
from stx_mine.stages.evaluate.results import read_results, summary_json
from stx_mine.stages.evaluate.sets import data_name, named_data, read_evaluation_set
from stx_mine.stages.evaluate.stage import run_evaluate
from stx_mine.stages.ingest.config import IngestConfig
from stx_mine.stages.ingest.stage import run_ingest
from stx_mine.store.artifact import require
from stx_mine.store.files import read_json
from stx_mine.store.groups import TextGroups
from stx_mine.store.run_dir import RunDir
from stx_mine.store.stage_report import plain_table
from stx_mine.store.texts import TextStore
from stx_mine.store.vectors import Vectors


def write_pairs(path: Path, pairs: list[tuple[str, str]]) -> str:
    queries, passages = zip(*pairs, strict=True)
    pq.write_table(pa.table({"query": queries, "passage": passages}), path)
    return str(path)


# --- resampling ---


def test_bootstrap_intervals_are_those_of_a_plain_loop():
    values = np.random.default_rng(1).random((37, 4)) ** 3
    draws = np.random.default_rng(5).integers(0, 37, (2_000, 37))
    means = np.array([[values[drawn, c].mean() for c in range(4)] for drawn in draws])
    expected = np.quantile(means, [0.025, 0.975], axis=0)
    found = bootstrap_intervals(values, seed=5, num_draws=2_000)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_bootstrap_intervals_of_many_queries_are_those_of_the_normal_law():
    values = np.random.default_rng(0).normal(3, 2, (4_000, 1))
    low, high = bootstrap_intervals(values, seed=0)[:, 0]
    half = 1.96 * values.std() / np.sqrt(len(values))
    mean = values.mean()
    np.testing.assert_allclose([low, high], [mean - half, mean + half], atol=0.1 * half)


def test_draws_do_not_depend_on_their_blocks(monkeypatch):
    values = np.random.default_rng(2).random((50, 2))
    whole = bootstrap_intervals(values, seed=3, num_draws=200)
    monkeypatch.setattr("stx_mine.stages.evaluate.core.resampling._BLOCK", 50 * 100)
    np.testing.assert_allclose(bootstrap_intervals(values, seed=3, num_draws=200), whole)


@given(st.integers(1, 30), st.integers(0, 5))
def test_an_interval_of_equal_values_is_a_point(num_queries, seed):
    found = bootstrap_intervals(np.full((num_queries, 2), 0.25), seed, num_draws=50)
    np.testing.assert_allclose(found, 0.25)


def test_a_column_has_its_interval_whatever_stands_beside_it():
    values = np.random.default_rng(2).random((50, 3))
    together = bootstrap_intervals(values, seed=3)
    np.testing.assert_allclose(bootstrap_intervals(values[:, 1:2], seed=3)[:, 0], together[:, 1])


@pytest.mark.parametrize("seed", range(3))
def test_the_randomisation_test_is_that_of_all_sign_patterns(seed):
    gaps = np.random.default_rng(seed).normal(0.3, 1, 11)
    means = np.array([np.dot(signs, gaps) for signs in product((-1, 1), repeat=11)])
    exact = (np.abs(means) >= abs(gaps.sum()) - 1e-12).mean()
    (found,) = randomisation_p_values(gaps[:, None], seed=0)
    assert found == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 10_000) + 2e-4)


def test_p_values_of_known_cases():
    alike, clear = np.zeros(40), np.full(40, 0.1)
    balanced = np.tile([0.2, -0.2], 20)
    one_query = np.eye(40)[0]
    found = randomisation_p_values(np.stack([alike, clear, balanced, one_query], axis=1), seed=0)
    np.testing.assert_allclose(found, [1, 1 / 10_001, 1, 1])
    mixed = np.random.default_rng(0).normal(0.2, 1, (60, 1))
    np.testing.assert_array_equal(
        randomisation_p_values(mixed, seed=1), randomisation_p_values(-mixed, seed=1)
    )


def test_the_paired_test_finds_what_the_intervals_of_the_means_hide():
    """A small gain on every query, between queries that differ by far."""
    base = np.random.default_rng(0).random(200)
    better = {metric: base + 0.01 for metric in METRICS}
    scored = [Scored("a", None, {metric: base for metric in METRICS}), Scored("b", None, better)]
    found = summary_json(metric_summaries(scored, None, seed=0))
    one, two = (row["ndcg@10"] for row in found["scores"])
    assert one["low"] < two["mean"] < one["high"]
    (gap,) = found["differences"]
    assert (gap["model"], gap["other"], gap["num_queries"]) == ("b", "a", 200)
    assert gap["ndcg@10"]["low"] == pytest.approx(0.01)
    assert gap["ndcg@10"]["p"] < 0.001


def test_parts_are_summarised_by_themselves():
    values = np.array([0.0, 0.2, 0.6, 1.0])
    scored = [Scored("a", None, {metric: values for metric in METRICS})]
    seen = np.array([True, False, False, True])
    found = summary_json(metric_summaries(scored, InTraining(Share(1, 4), Share(2, 6), seen), 0))
    means = {row["queries"]: row["mrr@10"]["mean"] for row in found["scores"]}
    assert means == pytest.approx({"all": 0.45, "seen": 0.5, "unseen": 0.4})
    assert found["seen_in_training"] == {
        "by_text": {"seen": 1, "of": 4},
        "by_positive": {"seen": 2, "of": 6},
        "by_group": {"seen": 2, "of": 4},
    }
    assert found["differences"] == []


@pytest.mark.parametrize("known", [False, True])
def test_no_row_is_said_twice_where_all_or_none_are_seen(known):
    values = np.array([0.0, 0.2, 0.6, 1.0])
    scored = [Scored(name, None, {metric: values for metric in METRICS}) for name in "ab"]
    seen = InTraining(Share(0, 4), Share(0, 4), np.full(4, known))
    found = summary_json(metric_summaries(scored, seen, 0))
    assert [(row["model"], row["queries"]) for row in found["scores"]] == [
        ("a", "all"),
        ("b", "all"),
    ]
    assert [row["queries"] for row in found["differences"]] == ["all"]


def test_pairs_are_compared_at_equal_dimensions_and_each_model_with_its_own_prefix():
    values = {metric: np.random.default_rng(0).random(5) for metric in METRICS}
    scored = [Scored(name, dims, values) for name in "ab" for dims in (None, 8)]
    pairs = {
        (one["model"], one["dims"], one["other"], one["other_dims"])
        for one in summary_json(metric_summaries(scored, None, 0))["differences"]
    }
    assert pairs == {
        ("a", 8, "a", None),
        ("b", 8, "b", None),
        ("b", None, "a", None),
        ("b", 8, "a", 8),
    }


def test_a_table_has_straight_columns():
    assert plain_table([["a", "b"], ["long", "1"], ["x", "22"]]) == [
        "a      b",
        "long   1",
        "x     22",
    ]


# --- seen in training ---

TRAINED = [
    ("how to list files", "ls"),
    ("how to list files", "dir"),
    ("remove a file", "rm"),
    ("copy", "cp"),
]
HELD_OUT = [
    # Text of a training query, but for white space.
    ("how  to list\u00a0files", "new one", True),
    # One of two positives is a training positive.
    ("show a folder", "another", True),
    ("show a folder", " dir ", True),
    # A passage of the corpus that is nobody's positive.
    ("print text", "echo", False),
    # The query is the text of a training positive, not of a training query.
    ("cp", "duplicate", False),
    # A positive with the text of a training query.
    ("erase", "remove a file", False),
    ("Copy", "case counts", False),
]


@pytest.fixture
def trained_run(tmp_path) -> Path:
    corpus = tmp_path / "corpus.parquet"
    pq.write_table(pa.table({"passage": ["echo", "mkdir"]}), corpus)
    pairs = write_pairs(tmp_path / "train.parquet", TRAINED)
    run_ingest(IngestConfig(run_dir=str(tmp_path / "run"), pairs=pairs, corpus=str(corpus)))
    return tmp_path / "run"


def test_seen_queries_of_a_run_made_by_hand(trained_run, tmp_path):
    data = write_pairs(tmp_path / "held_out.parquet", [(q, p) for q, p, _ in HELD_OUT])
    config = EvaluateConfig(data=(data,))
    data = read_evaluation_set("held_out", PairSource.open(data, config, "test"))
    store = TextStore.open(require(RunDir(trained_run), "texts"))
    expected = list({query: seen for query, _, seen in HELD_OUT}.values())
    found = in_training(store, TextGroups.of_texts(store), data)
    assert found.seen.tolist() == expected
    assert found.by_text == (1, 6)
    # " dir "; the text of a training query is no positive.
    assert found.by_positive == (1, 7)


def test_seen_and_unseen_stand_in_the_report_and_in_the_files(trained_run, tmp_path):
    data = write_pairs(tmp_path / "held_out.parquet", [(q, p) for q, p, _ in HELD_OUT])
    config = EvaluateConfig(
        run_dir=str(trained_run), data=(data,), models=("package:wordllama",), device="cpu"
    )
    report = run_evaluate(config)
    lines = [line for line in report.lines if line.startswith("in training by")]
    assert [line.split(" (")[0] for line in lines] == [
        "in training by text: 1 of 6",
        "in training by positive: 1 of 7",
        "in training by group: 2 of 6",
    ]
    assert (
        "17% of the queries by text, 14% of the positives, 33% of the queries by group"
        in (report.warnings[0])
    )
    results = read_json(trained_run / "evaluations/held_out/results.json")
    assert results["seen_in_training"] == {
        "by_text": {"seen": 1, "of": 6},
        "by_positive": {"seen": 1, "of": 7},
        "by_group": {"seen": 2, "of": 6},
    }
    table = pq.read_table(trained_run / "evaluations/held_out/queries.parquet")
    for row in results["scores"]:
        values = table["ndcg@10"].to_numpy()
        seen = table["seen"].to_numpy()
        chosen = {"all": np.ones(6, bool), "seen": seen, "unseen": ~seen}[row["queries"]]
        assert row["ndcg@10"]["mean"] == pytest.approx(values[chosen].mean())
        assert row["num_queries"] == chosen.sum()
    # Other training pairs, other answer: nothing is reported from before.
    write_pairs(tmp_path / "train.parquet", [*TRAINED, ("say", "echo")])
    run_ingest(
        IngestConfig(
            run_dir=str(trained_run),
            pairs=str(tmp_path / "train.parquet"),
            corpus=str(tmp_path / "corpus.parquet"),
            overwrite=True,
        )
    )
    again = run_evaluate(config)
    assert not again.skipped
    assert any("in training by group: 3 of 6" in line for line in again.lines)
    assert again.lines[0].startswith("made anew: texts/")


def test_without_texts_of_a_run_seen_is_not_reported_and_that_is_said(tmp_path):
    data = write_pairs(tmp_path / "data.parquet", [(q, p) for q, p, _ in HELD_OUT])
    report = run_evaluate(EvaluateConfig(run_dir=str(tmp_path / "run"), data=(data,), device="cpu"))
    assert any("not told apart" in line for line in report.lines)
    results = read_json(tmp_path / "run/evaluations/data/results.json")
    assert results["seen_in_training"] is None
    assert {row["queries"] for row in results["scores"]} == {"all"}
    table = pq.read_table(tmp_path / "run/evaluations/data/queries.parquet")
    assert table["seen"].null_count == table.num_rows


# --- search in blocks, and prefixes ---


@pytest.mark.parametrize("similarity", ["cosine", "dot", "euclidean"])
def test_passages_in_blocks_are_found_as_by_one_search(similarity):
    rng = np.random.default_rng(0)
    passages = rng.integers(-2, 3, (90, 4)).astype(np.float32)  # Many ties.
    queries = rng.integers(-2, 3, (7, 4)).astype(np.float32)
    top = BlockTop(queries, 20, similarity, "cpu")
    for start, stop in ((0, 5), (5, 60), (60, 90)):
        top.offer(passages[start:stop])
    whole = ExactSearcher(Vectors((passages,), similarity), device="cpu")
    expected = whole.search(Similarity(similarity).prepare(queries), 20)
    np.testing.assert_array_equal(top.ids_QK, expected.ids_QK)
    np.testing.assert_array_equal(top.scores_QK, expected.scores_QK)
    assert top.num_passages == 90


@dataclass(frozen=True)
class CountingEncoder(SentenceTransformerEncoder):
    """Remembers how many texts of each role it has encoded."""

    encoded: dict[str, int] = field(default_factory=dict)

    def encode(self, texts, role, prompt=None):
        self.encoded[role] = self.encoded.get(role, 0) + len(texts)
        return super().encode(texts, role, prompt)


@pytest.fixture(scope="module")
def small_data(repo_root):
    """60 queries of the quickstart's dev split, their texts and pairs."""
    table = pq.read_table(repo_root / "data/quickstart/dev.parquet").slice(0, 60)
    queries = list(dict.fromkeys(table["query"].to_pylist()))
    passages = list(dict.fromkeys(table["passage"].to_pylist()))
    return queries, passages, table


@pytest.fixture
def evaluation_set(small_data, tmp_path):
    path = tmp_path / "dev.parquet"
    pq.write_table(small_data[2], path)
    return read_evaluation_set("dev", PairSource.open(str(path), EvaluateConfig(), "test"))


def test_a_prefix_is_cut_and_scaled_to_unit_length(evaluation_set, small_data, monkeypatch):
    data, texts = evaluation_set, evaluation_set.texts
    assert texts["query"].to_pylist() == small_data[0]
    assert texts["passage"].to_pylist() == small_data[1]
    encoder = CountingEncoder.load("package:wordllama", "cpu", None, 256)
    monkeypatch.setattr(model_metrics, "_ENCODE_ROWS", 23)
    by_dims = evaluate_dims(encoder, data, "cpu", dims=(3, 16))
    counts = {role: len(column) for role, column in texts.items()}
    assert encoder.encoded == counts, "every text is encoded once, whatever the dims"
    queries, passages = (
        encoder.encode(texts[role].to_pylist(), role).astype(float) for role in ("query", "passage")
    )
    relevant = ragged_sets(data.positives[:, 0], data.positives[:, 1], len(texts["query"]))
    judged = Relevance.binary(relevant)
    # No query stands among the passages.
    assert len(data.left_out.values) == 0
    for dims in (None, 3, 16):
        cut = [vectors[:, :dims] for vectors in (queries, passages)]
        q, p = (vectors / np.linalg.norm(vectors, axis=1)[:, None] for vectors in cut)
        expected = retrieval_metrics(np.argsort(-(q @ p.T), axis=1, kind="stable"), judged)
        for metric in METRICS:
            np.testing.assert_allclose(by_dims[dims][metric], expected[metric])
    plain = evaluate(encoder, data, "cpu")
    for metric in METRICS:
        np.testing.assert_array_equal(plain[metric], by_dims[None][metric])
    assert by_dims[3]["ndcg@10"].mean() < by_dims[16]["ndcg@10"].mean()


def test_dims_beyond_the_model_are_refused(tmp_path):
    data = write_pairs(tmp_path / "data.parquet", [("q", "p")])
    with pytest.raises(ConfigError, match=r"--dims .* 256 dimensions .*wordllama.*found 257"):
        run_evaluate(
            EvaluateConfig(run_dir=str(tmp_path), data=(data,), dims=(64, 257), device="cpu")
        )
    with pytest.raises(ConfigError, match="--dims must be at least 1, found 0"):
        EvaluateConfig(dims=(8, 0))


# --- the command ---


def test_models_by_folders_with_dims(shared_data, tmp_path, cli_here, tiny_transformer):
    base, tiny = "package:wordllama", str(tiny_transformer)
    folders = [shared_data / name for name in ("xquad-en", "xquad-zh")]
    arguments = ["--dims", "4,16", "--dims", "32", "--device", "cpu"]
    command = ["evaluate", *folders, "--models", base, "--models", tiny, *arguments]
    done = cli_here(*command, run_dir=tmp_path)
    assert done.code == 0, done
    run = RunDir(tmp_path)
    overview = read_json(tmp_path / "evaluations/overview/results.json")
    for name in ("xquad-en", "xquad-zh"):
        results = read_json(tmp_path / f"evaluations/{name}/results.json")
        labels = [(row["model"], row["dims"]) for row in results["scores"]]
        assert labels == [(model, dims) for model in (base, tiny) for dims in (None, 4, 16, 32)]
        table = pq.read_table(tmp_path / f"evaluations/{name}/queries.parquet").to_pandas()
        assert table["original_id"].notna().all()
        # A later paired test needs the file alone.
        full = table[table["dims"].isna()].pivot(index="query_id", columns="model")["ndcg@10"]
        gaps = (full[tiny] - full[base]).to_numpy()
        (stored,) = (
            one
            for one in results["differences"]
            if one["dims"] is one["other_dims"] is None and one["model"] == tiny
        )
        assert stored["ndcg@10"]["mean"] == pytest.approx(gaps.mean())
        assert [stored["ndcg@10"]["p"]] == randomisation_p_values(gaps[:, None], seed=42).tolist()
        low, high = bootstrap_intervals(gaps[:, None], seed=42)[:, 0]
        assert (stored["ndcg@10"]["low"], stored["ndcg@10"]["high"]) == pytest.approx((low, high))
        assert results["scores"][0]["ndcg@10"]["mean"] == read_results(run, name)[base]["ndcg@10"]
    by_data = [read_results(run, name)[base]["ndcg@10"] for name in ("xquad-en", "xquad-zh")]
    assert overview["models"][base]["ndcg@10"] == pytest.approx(np.mean(by_data))
    lines = [one for one in done.stdout.splitlines() if one.startswith(f"  {base} ")]
    (line,) = (one for one in lines if len(one.split()) == 4)
    assert line.split()[1:] == [f"{value:.4f}" for value in (*by_data, np.mean(by_data))]
    again = cli_here(*command, run_dir=tmp_path)
    assert again.stdout.count("evaluations: done before, skipped") == 3


def test_two_data_sets_of_one_name_are_refused(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        write_pairs(tmp_path / folder / "test.parquet", [("q", "p")])
    data = tuple(str(tmp_path / folder / "test.parquet") for folder in ("one", "two"))
    with pytest.raises(ConfigError, match=r"different names, found 'test' twice .*--name"):
        run_evaluate(EvaluateConfig(run_dir=str(tmp_path / "run"), data=data))
    with pytest.raises(ConfigError, match=r"overview of several is named 'test'"):
        run_evaluate(EvaluateConfig(run_dir=str(tmp_path / "run"), data=data, name="test"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["../model", "", ".", "..", ".x", "a/b", "dev.old", "a\nb", "C:x"])
def test_a_name_that_is_none_of_a_folder_is_refused(tmp_path, name):
    folder = tmp_path / "run" / "evaluations"
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    data = write_pairs(tmp_path / "test.jsonl", [("q", "p")])
    for several in ((data,), (data, data)):
        with pytest.raises(ConfigError, match="--name"):
            run_evaluate(EvaluateConfig(run_dir=str(tmp_path / "run"), data=several, name=name))
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


def test_data_is_named_by_its_file_without_the_format(tmp_path):
    (tmp_path / "beir.v1").mkdir()
    names = {"dev.a.parquet": "dev.a", "dev.parquet": "dev", ".x.parquet": "x", "a.jsonl.gz": "a"}
    for file, name in {**names, "beir.v1": "beir.v1", "noformat": "noformat"}.items():
        assert data_name(str(tmp_path / file)) == name
    with pytest.raises(ConfigError, match=r"rename the data"):
        named_data(EvaluateConfig(data=(str(tmp_path / "a\nb.parquet"),)))


def test_a_single_string_is_a_list_of_one(tmp_path):
    from stx_mine.pipeline import load_pipeline

    assert EvaluateConfig(data="dev.parquet").data == ("dev.parquet",)
    path = tmp_path / "pipeline.yaml"
    path.write_text("evaluate:\n  data: dev.parquet\n  models: [a, b]\n  dims: 64\n")
    settings = load_pipeline(str(path), []).settings["evaluate"]
    assert settings == {"data": ("dev.parquet",), "models": ("a", "b"), "dims": (64,)}
    path.write_text("evaluate:\n  dims: many\n")
    with pytest.raises(ConfigError, match=r"dims must be a list, each a whole number"):
        load_pipeline(str(path), [])


def test_numbers_between_commas_are_checked(cli_here, tmp_path):
    error = cli_here("evaluate", "DATA", "--dims", "64,many", run_dir=tmp_path).error
    assert "whole numbers between commas, found '64,many'" in error


def test_results_are_json_without_nan(trained_run, tmp_path):
    data = write_pairs(tmp_path / "one.parquet", [("copy", "cp")])
    run_evaluate(EvaluateConfig(run_dir=str(trained_run), data=(data,), device="cpu"))
    text = (trained_run / "evaluations/one/results.json").read_text()
    assert "NaN" not in text
    row = json.loads(text)["scores"][0]
    assert row["ndcg@10"] == {"mean": 1.0, "low": 1.0, "high": 1.0}


def scores_and_differences(values):
    """Summaries of models by the nDCG of each query; other metrics are zero."""
    scored = [
        Scored(name, None, {metric: np.array(one) * (metric == "ndcg@10") for metric in METRICS})
        for name, one in values.items()
    ]
    summary = metric_summaries(scored, None, 0)
    return summary.scores, summary.differences


def test_models_are_ranked_and_the_best_is_named_where_it_can_be_told():
    rng = np.random.default_rng(0)
    base = rng.random(300) / 2
    scores, differences = scores_and_differences(
        {"weak": base, "best": base + 0.3, "middle": base + rng.normal(0.1, 0.05, 300)}
    )
    assert [one.model for one in report_module._ranked(scores)] == ["best", "middle", "weak"]
    [line] = report_module.winner_line(scores, differences)
    means = {one.model: one.metrics["ndcg@10"]["mean"] for one in scores}
    gap = means["best"] - means["middle"]
    assert line.startswith(f"best: best, ndcg@10 {gap:+.4f} [+0.1") and "over middle" in line
    noisy = base + rng.normal(0, 0.2, 300)
    noisy += base.mean() - noisy.mean() + 0.001
    scores, differences = scores_and_differences({"one": base, "two": noisy})
    [line] = report_module.winner_line(scores, differences)
    assert line.startswith("two and one cannot be told apart: ndcg@10 +0.0010 [-")
    assert report_module.winner_line(*scores_and_differences({"alone": base})) == []

"""`show`: what a person sees is what the artifacts hold."""

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from conftest import Cli
from hypothesis import given
from hypothesis import strategies as st

from stx_mine.core.verdicts import Verdict
from stx_mine.errors import ArtifactError, ConfigError, InputError
from stx_mine.stages.judge.config import JudgeConfig
from stx_mine.stages.judge.stage import run_judge
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.stage import run_mine
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.stage import run_pack
from stx_mine.stages.show.config import ShowConfig
from stx_mine.stages.show.finding import find_text
from stx_mine.stages.show.stage import run_show
from stx_mine.store.artifact import require
from stx_mine.store.batches import list_packings
from stx_mine.store.negatives import pool_files, read_verdicts
from stx_mine.store.run_dir import RunDir
from stx_mine.store.texts import TextStore
from stx_mine.store.vectors import Vectors


def shown(run: Path, **options):
    return json.loads(run_show(ShowConfig(run_dir=str(run), json=True, **options)).document)


def text_of(run: Path, **options) -> str:
    return run_show(ShowConfig(run_dir=str(run), **options)).document


def rows_of(run: Path) -> dict[int, dict]:
    negatives = require(RunDir(run), "negatives")
    return {
        row["query_id"]: row
        for name in pool_files(negatives)
        for row in read_verdicts(negatives, name).to_pylist()
    }


def store_of(run: Path) -> TextStore:
    return TextStore.open(require(RunDir(run), "texts"))


def test_a_query_shows_what_was_decided_about_its_hits(small_run: Path) -> None:
    rows, store = rows_of(small_run), store_of(small_run)
    texts, passages = store.queries.to_pylist(), store.passages.to_pylist()
    for query in list(rows)[:40]:
        row = rows[query]
        [found] = shown(small_run, query=texts[query]["text"], limit=10_000)["queries"]
        assert (found["id"], found["text"]) == (query, texts[query]["text"])
        assert [one["id"] for one in found["candidates"]] == row["hit_ids"]
        assert [one["text"] for one in found["candidates"]] == [
            passages[one]["text"] for one in row["hit_ids"]
        ]
        names = [Verdict(one).name.lower().replace("_", " ") for one in row["verdicts"]]
        assert [one["verdict"] for one in found["candidates"]] == names
        assert found["verdicts"] == Counter(names)
        slots = {one["id"]: one["slot"] for one in found["candidates"] if one["slot"] is not None}
        assert slots == {passage: slot for slot, passage in enumerate(row["passage_ids"])}
        ranks = {one["id"]: one["rank"] for one in found["candidates"]}
        assert [ranks[passage] for passage in row["passage_ids"]] == row["ranks"]
        known = store.pair_passage_ids[store.pair_query_ids == query].tolist()
        assert [one["id"] for one in found["positives"]] == known
        lowest = min(one["score"] for one in found["positives"])
        assert found["limit_score"] == pytest.approx(lowest, abs=1e-6)


def test_a_passage_shows_whose_negative_it_is(small_run: Path) -> None:
    rows, store = rows_of(small_run), store_of(small_run)
    uses = Counter(passage for row in rows.values() for passage in row["passage_ids"])
    listed = shown(small_run, most_used=True, limit=5)
    assert [one["num_uses"] for one in listed["passages"]] == [n for _, n in uses.most_common(5)]
    assert listed["num_more"] == len(uses) - 5
    [first] = shown(small_run, passage=listed["passages"][0]["text"], limit=10_000)["passages"]
    passage = first["id"]
    expected = {
        q: row["passage_ids"].index(passage)
        for q, row in rows.items()
        if passage in row["passage_ids"]
    }
    assert {one["id"]: one["slot"] for one in first["negative_of"]} == expected
    known = store.pair_query_ids[store.pair_passage_ids == passage].tolist()
    assert [one["id"] for one in first["positive_of"]] == known


def test_queries_without_negatives_are_those_with_empty_pools(run_copy: Path) -> None:
    run_mine(MineConfig(run_dir=str(run_copy), k=4, relative_margin=0.3, device="cpu"))
    rows = rows_of(run_copy)
    expected = [query for query, row in rows.items() if not row["passage_ids"]]
    found = shown(run_copy, without_negatives=True, limit=10_000)
    assert len(expected) > 5
    assert [one["id"] for one in found["queries"]] == expected
    assert all(one["candidates"] and "pooled" not in one["verdicts"] for one in found["queries"])
    assert "there is nothing of that kind" not in text_of(run_copy, without_negatives=True)


def test_suspects_score_lowest_among_random_passages(small_run: Path) -> None:
    run, store = RunDir(small_run), store_of(small_run)
    found = shown(small_run, suspects=True, limit=10_000)["suspects"]
    assert len(found) == store.num_pairs
    embeddings = require(run, "embeddings")
    queries, passages = (Vectors.open(embeddings, role) for role in ("queries", "passages"))
    all_queries, all_passages = (
        queries.take(np.arange(len(queries))),
        passages.take(np.arange(len(passages))),
    )
    rng = np.random.default_rng(42)
    drawn = np.sort(rng.choice(len(passages), min(128, len(passages)), replace=False))
    for one in [*found[:20], *found[-5:]]:
        vector = all_queries[one["query"]["id"]]
        score = vector @ all_passages[one["positive"]["id"]]
        assert one["positive"]["score"] == pytest.approx(score, abs=1e-5)
        below = 100 * (all_passages[drawn] @ vector < score).mean()
        assert one["percentile"] == pytest.approx(below, abs=1.0)
    percentiles = [one["percentile"] for one in found]
    assert percentiles == sorted(percentiles)


def test_drawn_queries_are_those_of_the_seed(small_run: Path) -> None:
    draws = [
        tuple(one["id"] for one in shown(small_run, random=5, seed=seed)["queries"])
        for seed in (1, 1, 2)
    ]
    assert draws[0] == draws[1] != draws[2]
    assert len(shown(small_run)["queries"]) == 3


@pytest.mark.parametrize("layout", ["inline", "ids"])
def test_a_batch_shows_its_make_up(run_copy: Path, layout: str) -> None:
    run_pack(PackConfig(run_dir=str(run_copy), batch_size=64, k=2, layout=layout))
    [found] = shown(run_copy, batch="0:1", limit=3)["batches"]
    [shards, *_] = list_packings(run_copy / "batches")
    assert shards[0].num_batches > 1
    table = shards[0].batch(1)
    rows = table.to_pylist()
    ids = [
        one for row in rows for one in (row["anchor_id"], row["positive_id"], *row["negative_ids"])
    ]
    assert (found["num_rows"], found["num_slots"]) == (64, len(ids))
    assert found["num_texts"] == len(set(ids))
    assert found["num_ignored"] == sum(len(row["ignore_ids"]) for row in rows)
    assert [one["anchor"] for one in found["rows"]] == [row["anchor"] for row in rows[:3]]
    assert found["rows"][0]["negatives"] == [rows[0]["negative_1"], rows[0]["negative_2"]]
    assert "distinct texts" in text_of(run_copy, batch="0:1")
    for batch in ("0:9999", "9:0"):
        with pytest.raises(ConfigError, match=f"no batch --batch {batch}"):
            shown(run_copy, batch=batch)


def test_judgements_stand_beside_candidates(run_copy: Path, monkeypatch) -> None:
    (run_copy.parent / "judge_by_length.py").write_text(
        "import numpy as np\n"
        "def judge(pairs):\n    return np.array([1 / (1 + len(p)) for _, p in pairs])\n"
    )
    monkeypatch.chdir(run_copy.parent)
    run_judge(
        JudgeConfig(run_dir=str(run_copy), cross_encoder="judge_by_length:judge", name="short")
    )
    found = shown(run_copy, random=20)["queries"]
    judged = [
        (one["judged"]["short"], one["text"])
        for query in found
        for one in [*query["candidates"], *query["positives"]]
        if one["judged"]
    ]
    assert len(judged) > 20
    assert all(score == pytest.approx(1 / (1 + len(text)), rel=1e-5) for score, text in judged)
    assert "judge short" in text_of(run_copy, random=20)


def test_a_text_that_is_not_there_is_guessed_by_its_words(small_run: Path) -> None:
    store = store_of(small_run)
    text = store.queries.column("text")[7].as_py()
    words = " ".join(sorted(text.split(), key=len, reverse=True)[:3])
    found = shown(small_run, query=words + " zzzz")
    assert "most alike by its words" in found["notes"][0]
    assert any(word in found["queries"][0]["text"].lower() for word in words.lower().split())
    with pytest.raises(InputError, match="no query has the text or the original id 'zzzz'"):
        shown(small_run, query="zzzz")
    ids = store.queries.column("original_id").to_pylist()
    if ids[3] is not None:
        assert shown(small_run, query=ids[3])["queries"][0]["id"] == 3


@given(st.lists(st.text("ab .*[(", min_size=1), min_size=1, max_size=8), st.text("ab.*[("))
def test_whatever_is_asked_for_a_text_is_found_or_refused(texts, name) -> None:
    table = pa.table(
        {
            "text": pa.chunked_array([pa.array(texts, pa.large_string())]),
            "original_id": pa.chunked_array([pa.nulls(len(texts), pa.large_string())]),
        }
    )
    try:
        number, note = find_text(table, name, "query")
    except InputError:
        return
    assert 0 <= number < len(texts)
    assert note or texts[number].split() == name.split() or texts.count(texts[number])


def test_texts_of_any_kind_stay_on_their_line(run_copy: Path, cli_here: Cli) -> None:
    done = cli_here("show", "--random", "2", run_dir=run_copy)
    assert done.code == 0, done.stderr
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 120
    assert "\x1b" not in done.stdout
    assert not any(line != line.rstrip() for line in lines)
    whole = cli_here("show", "--random", "2", "--full", "--json", run_dir=run_copy)
    assert len(json.loads(whole.stdout)["queries"]) == 2


def test_what_cannot_be_shown_is_refused(small_run: Path, tmp_path: Path) -> None:
    for options, words in (
        ({"query": "a", "suspects": True}, "expected one thing to show, found --query and"),
        ({"batch": "1"}, "--batch must be EPOCH:BATCH"),
        ({"batch": "a:b"}, "--batch must be EPOCH:BATCH"),
        ({"seed": 3}, "--seed 3 needs --random"),
    ):
        with pytest.raises(ConfigError, match=words):
            ShowConfig(**options)
    with pytest.raises(ArtifactError):
        shown(tmp_path / "nothing")
    with pytest.raises(ArtifactError, match="batches"):
        shown(small_run, batch="0:0")


def test_nothing_is_written(small_run: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in small_run.rglob("*") if path.is_file()}
    for options in ({}, {"suspects": True}, {"most_used": True}, {"without_negatives": True}):
        assert asdict(run_show(ShowConfig(run_dir=str(small_run), **options)))["document"]
    after = {path: path.stat().st_mtime_ns for path in small_run.rglob("*") if path.is_file()}
    assert {path: after[path] for path in before} == before

"""`report`: the page says what artifacts hold, escapes what people bring, needs no other file."""

import json
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from conftest import Cli
from hostile_run import SCRIPT, make_hostile_run

from stx_mine import Run
from stx_mine.core.verdicts import NO_CANDIDATES, Verdict
from stx_mine.errors import ArtifactError, ConfigError
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.stage import run_mine
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.stage import run_pack
from stx_mine.stages.report import atlas, mined_facts, packed_facts
from stx_mine.stages.report.config import ReportConfig
from stx_mine.stages.report.facts import SECTIONS
from stx_mine.stages.report.stage import run_report
from stx_mine.stages.show.config import ShowConfig
from stx_mine.stages.show.stage import run_show
from stx_mine.store.artifact import require
from stx_mine.store.batches import list_packings
from stx_mine.store.negatives import pool_files, read_verdicts
from stx_mine.store.run_dir import RunDir
from stx_mine.store.texts import TextStore
from stx_mine.store.vectors import Vectors

VOID = {"meta", "input", "path", "br", "link", "img"}


class Parsed(HTMLParser):
    """The elements of a page, their nesting checked, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def values(self, attribute: str) -> list[str]:
        return [attrs[attribute] for _, attrs in self.elements if attrs.get(attribute)]


def reported(run: Path, **options) -> tuple[dict, Parsed]:
    run_report(ReportConfig(run_dir=str(run), **options))
    folder = run / "report"
    facts = json.loads((folder / "report.json").read_text("utf-8"))
    return facts, Parsed((folder / "report.html").read_text("utf-8"))


def rows_of(run: Path) -> list[dict]:
    negatives = require(RunDir(run), "negatives")
    return [
        row for name in pool_files(negatives) for row in read_verdicts(negatives, name).to_pylist()
    ]


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_hostile_run(tmp_path_factory.mktemp("report"))


def test_all_sections_are_there_and_nothing_is_loaded(whole_run: Path) -> None:
    facts, page = reported(whole_run)
    assert facts["left_out"] == {}
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    assert {name for name, _ in SECTIONS} <= set(ids)
    # What others refer to is there; nothing refers to another file.
    named = [name for value in page.values("aria-labelledby") for name in value.split()]
    assert {*named, *page.values("for")} <= set(ids)
    assert {value.removeprefix("#") for value in page.values("href")} <= set(ids)
    assert page.values("src") == []
    html = (whole_run / "report/report.html").read_text("utf-8")
    assert "http://" not in html
    assert "https://" not in html
    assert "url(" not in html
    assert len(html) < 5_000_000
    figures = [attrs for tag, attrs in page.elements if tag == "svg" and attrs.get("role")]
    assert len(figures) >= 6
    assert all(attrs["role"] == "img" and attrs["aria-labelledby"] for attrs in figures)


def test_what_people_bring_is_text(whole_run: Path) -> None:
    facts, page = reported(whole_run)
    scripts = [attrs for tag, attrs in page.elements if tag == "script"]
    assert scripts == [{}]
    assert not [tag for tag, _ in page.elements if tag in ("img", "b", "i", "u")]
    assert not [name for _, attrs in page.elements for name in attrs if name.startswith("on")]
    shown = "".join(page.texts)
    for text in (SCRIPT, "onerror=alert(2)", "<b>pairs & more.parquet", "held <u>out", "run<i>"):
        assert text in shown
    assert "\x1b" not in shown
    assert all(one["query"] in shown for one in facts["queries"])


def test_the_page_has_the_numbers_of_the_file(whole_run: Path) -> None:
    facts, page = reported(whole_run)
    shown = "".join(page.texts)
    for one in facts["glance"]["numbers"]:
        assert one["label"] in shown
    for one in facts["waterfall"]:
        assert f"{one['hits']:,}" in shown
    assert facts["evaluations"][0]["winner"] in shown
    assert "ndcg@10" in facts["evaluations"][0]["winner"]
    for one in facts["tuning"]["finalists"]:
        assert one["name"] in shown
        assert f"{one['mean']:.4f}" in shown
    assert "could not" not in facts["tuning"]["taken"]
    failed = next(one for one in facts["tuning"]["trials"] if one["failure"])
    assert failed["failure"] in shown
    for score in facts["evaluations"][0]["scores"]:
        assert f"{score['metrics']['ndcg@10']['mean']:.4f}" in shown
    [finding] = facts["audits"]
    audit = require(RunDir(whole_run), "audits", "judged-short").counts
    assert (finding["num_audited"], finding["num_false"]) == (audit["audited"], audit["false"])
    assert f"{audit['false']:,} of {audit['audited']:,}" in shown
    assert "judge short" in shown
    labels = {one["label"]: one["value"] for one in facts["glance"]["numbers"]}
    assert (labels["pairs read"], labels["rows of a batch"]) == (80, 16)
    assert facts["glance"]["inputs"][0]["columns"].startswith("query from query")
    model = require(RunDir(whole_run), "model")
    seconds = {one["name"]: one["seconds"] for one in facts["glance"]["artifacts"]}
    assert seconds["model"] == model.counts["seconds"]
    assert [one["name"] for one in facts["training"]["loss"]] == ["training loss"]


def test_batches_are_counted_as_they_are(whole_run: Path, monkeypatch) -> None:
    facts, _ = reported(whole_run, overwrite=True)
    tables = [
        shard.batch(number).to_pylist()
        for shards in list_packings(whole_run / "batches")
        for shard in shards
        for number in range(shard.num_batches)
    ]
    ids = [
        [
            one
            for row in table
            for one in (row["anchor_id"], row["positive_id"], *row["negative_ids"])
        ]
        for table in tables
    ]
    found = facts["batches"]
    assert (found["looked_at"], found["of_batches"], found["packings"]) == (10, 10, 2)
    masked = [sum(len(row["ignore_ids"]) for row in table) for table in tables]
    for name, numbers in (
        ("places", [len(one) for one in ids]),
        ("distinct texts", [len(set(one)) for one in ids]),
        ("masked texts", masked),
    ):
        expected = {"least": min(numbers), "mean": np.mean(numbers), "most": max(numbers)}
        assert found["spreads"][name] == pytest.approx(expected)
    distinct = sum(len(set(one)) for one in ids)
    assert found["distinct_share"] == pytest.approx(distinct / sum(map(len, ids)))
    monkeypatch.setattr(packed_facts, "MOST_ROWS", 48)
    facts, page = reported(whole_run, overwrite=True)
    assert facts["batches"]["looked_at"] == 3
    assert "of 3 of 10 batches" in "".join(page.texts)


def test_scores_are_those_of_the_hits(small_run: Path, run_copy: Path) -> None:
    facts, _ = reported(run_copy)
    rows, k = rows_of(run_copy), 4
    negatives = require(RunDir(run_copy), "negatives")
    counts = {one["verdict"]: one["hits"] for one in facts["waterfall"]}
    verdicts = Counter(
        Verdict(one).name.lower().replace("_", " ") for row in rows for one in row["verdicts"]
    )
    assert counts == verdicts
    found = facts["scores"]
    assert found["units"] == found["of_units"] == len(rows)
    dropped = [
        score
        for row in rows
        for score, one in zip(row["hit_scores"], row["verdicts"], strict=True)
        if one not in (*NO_CANDIDATES, Verdict.POOLED, Verdict.BEYOND_POOL)
    ]
    chosen = [score for row in rows for score in row["scores"][:k]]
    positives = [row["positive_score"] for row in rows]
    for name, scores in (("positive", positives), ("negative", chosen), ("dropped", dropped)):
        expected = np.histogram(scores, found["edges"])[0] / len(scores)
        assert found[name] == pytest.approx(expected)
    assert found["median_positive"] == pytest.approx(np.median(positives))
    uses = Counter(passage for row in rows for passage in row["passage_ids"])
    assert [one["uses"] for one in facts["uses"]["most_used"]] == [
        n for _, n in uses.most_common(10)
    ]
    assert facts["uses"]["used"] == len(uses)
    groups = require(RunDir(run_copy), "groups").counts
    assert (facts["groups"]["texts"], facts["groups"]["groups"]) == (
        groups["texts"],
        groups["groups"],
    )
    # At the margin that is set, the curve is what mine has counted.
    place = found["margins"]["margins"].index(found["margin_set"])
    total = negatives.counts["rows"]
    assert found["margins"]["full"][place] == pytest.approx(negatives.counts["rows_full"] / total)


@pytest.mark.parametrize("options", [{}, {"positive_score": "pair"}])
def test_the_margin_curve_is_what_mine_makes_of_other_margins(run_copy: Path, options) -> None:
    run_mine(MineConfig(run_dir=str(run_copy), k=4, device="cpu", **options))
    curve = reported(run_copy)[0]["scores"]["margins"]
    for margin in (0.0, 0.1, 0.3, 0.5):
        run_mine(
            MineConfig(run_dir=str(run_copy), k=4, relative_margin=margin, device="cpu", **options)
        )
        counts = require(RunDir(run_copy), "negatives").counts
        place = curve["margins"].index(margin)
        assert curve["full"][place] == pytest.approx(counts["rows_full"] / counts["rows"])
        assert curve["empty"][place] == pytest.approx(counts["rows_empty"] / counts["rows"])


def test_queries_to_read_are_a_third_of_each_kind(run_copy: Path) -> None:
    facts, page = reported(run_copy)
    kinds = Counter(one["kind"] for one in facts["queries"])
    assert kinds == {"worst": 10, "suspect": 10, "random": 10}
    assert len({one["query"] for one in facts["queries"]}) == 30
    worst = [one["query"] for one in facts["queries"] if one["kind"] == "worst"]
    document = run_show(
        ShowConfig(run_dir=str(run_copy), suspects=True, limit=10, json=True)
    ).document
    suspects = [one["query"]["text"] for one in json.loads(document)["suspects"]]
    assert worst == list(dict.fromkeys(suspects))
    rows = {row["query_id"]: row for row in rows_of(run_copy)}
    store = TextStore.open(require(RunDir(run_copy), "texts"))
    texts = store.queries.column("text").to_pylist()
    for one in facts["queries"]:
        row = rows[texts.index(one["query"])]
        shown = [text["id"] for text in one["candidates"]]
        negatives = row["passage_ids"][:4]
        assert set(negatives) <= set(shown)
        assert shown == [hit for hit in row["hit_ids"] if hit in shown]
        above = row["hit_ids"].index(shown[0]) if negatives else 0
        assert sum(one["more_above"].values()) == above
    gaps = {
        texts[query]: max(row["scores"][:4]) - row["positive_score"]
        for query, row in rows.items()
        if row["scores"]
    }
    best = sorted((one for one in gaps if one not in worst), key=lambda one: -gaps[one])
    suspect = [one["query"] for one in facts["queries"] if one["kind"] == "suspect"]
    assert [gaps[one] for one in suspect] == [gaps[one] for one in best[:10]]
    assert page.values("data-kind") == [one["kind"] for one in facts["queries"]]


def test_what_is_missing_or_stale_is_left_out_with_a_sentence(run_copy: Path) -> None:
    facts, page = reported(run_copy)
    assert set(facts["left_out"]) == {"audits", "batches", "training", "evaluations", "tuning"}
    shown = "".join(page.texts)
    assert "batches/ is missing; run `stx-mine pack` first" in shown
    assert "evaluations/ is missing; `stx-mine evaluate` makes it" in shown
    run_pack(PackConfig(batch_size=64, run_dir=str(run_copy)))
    assert "batches" not in reported(run_copy)[0]["left_out"]
    run_mine(MineConfig(k=4, relative_margin=0.2, device="cpu", run_dir=str(run_copy)))
    facts, _ = reported(run_copy)
    assert "batches/ is stale: negatives/ has changed since" in facts["left_out"]["batches"]
    facts, page = reported(run_copy, queries=0)
    assert facts["left_out"]["queries"] == "--queries 0 asks for none"
    assert "script" not in [tag for tag, _ in page.elements]


def test_a_large_run_is_sampled_and_says_so(run_copy: Path, monkeypatch) -> None:
    whole = reported(run_copy)[0]
    assert whole["samples"] == []
    monkeypatch.setattr(mined_facts, "MOST_UNITS", 200)
    facts, page = reported(run_copy, overwrite=True)
    assert facts["scores"]["units"] == 200
    [said] = facts["samples"]
    assert f"200 of {facts['scores']['of_units']:,} queries" in said
    assert said in "".join(page.texts)
    assert facts["scores"]["median_positive"] == pytest.approx(
        whole["scores"]["median_positive"], abs=0.05
    )
    assert facts["waterfall"] == whole["waterfall"]
    first = (run_copy / "report/report.html").read_bytes()
    reported(run_copy, overwrite=True)
    assert (run_copy / "report/report.html").read_bytes() == first
    assert reported(run_copy, seed=7)[0]["scores"]["edges"] != facts["scores"]["edges"]


def test_a_page_is_made_anew_when_the_run_has_changed(run_copy: Path, cli_here: Cli) -> None:
    first = cli_here("report", run_dir=run_copy)
    assert (first.code, first.stderr) == (0, "")
    assert "30 queries to read): open it in a browser" in first.stdout
    assert "left out: batches: " in first.stdout
    assert "done before, skipped" in cli_here("report", run_dir=run_copy).stdout
    run_pack(PackConfig(batch_size=64, run_dir=str(run_copy)))
    assert "left out: batches: " not in cli_here("report", run_dir=run_copy).stdout
    assert cli_here("verify", run_copy).code == 0


def test_what_cannot_be_reported_is_refused(tmp_path: Path, run_copy: Path) -> None:
    with pytest.raises(ArtifactError, match="expected a run directory"):
        run_report(ReportConfig(run_dir=str(tmp_path / "nothing")))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactError, match="texts/ is missing; run `stx-mine embed PAIRS` first"):
        run_report(ReportConfig(run_dir=str(tmp_path / "empty")))
    with pytest.raises(ConfigError, match="--queries must be at most 100"):
        ReportConfig(queries=101)
    [file] = (run_copy / "negatives").glob("negatives-*.arrow")
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ArtifactError, match="is damaged"):
        run_report(ReportConfig(run_dir=str(run_copy)))


@pytest.mark.slow
def test_the_largest_page_is_below_five_megabytes(tmp_path: Path) -> None:
    """Of texts that take the most room: each character is escaped."""
    pairs = [(f"{'<' * 900} {n}", f"{'&' * 900} number {n} is {n % 9}") for n in range(110)]
    run = Run(tmp_path / "run")
    run.embed(pairs, model="package:wordllama", device="cpu")
    run.mine(k=12, relative_margin=None, device="cpu")
    facts, page = reported(tmp_path / "run", queries=100)
    size = (tmp_path / "run/report/report.html").stat().st_size
    assert 1_000_000 < size < 5_000_000
    assert len(facts["queries"]) == 100
    assert {one["more_negatives"] for one in facts["queries"]} == {2}
    shown = "".join(page.texts)
    assert "2 more negatives" in shown
    assert f"{'<' * 500}… (90" in shown


def test_the_map_has_the_texts_with_what_became_of_them(run_copy: Path, monkeypatch) -> None:
    monkeypatch.setattr(atlas, "MOST_TEXTS", 100)
    report = run_report(ReportConfig(run_dir=str(run_copy), atlas=True))
    table = pq.read_table(run_copy / "report" / atlas.ATLAS)
    assert report.counts["atlas_texts"] == len(table) == 200
    assert any("embedding-atlas" in line and "200 texts" in line for line in report.lines)
    store = TextStore.open(require(RunDir(run_copy), "texts"))
    negatives = require(RunDir(run_copy), "negatives")
    uses: Counter[int] = Counter()
    for name in pool_files(negatives):
        for row in negatives.table(name).to_pylist():
            uses.update(row["passage_ids"])
    numbers = {text: row for row, text in enumerate(store.passages["text"].to_pylist())}
    embeddings = require(RunDir(run_copy), "embeddings")
    vectors = Vectors.open(embeddings, "passages")
    passages = table.filter(pc.field("role") == "passage").to_pylist()
    assert len(passages) == 100
    assert any(one["pools"] for one in passages)
    for one in passages:
        number = numbers[one["text"]]
        assert one["pools"] == uses[number]
        assert one["pairs"] == int((store.pair_passage_ids == number).sum())
        assert one["vector"] == vectors.take(np.array([number]))[0].tolist()
    queries = table.filter(pc.field("role") == "query")["text"].to_pylist()
    assert set(queries) < set(store.queries["text"].to_pylist())


def test_a_map_without_negatives_is_refused(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    run.ingest([("how do I undo", "git reset"), ("how do I list", "git branch --list")])
    with pytest.raises(ArtifactError, match="--atlas shows texts with what was mined"):
        run.report(atlas=True)

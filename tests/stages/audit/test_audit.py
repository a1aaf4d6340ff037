"""`audit` by hidden positives and by judges, against mining that really does not know them."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Cli, reseal

from stx_mine.errors import ArtifactError, ConfigError, ViolationError
from stx_mine.stages.audit.audited_run import AuditedRun
from stx_mine.stages.audit.config import AuditConfig
from stx_mine.stages.audit.curve import hidden_curve
from stx_mine.stages.audit.hidden import HiddenPositives
from stx_mine.stages.audit.outcomes import Outcome
from stx_mine.stages.audit.stage import run_audit
from stx_mine.stages.index.config import IndexConfig
from stx_mine.stages.index.stage import run_index
from stx_mine.stages.judge.config import JudgeConfig
from stx_mine.stages.judge.stage import run_judge
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.stage import run_mine
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.stage import run_pack
from stx_mine.stages.verify.config import VerifyConfig
from stx_mine.stages.verify.stage import run_verify
from stx_mine.store.artifact import require
from stx_mine.store.audits import read_audits
from stx_mine.store.judgements import StoredJudgements
from stx_mine.store.negatives import pool_files
from stx_mine.store.run_dir import RunDir
from stx_mine.store.texts import PAIRS, TextStore, write_pairs

JUDGE = """
import numpy as np, zlib
def judge(pairs):
    return np.array([zlib.crc32((q + '|' + p).encode()) % 1000 / 1000 for q, p in pairs])
"""


@pytest.fixture
def several(several_run: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    return Path(shutil.copytree(several_run, tmp_path / "run"))


def mine(run: Path, **fields) -> MineConfig:
    config = MineConfig(run_dir=str(run), device="cpu", **{"k": 4, "query_block": 64, **fields})
    run_mine(config)
    return config


def audited(run: Path, **fields):
    return run_audit(AuditConfig(run_dir=str(run), device="cpu", **fields))


def mined_without(run: Path, hidden: HiddenPositives, other: Path, config: MineConfig) -> Outcome:
    """What a copy of the run gives that never heard of the hidden pairs, counted in loops."""
    if not other.exists():
        shutil.copytree(run, other, ignore=lambda _, names: {"hits", "negatives", "audits"})
        left = hidden.store
        write_pairs(other / "texts" / PAIRS, left.pair_query_ids, left.pair_passage_ids)
        reseal(other / "texts")
    run_mine(replace(config, run_dir=str(other)))
    negatives = require(RunDir(other), "negatives")
    asked, pairs_of = set(hidden.query_ids.tolist()), {}
    for number, query in enumerate(hidden.store.pair_query_ids.tolist()):
        pairs_of.setdefault(query, []).append(number)
    sizes, scores, ranks, false = [], [], [], []
    for name in pool_files(negatives):
        for row in negatives.table(name).to_pylist():
            if row["query_id"] not in asked:
                continue
            pool = row["passage_ids"][: config.k]
            per_pair = config.positive_score == "pair"
            sizes += [len(pool)] * (1 if per_pair else len(pairs_of[row["query_id"]]))
            scores += row["scores"][: config.k]
            ranks += row["ranks"][: config.k]
            keys = [row["query_id"] * hidden.groups.num_groups + one for one in pool]
            false += [key for key in keys if key in set(hidden.keys.tolist())]
    count = np.bincount(sizes, minlength=config.k + 1)
    return (
        (int(count[config.k]), int(count[1 : config.k].sum()), int(count[0])),
        (len(scores), len(false), len(set(false))),
        pytest.approx((np.mean(scores, dtype=np.float64), np.mean(ranks)), rel=1e-9),
    )


def shown(outcome: Outcome):
    found = outcome.false["hidden"]
    return (
        (outcome.rows_full, outcome.rows_ragged, outcome.rows_empty),
        (outcome.negatives, found.false, found.distinct),
        (outcome.mean_score, outcome.mean_rank),
    )


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"relative_margin": None, "max_uses": 2},
        {"relative_margin": 0.02, "positive_score": "pair"},
        {"relative_margin": 0.05, "depth": 8, "max_depth": 64, "range_max": 40},
        {"relative_margin": None, "sampling": "random", "depth": 30, "min_score": 0.1},
    ],
    ids=["margin", "uses", "pair", "deeper", "drawn"],
)
def test_what_comes_back_is_what_mining_without_these_pairs_gives(
    several: Path, tmp_path: Path, fields: dict[str, object]
) -> None:
    config = mine(several, **fields)
    with RunDir(several).lock():
        mined = AuditedRun.open(RunDir(several), "cpu")
        hidden = HiddenPositives.draw(mined.store, mined.groups, 0.5, 3, 80)
        assert len(hidden.query_ids) == 80
        points = {one.rule: one.outcome for one in hidden_curve(mined, hidden)}
    expected = mined_without(several, hidden, tmp_path / "other", config)
    assert shown(points["as mined"]) == expected
    assert points["no rule"].false["hidden"].false > 10
    if fields:
        return
    none = {"relative_margin": None}
    for rule, changed in {
        "no rule": none,
        "relative margin 0.1": {"relative_margin": 0.1},
        "closeness 0.7": {**none, "closeness": 0.7},
        "from rank 5": {**none, "range_min": 5},
    }.items():
        other = replace(config, **changed)
        assert shown(points[rule]) == mined_without(several, hidden, tmp_path / "other", other)


def test_what_is_hidden_is_forbidden_to_nobody_else_and_every_query_keeps_one(
    several: Path,
) -> None:
    mine(several)
    mined = AuditedRun.open(RunDir(several), "cpu")
    hidden = HiddenPositives.draw(mined.store, mined.groups, 1.0, 0, 10_000)
    before, after = set(pairs(mined.store)), set(pairs(hidden.store))
    gone = {(query, int(mined.groups.passages[passage])) for query, passage in before - after}
    keys = {divmod(key, mined.groups.num_groups) for key in hidden.keys.tolist()}
    assert gone == keys
    assert {query for query, _ in after} == {query for query, _ in before}
    # All but one of each query, where all are asked for.
    assert all(len([one for one in after if one[0] == query]) == 1 for query, _ in keys)
    for query, group in keys:
        assert group not in hidden.forbidden.row(query).tolist()


def pairs(store: TextStore) -> list[tuple[int, int]]:
    return list(zip(store.pair_query_ids.tolist(), store.pair_passage_ids.tolist(), strict=True))


def test_the_report_has_the_curve_and_the_second_run_nothing_to_do(several: Path) -> None:
    mine(several)
    report = audited(several, queries=80)
    content = json.loads((several / "audits/hidden/audit.json").read_text())
    assert [one["rule"] for one in content["curve"]][:3] == [
        "as mined",
        "no rule",
        "relative margin 0",
    ]
    assert content["finding"]["num_false"] == content["curve"][0]["false"]
    rates = {one["rule"]: one["returned"] for one in content["curve"]}
    assert rates["no rule"] > rates["relative margin 0.1"]
    assert all(len(line) <= 78 for line in report.lines if "%" in line[-24:])
    assert any("80 queries were hidden" in line for line in report.lines)
    assert audited(several, queries=80).skipped
    assert not audited(several, queries=81).skipped


def test_an_audit_stands_in_mines_report_and_the_card_only_while_it_is_of_these_negatives(
    several: Path,
) -> None:
    config = mine(several)
    audited(several)
    [finding], _ = read_audits(RunDir(several))
    assert finding.low <= finding.rate <= finding.high
    again = run_mine(config)
    assert again.skipped
    assert again.lines[-1] == f"audits/hidden: {finding.sentence}"
    run_pack(PackConfig(run_dir=str(several), batch_size=32))
    card = (several / "batches/README.md").read_text()
    assert finding.sentence.replace("(", r"\(")[:20] in card.replace("(", r"\(")
    before = require(RunDir(several), "batches").digest

    # An audit that comes later changes nothing of batches that are made anew.
    audited(several, hide=0.3)
    (several / "batches/positives.parquet").unlink()
    run_pack(PackConfig(run_dir=str(several), batch_size=32, overwrite=True))
    assert require(RunDir(several), "batches").digest == before

    changed = run_mine(replace(config, relative_margin=0.1))
    assert not any("audits/hidden:" in line for line in changed.lines)
    assert any("stale now" in line and "audits/hidden" in line for line in changed.lines)
    assert read_audits(RunDir(several)) == ([], {"hidden": "negatives/ has changed since"})
    skipped = run_mine(replace(config, relative_margin=0.1))
    assert skipped.warnings == ("audits/hidden is not shown: negatives/ has changed since",)
    run_pack(PackConfig(run_dir=str(several), batch_size=32, overwrite=True))
    assert "Audits of the negatives" not in (several / "batches/README.md").read_text()
    # The negatives of before are those that were audited.
    run_mine(config)
    assert len(read_audits(RunDir(several))[0]) == 1


def fill_in(run: Path, sheet: Path, number: int) -> None:
    """Audit a sample of 60, of which a person finds so many false."""
    run_audit(AuditConfig(run_dir=str(run), sheet=str(sheet), sample=60, overwrite=True))
    rows = list(csv.reader(sheet.read_text("utf-8-sig").splitlines(keepends=True)))
    for place, row in enumerate(rows[1:]):
        row[-1] = "yes" if place < number else "no"
    with sheet.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    run_audit(AuditConfig(run_dir=str(run), answers=str(sheet), sample=60))


def test_verify_breaks_where_too_many_may_be_false(several: Path, tmp_path: Path) -> None:
    config = mine(several)
    run_pack(PackConfig(run_dir=str(several), batch_size=32))
    places = (several, several / "batches")
    for place in places:
        with pytest.raises(ConfigError, match=r"by a judge or a person, found none of these; run"):
            run_verify(VerifyConfig(directory=str(place), max_false=0.05))
    # How many answers nobody has labelled, hidden positives do not tell.
    audited(several)
    with pytest.raises(ConfigError, match=r"\(audits/hidden: hidden positives only compare rules"):
        run_verify(VerifyConfig(directory=str(several), max_false=1))
    fill_in(several, tmp_path / "sheet.csv", 3)
    [finding] = [one for one in read_audits(RunDir(several))[0] if one.is_estimate]
    assert finding.num_false == 3
    for place in places:
        report = run_verify(VerifyConfig(directory=str(place), max_false=finding.high))
        assert report.lines[-1] == f"audits/answers: {finding.sentence}"
        # The upper end counts, not the estimate.
        with pytest.raises(ViolationError, match="may be false, by the upper end") as found:
            run_verify(VerifyConfig(directory=str(place), max_false=finding.high - 1e-6))
        assert found.value.exit_code == 1
    run_mine(replace(config, relative_margin=0.1))
    with pytest.raises(ArtifactError, match=r"needs the negatives that .* was packed of"):
        run_verify(VerifyConfig(directory=str(several / "batches"), max_false=0.5))
    run_pack(PackConfig(run_dir=str(several), batch_size=32, overwrite=True))
    with pytest.raises(ConfigError, match=r"\(audits/answers: negatives/ has changed since;"):
        run_verify(VerifyConfig(directory=str(several / "batches"), max_false=0.5))
    with pytest.raises(ConfigError, match="is for a run, or for batches inside one, found rows"):
        run_verify(VerifyConfig(directory="data/quickstart/dev.parquet", max_false=0.5))
    with pytest.raises(ConfigError, match="is for a run, or for batches inside one"):
        run_verify(VerifyConfig(directory=str(several / "texts"), max_false=0.5))


@pytest.fixture
def judged(several: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run, mined, with a judge that knows nothing."""
    (tmp_path / "judging_by_hash.py").write_text(JUDGE)
    monkeypatch.chdir(tmp_path)
    mine(several, relative_margin=None)
    run_judge(JudgeConfig(run_dir=str(several), cross_encoder="judging_by_hash:judge", name="hash"))
    return several


def judged_negatives(run: Path, k: int) -> list[tuple[bool, bool, int]]:
    """Of each negative that is judged: whether it is false, or nearly, and its rank."""
    store = TextStore.open(require(RunDir(run), "texts"))
    scores = StoredJudgements.open(require(RunDir(run), "judgements", "hash"), store)
    known = dict(zip(scores.keys.tolist(), scores.scores, strict=True))
    below = np.median(scores.random_scores)
    found = []
    negatives = require(RunDir(run), "negatives")
    for name in pool_files(negatives):
        for row in negatives.table(name).to_pylist():
            query = row["query_id"]
            positives = store.pair_passage_ids[store.pair_query_ids == query].tolist()
            of_positives = [known.get(query * store.num_passages + one) for one in positives]
            of_positives = [one for one in of_positives if one is not None]
            for passage, rank in zip(row["passage_ids"][:k], row["ranks"], strict=False):
                score = known.get(query * store.num_passages + passage)
                if score is not None and of_positives:
                    lowest = min(of_positives)
                    # No better than half of the random passages is no positive.
                    close = score > below and score >= lowest * np.float32(0.9)
                    found.append((bool(close and score >= lowest), bool(close), rank))
    return found


def test_a_judge_says_what_is_false_of_the_negatives_that_it_knows(judged: Path) -> None:
    expected = judged_negatives(judged, 4)
    report = audited(judged, judge="hash", sample=100_000)
    assert report.counts["audited"] == len(expected) > 100
    assert report.counts["false"] == sum(false for false, _, _ in expected)
    assert report.counts["close"] == sum(close and not false for false, close, _ in expected)
    assert "negatives are not judged by hash" in report.warnings[0]
    content = json.loads((judged / "audits/judged-hash/audit.json").read_text())
    whole = sum(false for false, _, _ in expected) / len(expected)
    assert content["finding"]["rate"] == pytest.approx(whole)
    strata = {one["first_rank"]: (one["negatives"], one["false"]) for one in content["strata"]}
    of_first = [false for false, _, rank in expected if rank == 0]
    assert strata[0] == (len(of_first), sum(of_first))

    part = audited(judged, judge="hash", sample=80, seed=1)
    assert part.counts["audited"] == 80
    finding = read_audits(RunDir(judged))[0][0]
    assert finding.low < whole < finding.high

    mine(judged, relative_margin=None, judges=("hash",), judged="drop")
    with pytest.raises(ConfigError, match="has decided about these negatives"):
        audited(judged, judge="hash")
    # Those that it left out are the ones that it would have found.
    curve = audited(judged).lines
    assert any("as mined, judge hash" in line for line in curve)


def test_judgements_that_change_make_an_audit_by_them_stale(judged: Path) -> None:
    audited(judged, judge="hash")
    run_judge(
        JudgeConfig(
            run_dir=str(judged), cross_encoder="judging_by_hash:judge", name="hash", band=0.3
        )
    )
    found, others = read_audits(RunDir(judged))
    assert (found, others) == ([], {"judged-hash": "judgements/hash/ has changed since"})


def test_hostile_audits_end_in_one_line(
    small_run: Path, several: Path, tmp_path: Path, cli_here: Cli
) -> None:
    run = Path(shutil.copytree(small_run, tmp_path / "single"))
    (run / "judgements").mkdir()
    store = TextStore.open(require(RunDir(run), "texts"))
    one_each = len(set(store.pair_query_ids.tolist())) == store.num_pairs
    if one_each:
        assert "nothing can be hidden" in cli_here("audit", run_dir=run).error
    assert "negatives/ is missing" in cli_here("audit", run_dir=several).error
    missing = cli_here("audit", "--judge", "nobody", run_dir=run).error
    assert "judgements/nobody/ is missing" in missing
    assert "it has a slash" in cli_here("audit", "--judge", "../x", run_dir=run).error
    for words, said in {
        "--judge a --sheet b.csv": "does not fit --sheet b.csv",
        "--sheet a.csv --answers b.csv": "does not fit --answers b.csv",
        "--sample 9": "is for audits by --judge, --sheet or --answers",
        "--judge a --hide 0.2": "--hide 0.2 is for audits by hidden positives",
        "--hide 0": "--hide must be above 0",
        "--hide 1.5": "--hide must be at most 1",
        "--sample 0": "--sample must be at least 1",
    }.items():
        assert said in cli_here("audit", *words.split(), run_dir=run).error


def test_a_damaged_audit_is_named_and_made_anew(several: Path) -> None:
    config = mine(several)
    audited(several)
    (several / "audits/hidden/audit.json").write_text("{}")
    again = run_mine(config)
    assert "audits/hidden is not shown: " in again.warnings[0]
    assert "audit.json is damaged" in again.warnings[0]
    assert not any("audits/" in line for line in again.lines)
    with pytest.raises(ViolationError, match=r"audit\.json is damaged"):
        run_verify(VerifyConfig(directory=str(several), max_false=0.9))
    audited(several)
    assert len(read_audits(RunDir(several))[0]) == 1


@pytest.mark.parametrize("how", ["index", "candidates"])
def test_hits_of_every_source_are_those_that_were_mined(
    several: Path, tmp_path: Path, how: str
) -> None:
    fields = {"relative_margin": None}
    if how == "index":
        run_index(IndexConfig(run_dir=str(several), factory="IVF4,Flat"))
    store = TextStore.open(require(RunDir(several), "texts"))
    if how == "candidates":
        passages = store.passages.column("text").to_pylist()
        rows = [(text, passages[3 * row + 1]) for row, text in enumerate(queries_of(store))]
        table = pa.table(dict(zip(("query", "passage"), zip(*rows, strict=True), strict=True)))
        pq.write_table(table, tmp_path / "c.parquet")
        fields["candidates"] = str(tmp_path / "c.parquet")
    config = mine(several, **fields)
    if how == "index":
        # It may go: what was mined says how.
        assert require(RunDir(several), "hits", "dense").fields["search"] == "faiss"
    if how == "candidates":
        Path(fields["candidates"]).rename(tmp_path / "gone.parquet")
    with RunDir(several).lock():
        mined = AuditedRun.open(RunDir(several), "cpu")
        hidden = HiddenPositives.draw(mined.store, mined.groups, 0.5, 3, 80)
        points = {one.rule: one.outcome for one in hidden_curve(mined, hidden)}
    if how == "candidates":
        (tmp_path / "gone.parquet").rename(fields["candidates"])
    expected = mined_without(several, hidden, tmp_path / "other", config)
    assert shown(points["as mined"]) == expected


def queries_of(store: TextStore) -> list[str]:
    return store.queries.column("text").to_pylist()

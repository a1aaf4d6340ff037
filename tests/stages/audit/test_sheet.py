"""`audit --sheet` and `--answers`: what a person fills in comes back, and nothing else."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from conftest import Cli
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stx_mine.errors import InputError
from stx_mine.stages.audit.config import AuditConfig
from stx_mine.stages.audit.sample import NegativeSampler, SampledNegatives
from stx_mine.stages.audit.sheet import COLUMNS, read_answers, write_sheet
from stx_mine.stages.audit.stage import run_audit
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.selector import Selector
from stx_mine.stages.mine.stage import run_mine
from stx_mine.store.artifact import require
from stx_mine.store.audits import read_audits
from stx_mine.store.negatives import pool_files
from stx_mine.store.run_dir import RunDir
from stx_mine.store.texts import TEXT_SCHEMA, TextStore


def store_of(queries: list[str], passages: list[str]) -> TextStore:
    none = np.empty(0, np.int64)
    tables = [
        pa.table([texts, [None] * len(texts)], schema=TEXT_SCHEMA) for texts in (queries, passages)
    ]
    return TextStore(*tables, none, none, none, np.empty((2, 0), np.int64))


def sample_of(rows: list[tuple[int, int, int]]) -> SampledNegatives:
    ids = np.array(rows, np.int64).reshape(-1, 3)
    zeros = np.zeros(len(ids), np.int64)
    return SampledNegatives(
        ids[:, 0],
        ids[:, 1],
        ids[:, 2],
        ranks=zeros,
        scores=np.full(len(ids), -0.25, np.float32),
        strata=zeros,
        opinions=zeros.astype(np.uint8),
        sizes=np.array([len(ids)]),
        num_unjudged=0,
    )


def rows_in(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def write_rows(path: Path, rows: list[dict[str, str]], **form) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, **form)
        writer.writeheader()
        writer.writerows(rows)


# No text of a run is empty after normalisation, or the same as another of its role.
NASTY = st.one_of(
    st.text(min_size=1),
    st.sampled_from(["=1+1", "+x", "-y", "@SUM(A1)", "'=x", "''", '"', '",', "a\r\nb", "\t=x"]),
    st.sampled_from(
        ["sep=;", "a\nb", "a\rb", "\\", '\\"', " x ", "=cmd|' /C calc'!A0", "1e5", "\0"]
    ),
).filter(lambda text: any(letter.isalnum() or letter in "='\"@+-\\,;" for letter in text))


def distinct(texts: list[str]) -> list[str]:
    return list({" ".join(text.split()).casefold(): text for text in texts}.values())


@settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    queries=st.lists(NASTY, min_size=1, max_size=4).map(distinct),
    passages=st.lists(NASTY, min_size=2, max_size=5).map(distinct),
    data=st.data(),
)
def test_any_texts_come_back_with_their_answers(
    tmp_path: Path, queries: list[str], passages: list[str], data: st.DataObject
) -> None:
    store, path = store_of(queries, passages), tmp_path / "sheet.csv"
    choices = [
        (query, 0, passage) for query in range(len(queries)) for passage in range(len(passages))
    ]
    sample = sample_of(data.draw(st.lists(st.sampled_from(choices), min_size=1, unique=True)))
    write_sheet(path, store, sample, replaces=True)
    rows = rows_in(path)
    for row in rows:
        for name in ("query", "positive", "negative"):
            assert row[name][:1] not in tuple("=+-@\t\r\n")
    words = data.draw(
        st.lists(
            st.sampled_from(["yes", "no", "1", "0", " Yes ", "N", ""]),
            min_size=len(rows),
            max_size=len(rows),
        )
    )
    words[0] = "yes"
    order = data.draw(st.permutations(range(len(rows))))
    shuffled = [{**rows[one], COLUMNS[-1]: words[one]} for one in order]
    write_rows(path, shuffled, quoting=csv.QUOTE_ALL)
    answers = read_answers(str(path), store, sample)
    # The sheet is in the order of queries, which the sample need not be.
    sheet = np.lexsort([sample.ranks, sample.query_ids])
    for place, word in zip(sheet.tolist(), words, strict=True):
        assert answers.known[place] == bool(word)
        assert answers.false[place] == (word.strip().lower() in ("yes", "1"))


def test_the_sample_is_drawn_of_what_rows_get(run_copy: Path) -> None:
    run = RunDir(run_copy)
    negatives, store = require(run, "negatives"), TextStore.open(require(run, "texts"))
    expected = {}
    positives = dict(
        zip(store.pair_query_ids[::-1].tolist(), store.pair_passage_ids[::-1].tolist(), strict=True)
    )
    for name in pool_files(negatives):
        for row in negatives.table(name).to_pylist():
            query = row["query_id"]
            columns = (row["passage_ids"][:4], row["ranks"], row["scores"])
            for passage, rank, score in zip(*columns, strict=False):
                expected[query, passage] = (positives[query], rank, score)
    sampler = NegativeSampler(negatives, Selector.of_negatives(run, negatives, store))
    for wanted in (37, 10**9):
        sample = sampler.draw(wanted, 5)
        assert len(sample) == min(wanted, len(expected))
        assert sample.sizes.sum() == len(expected)
        columns = (sample.positive_ids, sample.ranks, sample.scores)
        ids = zip(sample.query_ids.tolist(), sample.passage_ids.tolist(), strict=True)
        found = dict(zip(ids, zip(*(one.tolist() for one in columns), strict=True), strict=True))
        assert found == {key: expected[key] for key in found}
        assert len(found) == len(sample)
    again, other = sampler.draw(37, 5), sampler.draw(37, 6)
    first = sampler.draw(37, 5)
    assert again.passage_ids.tolist() == first.passage_ids.tolist()
    assert other.passage_ids.tolist() != first.passage_ids.tolist()


def filled(path: Path, answer) -> list[dict[str, str]]:
    rows = rows_in(path)
    for number, row in enumerate(rows):
        row[COLUMNS[-1]] = answer(number)
    return rows


def test_a_sheet_that_is_filled_in_is_an_audit(run_copy: Path, tmp_path: Path) -> None:
    path = tmp_path / "sheet.csv"
    written = run_audit(AuditConfig(run_dir=str(run_copy), sheet=str(path), sample=60))
    assert written.counts["sampled"] == 60
    assert not (run_copy / "audits").exists()
    words = ["yes", *["no"] * 8, ""]
    rows = filled(path, lambda number: words[number % 10])
    # As spreadsheets write them where a comma stands in numbers.
    write_rows(path, rows, delimiter=";")
    config = AuditConfig(run_dir=str(run_copy), answers=str(path), sample=60)
    report = run_audit(config)
    assert report.counts["audited"] == 54
    assert report.counts["unknown"] == 6
    assert report.counts["false"] == 6
    assert "6 rows of the sample have no answer" in report.warnings[0]
    [finding], _ = read_audits(RunDir(run_copy))
    assert (finding.name, finding.num_false) == ("answers", 6)
    assert 0.02 < finding.low < finding.rate < finding.high < 0.4
    assert run_audit(config).skipped
    write_rows(path, [{**row, COLUMNS[-1]: "no"} for row in rows])
    assert run_audit(config).counts["false"] == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: [{**rows[0], "negative": "x"}, *rows[1:]], "found 1 that are not in it"),
        (lambda rows: [*rows, rows[0]], "found 1 in several rows"),
        (
            lambda rows: [{**rows[0], "false_negative": "maybe"}, *rows[1:]],
            "expected yes, no or nothing in the column false_negative of .*'maybe' in row 1",
        ),
        (lambda rows: [{**row, "false_negative": " "} for row in rows], "found none in 20 rows"),
        # A column that was sorted by itself.
        (
            lambda rows: [
                {**row, "query": other["query"]}
                for row, other in zip(rows, rows[::-1], strict=True)
            ],
            "that are not in it, the first in row 1",
        ),
    ],
)
def test_answers_of_other_rows_or_words_are_refused(
    run_copy: Path, tmp_path: Path, change, said: str
) -> None:
    path = tmp_path / "sheet.csv"
    run_audit(AuditConfig(run_dir=str(run_copy), sheet=str(path), sample=20))
    write_rows(path, change(filled(path, lambda _: "no")))
    with pytest.raises(InputError, match=said):
        run_audit(AuditConfig(run_dir=str(run_copy), answers=str(path), sample=20))


def test_hostile_sheets_end_in_one_line(run_copy: Path, tmp_path: Path, cli_here: Cli) -> None:
    path = tmp_path / "sheet.csv"
    audit = ("audit", "--sample", "20")
    assert cli_here(*audit, "--sheet", path, run_dir=run_copy).code == 0
    there = cli_here(*audit, "--sheet", path, run_dir=run_copy).error
    assert "in which answers may stand" in there
    assert cli_here(*audit, "--sheet", path, "--overwrite", run_dir=run_copy).code == 0
    nowhere = cli_here(*audit, "--sheet", tmp_path / "no" / "sheet.csv", run_dir=run_copy).error
    assert "needs the folder" in nowhere
    (tmp_path / "folder.csv").mkdir()
    folder = cli_here(*audit, "--sheet", tmp_path / "folder.csv", run_dir=run_copy).error
    assert "expected no file at" in folder
    other = cli_here(*audit, "--sheet", tmp_path / "sheet.xlsx", run_dir=run_copy).error
    assert "give a name that ends in .csv" in other
    write_rows(path, filled(path, lambda _: "no"))
    other = cli_here("audit", "--answers", path, "--sample", "5", run_dir=run_copy).error
    assert "give the --sample and --seed that the sheet was written by" in other
    missing = cli_here(*audit, "--answers", tmp_path / "none.csv", run_dir=run_copy).error
    assert "expected a file at" in missing
    (tmp_path / "other.csv").write_text("query,passage\na,b\n")
    strange = cli_here(*audit, "--answers", tmp_path / "other.csv", run_dir=run_copy).error
    assert "'positive' is not a column" in strange
    run_mine(MineConfig(k=4, device="cpu", run_dir=str(run_copy), relative_margin=0.3))
    stale = cli_here(*audit, "--answers", path, run_dir=run_copy).error
    assert "if the negatives have changed since" in stale
    shutil.rmtree(run_copy / "negatives")
    assert "negatives/ is missing" in cli_here(*audit, "--answers", path, run_dir=run_copy).error

"""Candidates of other retrievers: which lines are read, which are not, and what is said of them."""

import gzip
import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stx_mine.errors import InputError
from stx_mine.inputs.run_file import RunFile
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.embed.stage import run_embed
from stx_mine.stages.export.config import ExportConfig
from stx_mine.stages.export.stage import run_export
from stx_mine.stages.mine.candidates import CandidateFile
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.stage import run_mine
from stx_mine.store.artifact import require
from stx_mine.store.run_dir import RunDir
from stx_mine.store.texts import TextStore

NUM = 60


@pytest.fixture(scope="module")
def beir(tmp_path_factory):
    """A run made from a BEIR folder: query `q3` has the positive `d3`, of 60."""
    folder = tmp_path_factory.mktemp("beir") / "set"
    (folder / "qrels").mkdir(parents=True)
    docs = [{"_id": f"d{n}", "title": "", "text": f"passage on topic {n}"} for n in range(NUM)]
    queries = [{"_id": f"q{n}", "text": f"what about topic {n}"} for n in range(NUM)]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, docs)))
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
    rows = [f"q{n}\td{n}\t1" for n in range(NUM)]
    (folder / "qrels/train.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *rows]))
    run = folder.with_name("run")
    run_embed(EmbedConfig(run_dir=str(run), pairs=str(folder), device="cpu"))
    return run


@pytest.fixture(scope="module")
def store(beir):
    return TextStore.open(require(RunDir(beir), "texts"))


def named(store, path):
    """The (query, passage) that a file names, by original ids, distinct."""
    found = CandidateFile.open(str(path)).candidates(store)
    queries, passages = (
        getattr(store, role)["original_id"].to_pylist() for role in ("queries", "passages")
    )
    pairs = zip(found.query_ids, found.passage_ids, strict=True)
    return {(queries[query], passages[passage]) for query, passage in pairs}, found


EXPECTED = {("q1", "d2"), ("q1", "d3"), ("q2", "d9")}
TREC = ["q1 Q0 d2 1 2.5 bm25", "q1 Q0 d3 2 -1e-3 bm25", "q2 Q0 d9 1 7 bm25"]
PADDED = ["  q1   Q0 \t d2     1  2.5   bm25  ", "q1\t\tQ0\td3   2 .1 bm25", "\tq2 Q0 d9  1 7 bm25"]
COLBERT = ["q1\td2\t1\t28.3", "q1\td3\t2\t27.1", "q2\td9\t1\t20"]
MS_MARCO = ["q1\td2\t1", "q1\td3\t2", "q2\td9\t1"]


@pytest.mark.parametrize("suffix", [".trec", ".run", ".txt", ".tsv", ".bm25", ""])
@pytest.mark.parametrize("lines", [TREC, PADDED, COLBERT, MS_MARCO])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n"])
def test_runs_are_known_by_their_lines_whatever_the_name(store, tmp_path, suffix, lines, end):
    path = tmp_path / f"hits{suffix}"
    path.write_bytes((end.join(lines) + end).encode())
    assert named(store, path)[0] == EXPECTED
    path = tmp_path / f"hits{suffix}.gz"
    path.write_bytes(gzip.compress(("\ufeff" + end.join(lines)).encode()))
    assert named(store, path)[0] == EXPECTED


word = st.text("abcäé01-_:/", min_size=1, max_size=5)
gap = st.sampled_from([" ", "\t", "  ", " \t", "     "])


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(word, word, st.integers(0, 999), st.floats(-9, 9)), min_size=1, max_size=9),
    gap,
    gap,
    st.sampled_from(["\n", "\r\n", "\n \n"]),
    st.integers(8, 99),
)
def test_padding_and_blocks_change_nothing(tmp_path_factory, rows, first, second, end, size):
    path = tmp_path_factory.mktemp("runs") / "hits.trec"
    lines = [
        (first if number % 2 else "")
        + first.join([q, f"Q0{second}{p}", f"{rank}{second}{score}{second}", "tag "])
        for number, (q, p, rank, score) in enumerate(rows)
    ]
    path.write_bytes(end.join(lines).encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stx_mine.inputs.run_file._BLOCK_BYTES", size)
        read = [
            pair
            for queries, passages in RunFile.open(path).batches()
            for pair in zip(queries.to_pylist(), passages.to_pylist(), strict=True)
        ]
    assert read == [(q, p) for q, p, _, _ in rows]


def test_ids_with_spaces_are_read_where_tabs_part_the_fields(tmp_path):
    path = tmp_path / "hits.txt"
    path.write_text("my query\tQ0\ta passage\t1\t0.5\tmy system\nq2\tQ0\td2\t2\t0.4\tmine\n")
    read = [
        pair
        for queries, passages in RunFile.open(path).batches()
        for pair in zip(queries.to_pylist(), passages.to_pylist(), strict=True)
    ]
    assert read == [("my query", "a passage"), ("q2", "d2")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("q1 Q0 d2 1 2.5", "found 5 fields in line 4,321"),
        ("q1 Q0 d2 1 2.5 bm25 more", "found 7 fields in line 4,321: 'q1 Q0 d2 1 2.5 bm25 more'"),
        ("q1 Q0 d2 one 2.5 bm25", "line 4,321: 'q1 Q0 d2 one 2.5 bm25'; rank and score are num"),
        ("q1 Q0 1 2.5 d2 bm25", "line 4,321"),
    ],
)
def test_a_line_of_another_layout_is_named_by_its_number(tmp_path, line, message):
    lines = [f"q{n} Q0 d{n} {n} 0.5 bm25" for n in range(5_000)]
    lines[7] = ""  # A blank line counts.
    lines[4_320] = line
    path = tmp_path / "hits.trec"
    path.write_text("\n".join(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stx_mine.inputs.run_file._BLOCK_BYTES", 1_000)
        with pytest.raises(InputError, match=message):
            list(RunFile.open(path).batches())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("hits.trec", b"", "an empty file"),
        ("hits.trec", b" \n\n", "an empty file"),
        ("hits.run", b"query Q0 passage rank score tag\nq1 Q0 d1 1 1 t\n", "in line 1: 'query Q0"),
        ("hits.txt", b"what is it\tthis is it\n", "found 6 fields in line 1"),
        ("qrels.txt", b"q1 0 d1 1\nq2 0 d2 0\n", r"found judgements \(qrels"),
        ("hits.trec", b"q1 Q0 d\xff 1 1 t\n", "as UTF-8 text"),
        ("hits.run.gz", b"q1 Q0 d1 1 1 t\n", "as UTF-8 text"),
        ("hits", None, "found nothing"),
    ],
)
def test_what_is_no_run_is_refused(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        CandidateFile.open(str(tmp_path / name))


@pytest.mark.parametrize(
    "names", [("query-id", "corpus-id"), ("QID", "docid"), ("query_id", "pid")]
)
@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".tsv", ".csv"])
def test_columns_of_ids_are_known_by_name(store, tmp_path, names, suffix):
    pairs = sorted(EXPECTED)
    rows = {"score": [2, 1, 2], names[1]: [p for _, p in pairs], names[0]: [q for q, _ in pairs]}
    path = tmp_path / f"hits{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.table(rows), path)
    elif suffix == ".jsonl":
        lines = [dict(zip(rows, row, strict=True)) for row in zip(*rows.values(), strict=True)]
        path.write_text("\n".join(map(json.dumps, lines)))
    else:
        mark = {".tsv": "\t", ".csv": ","}[suffix]
        lines = [mark.join(map(str, row)) for row in [rows, *zip(*rows.values(), strict=True)]]
        path.write_text("\n".join(lines) + "\n")
    assert named(store, path)[0] == EXPECTED


def test_a_tsv_of_texts_is_not_taken_for_a_run(store, tmp_path):
    path = tmp_path / "hits.tsv"
    path.write_text("query\tpassage\nwhat about topic 1\tpassage on topic 2\n")
    assert named(store, path)[0] == {("q1", "d2")}
    path.write_text(
        "query\tpassage\tscore\none\ttwo\t0.5\nwhat about topic 1\tpassage on topic 2\t1"
    )
    assert named(store, path)[0] == {("q1", "d2")}


def test_unknown_lines_are_counted_by_what_is_unknown_and_named(beir, store, tmp_path, cli_here):
    known = [f"q{n} Q0 d{n + 1} 1 1.0 t" for n in range(12)]
    strange = [f"x{n} Q0 d1 1 1.0 t" for n in range(7)]
    lost = [f"q{n} Q0 y{n} 1 1.0 t" for n in range(10)] + ["x0 Q0 y0 1 1 t", known[0]]
    path = tmp_path / "hits.trec"
    path.write_text("\n".join([*known, *strange, *lost]))
    found = named(store, path)[1]
    assert found.num_lines == 31
    assert found.num_unknown == {"query": 8, "passage": 10}
    assert found.examples == {"query": ["x0", "x1", "x2"], "passage": ["y0", "y1", "y2"]}
    for _ in range(2):
        done = cli_here("mine", "--k", "4", "--candidates", path, run_dir=beir)
        assert done.code == 0, done
        assert f"{path}: 31 lines, 12 distinct candidates of 12 (20.0%) queries" in done.stdout
        assert (
            f"18 (58.1%) lines of {path} are ignored: 8 name a query that this run" in done.stderr
        )
        assert "'x0', 'x1', 'x2'" in done.stderr
        assert "10 name a passage that this run does not have (such as 'y0'" in done.stderr
    manifest = require(RunDir(beir), "hits", "candidates")
    assert manifest.counts["lines_unknown"] == 18


def test_texts_that_are_unknown_are_named_too(beir, store, tmp_path, cli_here):
    path = tmp_path / "hits.jsonl"
    rows = [
        {"query": "what  about topic 1", "passage": "passage on topic 2"},
        {
            "query": "what about topic 1",
            "passage": "a passage \n that nobody knows " + "long " * 40,
        },
        {"query": "what about topic 1", "passage": None},
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    found = named(store, path)[1]
    assert found.num_unknown == {"query": 0, "passage": 2}
    done = cli_here("mine", "--k", "4", "--candidates", path, run_dir=beir)
    assert "'a passage that nobody knows long" in done.stderr
    assert max(map(len, found.examples["passage"])) <= 60


def test_all_lines_known_warn_of_nothing(beir, tmp_path):
    path = tmp_path / "hits.trec"
    path.write_text("\n".join(TREC))
    report = run_mine(MineConfig(run_dir=str(beir), k=4, candidates=str(path), device="cpu"))
    assert not any("ignored" in warning for warning in report.warnings)
    path.write_text("\n".join(TREC[:1]))
    again = run_mine(MineConfig(run_dir=str(beir), k=4, candidates=str(path), device="cpu"))
    assert not again.skipped
    assert any("1 lines, 1 distinct candidates" in line for line in again.lines)


def test_none_known_is_an_error_that_shows_names_of_the_file(beir, tmp_path):
    path = tmp_path / "hits.trec"
    path.write_text("101 Q0 d1 1 1.0 t\n")
    with pytest.raises(
        InputError, match=r"none of the 1 lines .*\(query '101'\); expected their orig"
    ):
        run_mine(MineConfig(run_dir=str(beir), k=4, candidates=str(path), device="cpu"))


def test_many_lines_keep_their_numbers(tmp_path):
    path = tmp_path / "hits.trec"
    path.write_text("".join(f"q{n % 50} Q0 d{n} {n} {n / 7:.3f} t\n" for n in range(100_000)))
    ids = [len(queries) for queries, _ in RunFile.open(path).batches()]
    assert np.sum(ids) == 100_000


def test_a_run_over_exported_texts_without_ids_is_read(small_run, tmp_path):
    """Export texts that have no ids, let others retrieve over them, and take their run."""
    run = shutil.copytree(small_run, tmp_path / "run")
    run_export(ExportConfig(run_dir=str(run), to="trec-run"))
    store = TextStore.open(require(RunDir(run), "texts"))
    path = run / "exports/trec-run/run.trec"
    found = CandidateFile.open(str(path)).candidates(store)
    assert found.num_lines > len(store.queries)
    assert len(found.query_ids) == found.num_lines
    words = [line.split() for line in path.read_text().splitlines()]
    named = zip(found.query_ids.tolist(), found.passage_ids.tolist(), strict=True)
    expected = [(line[0], line[2]) for line in words]
    assert [(f"query-{query}", f"passage-{passage}") for query, passage in named] == expected

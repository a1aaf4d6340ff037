"""`verify` reads the rows of others, and finds what a naive count over batches finds."""

import gzip
import json
import shutil
import tracemalloc
import unicodedata
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cores import text_rows
from hypothesis import given
from hypothesis import strategies as st

from stx_mine.errors import ViolationError
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.stage import run_pack
from stx_mine.stages.verify.config import VerifyConfig
from stx_mine.stages.verify.core.rows import (
    BATCH_RULES,
    KnownPairs,
    broken_rules,
    slots_of,
)
from stx_mine.stages.verify.pair_rows import open_rows
from stx_mine.stages.verify.rows import check_rows
from stx_mine.stages.verify.stage import run_verify
from stx_mine.store.digests import text_numbers

COLUMNS = ("anchor", "positive", "negative_1", "negative_2", "negative_3")


def same_text(text):
    """The normal form, by the standard library; '' where there is nothing."""
    return " ".join(unicodedata.normalize("NFKC", text or "").split())


def naive(rows, batch_size):
    """Rows that break each rule, by loops over Python strings."""
    lists = [(row[0], row[1:2], row[2:]) for row in rows]
    return naive_lists(
        [
            (same_text(anchor), *([same_text(text) for text in role] for role in roles))
            for anchor, *roles in lists
        ],
        batch_size,
    )


def naive_lists(rows, batch_size):
    """The same of (anchor, positives, negatives)."""
    known = {(anchor, text) for anchor, texts, _ in rows for text in texts if anchor and text}
    broken = {rule: set() for rule in BATCH_RULES}
    for number, (anchor, positives, negatives) in enumerate(rows):
        first = number - number % batch_size
        batch = range(first, min(first + batch_size, len(rows)))
        others = [rows[other] for other in batch if other != number]
        passages = {text for _, *roles in others for role in roles for text in role if text}
        elsewhere = passages | {other for other, _, _ in others if other}
        own = [*positives, *negatives]
        twice = any(
            len(set(filter(None, role))) < len(list(filter(None, role)))
            for role in (positives, negatives)
        )
        checks = {
            "missing": "" in (anchor, *own),
            "own_text": anchor != "" and anchor in own,
            "known_positive": any((anchor, text) in known for text in negatives),
            "repeated": bool(elsewhere & {anchor, *own}) or twice,
            "positive_elsewhere": any(
                (anchor, text) in known and text not in positives for text in passages
            ),
        }
        for rule, holds in checks.items():
            if holds:
                broken[rule].add(number)
    return broken


def write(path, rows, columns=COLUMNS, **options):
    lists = list(zip(*rows, strict=True)) if rows else [[] for _ in columns]
    arrays = [pa.array(list(one), pa.string()) for one in lists]
    table = pa.table(arrays, names=list(columns[: len(arrays)]))
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **options)
    return path


def verify(path, batch_size=None, **options):
    return run_verify(VerifyConfig(directory=str(path), batch_size=batch_size, **options))


def violation(path, batch_size):
    with pytest.raises(ViolationError) as caught:
        verify(path, batch_size)
    assert caught.value.exit_code == 1
    return str(caught.value)


def summary_of(path, batch_size, max_violations=10):
    return check_rows(open_rows(str(path), VerifyConfig()), batch_size, max_violations)


def assert_counts(summary, rows, batch_size):
    broken = naive(rows, batch_size)
    affected = set().union(*broken.values())
    assert summary.rows_by_rule == {rule: len(found) for rule, found in broken.items()}
    assert summary.batches_by_rule == {
        rule: len({row // batch_size for row in found}) for rule, found in broken.items()
    }
    assert summary.broken_rows == len(affected)
    assert summary.rows == len(rows)
    assert summary.batches == -(-len(rows) // batch_size)
    assert summary.batches - summary.clean_batches == len({row // batch_size for row in affected})
    assert summary.last_rows == len(rows) % batch_size


@pytest.fixture(scope="module")
def quickstart_rows(repo_root):
    """4,000 real pairs in random order, each with three passages of others as negatives."""
    table = pq.read_table(repo_root / "data/quickstart/pairs.parquet")
    queries, passages = table["query"].to_pylist(), table["passage"].to_pylist()
    rng = np.random.default_rng(7)
    # Neighbours are of one topic and share passages, so that every rule has work.
    start = rng.choice(len(queries) - 40, 100, replace=False)
    chosen = rng.permutation(np.unique((start[:, None] + np.arange(40)).ravel()))
    rows = []
    for row in chosen:
        near = np.clip(row + rng.integers(-6, 7, 3), 0, len(queries) - 1)
        rows.append([queries[row], passages[row], *(passages[one] for one in near)])
    for number in range(0, len(rows), 97):
        rows[number][4] = [None, "", "  \u2003", rows[number][0].replace(" ", "\u00a0")][number % 4]
    return rows


@pytest.mark.parametrize("batch_size", [2, 17, 256, 500])
def test_real_rows_in_random_batches_are_counted_as_a_naive_count_does(
    quickstart_rows, batch_size, tmp_path
):
    path = write(tmp_path / "rows.parquet", quickstart_rows, row_group_size=300)
    summary = summary_of(path, batch_size)
    assert_counts(summary, quickstart_rows, batch_size)
    if batch_size > 100:
        assert all(summary.rows_by_rule.values()), summary


ids_tables = st.integers(2, 5).flatmap(
    lambda columns: st.lists(
        st.lists(st.integers(-1, 9), min_size=columns, max_size=columns), min_size=1, max_size=14
    )
)


def known_of(rows):
    anchors = np.repeat(rows.anchors, rows.positives.lengths())
    return KnownPairs(anchors, rows.positives.values)


def of_table(table):
    return text_rows([(row[0], row[1:2], row[2:]) for row in table])


some_texts = st.lists(st.integers(-1, 9), max_size=4)
lists_of_rows = st.lists(
    st.tuples(st.integers(-1, 9), some_texts, some_texts), min_size=1, max_size=14
)


@given(
    lists_of_rows | ids_tables.map(lambda table: [(row[0], row[1:2], row[2:]) for row in table]),
    st.integers(2, 15),
)
def test_small_tables_are_judged_as_by_the_naive_count(lists, batch_size):
    rows = text_rows(lists)
    known = known_of(rows)

    def named(number):
        return str(number) if number >= 0 else ""

    expected = naive_lists(
        [(named(one), *(list(map(named, role)) for role in roles)) for one, *roles in lists],
        batch_size,
    )
    found = {
        rule: set(np.flatnonzero(marked).tolist())
        for rule, marked in broken_rules(rows, known, batch_size).items()
    }
    assert found == expected
    found = {rule: set() for rule in BATCH_RULES}
    for first in range(0, len(rows), batch_size):
        batch = rows.slice(first, first + batch_size)
        for rule, marked in broken_rules(batch, known, batch_size).items():
            found[rule] |= {first + int(row) for row in np.flatnonzero(marked)}
            for row in np.flatnonzero(marked):
                assert_slots(batch, known, rule, int(row))
    assert found == expected


def assert_slots(batch, known, rule, row):
    """The named texts are there and show what is wrong."""
    slots = slots_of(batch, known, rule, row)
    texts_of = [
        [batch.anchors[at], *batch.positives.row(at), *batch.negatives.row(at)]
        for at in range(len(batch))
    ]
    texts = [int(texts_of[at][place]) for at, place in slots]
    assert row in {at for at, _ in slots}
    assert len(set(slots)) == len(slots)
    if rule == "missing":
        assert texts == [-1]
    elif rule in ("own_text", "repeated"):
        assert texts[0] == texts[1] >= 0
    else:
        assert (slots[0][1], slots[1][1] > 0) == (0, True)
        assert known.has(np.array(texts[:1]), np.array(texts[1:])).all()
        assert (slots[1][0] == row) == (rule == "known_positive")


def test_one_anchor_with_every_passage_stays_linear():
    """20,000 rows of one anchor: 400 million (row, positive) pairs would not fit."""
    size = 20_000
    table = np.stack([np.zeros(size, np.int64), 1 + np.arange(size)], axis=1)
    rows = of_table(table)
    broken = broken_rules(rows, known_of(rows), len(rows))
    assert broken["positive_elsewhere"].all()
    assert broken["repeated"].all()
    assert not broken["own_text"].any()


def test_small_batches_of_one_anchor_with_very_many_positives_stay_linear():
    """Each of 3,000 batches that read all of its positives would read 144 million of them."""
    size = 48_000
    table = np.stack([np.zeros(size, np.int64), 1 + np.arange(size)], axis=1)
    rows = of_table(table)
    known = known_of(rows)
    tracemalloc.start()
    broken = broken_rules(rows, known, 16)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert broken["positive_elsewhere"].all()
    assert peak < 1_000 * size


@pytest.mark.parametrize("batch_size", [None, 4])
def test_a_long_row_names_its_first_repeat_at_once(batch_size):
    """A row of 200,000 negatives, of which the last one stands there before."""
    negatives = [*range(10, 200_010), 150_000]
    rows = text_rows([(0, [1], negatives), (2, [3], [4])])
    marked = broken_rules(rows, known_of(rows), batch_size)["repeated"]
    assert marked.tolist() == [True, False]
    found = slots_of(rows, known_of(rows), "repeated", 0, together=batch_size is not None)
    assert found == ((0, 2 + 149_990), (0, 2 + 200_000))


def test_texts_are_the_same_by_the_normal_form_of_groups():
    texts = pa.array(["a  b", "a\u00a0b ", "\ufb01x", "fix", "A b", None, " ", "a b"])
    numbers = text_numbers(texts)
    assert numbers[0] == numbers[1] == numbers[7]
    assert numbers[2] == numbers[3]
    assert len(set(numbers.tolist())) == 4
    assert numbers[5] == numbers[6] == -1
    assert (text_numbers(texts.slice(3, 2)) == numbers[3:5]).all()


@pytest.fixture(scope="module")
def strict_shards(small_run, tmp_path_factory):
    run = tmp_path_factory.mktemp("strict") / "run"
    shutil.copytree(small_run, run)
    run_pack(PackConfig(run_dir=str(run), batch_size=64, policy="strict", k=2))
    return run / "batches"


def test_a_strict_packing_read_as_rows_of_others_is_clean(strict_shards, tmp_path):
    table = pq.read_table(strict_shards / "epoch-000")
    path = tmp_path / "others.parquet"
    pq.write_table(table.select(COLUMNS[:4]), path)
    report = verify(path, 64)
    assert report.counts["batches"] == table.num_rows // 64 > 5
    assert report.counts["last_batch_rows"] == 0
    assert report.warnings == ()
    # Read as they are, ids are ignored by name.
    as_it_is = verify(strict_shards / "epoch-000", 64)
    assert as_it_is.counts["batches"] == report.counts["batches"]
    assert "passage id from positive_id; not read: row_id, negative_ids" in as_it_is.lines[1]
    # The same rows in another order are not clean, so that the order is what is checked.
    mixed = table.select(COLUMNS[:4]).take(np.random.default_rng(0).permutation(table.num_rows))
    pq.write_table(mixed, path)
    with pytest.raises(ViolationError):
        verify(path, 64)


ROWS = [
    ["q0", "p0", "n0"],
    ["q1", "p1", "n1"],
    ["q2", "p2", "n2"],
    ["q3", "p0", "n3"],
    ["q4", "p4", "p1"],
]


def test_the_first_violations_name_batch_file_rows_and_texts(tmp_path, cli):
    # Batch 2 lies across both files.
    rows = [*ROWS, ["q5", "p4 ", "n5"], ["q1", "p7", "n7"], ["q8", "p8", "p1"], ["q1", "p9", "p7"]]
    write(tmp_path / "rows" / "a.parquet", rows[:5])
    write(tmp_path / "rows" / "b.parquet", rows[5:])
    done = cli("verify", tmp_path / "rows", "--batch-size", "2")
    assert (done.code, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        f"stx-mine: error: {tmp_path / 'rows'}: 2 of 5 batches of 2 are clean, 4 (44.4%) of 9 rows "
        "break a rule:",
        "  a negative is a known positive of its anchor: 1 (11.1%) of the rows, in 1 batches",
        "  a text stands twice in the batch: 2 (22.2%) of the rows, in 1 batches",
        "  a known positive of the anchor stands in another row of the batch: 1 (11.1%) of the "
        "rows, in 1 batches",
        f"  read {tmp_path / 'rows'}: query from anchor, passage from positive, known negatives "
        "from negative_1",
        "  2 files in order, a.parquet to b.parquet",
        "  the last batch has 1 of 2 rows; it was checked as it is, and a trainer may drop it",
        "  the first ones; batches count from 0, rows from 0 in their file:",
        "  batch 2: a text stands twice in the batch: a.parquet row 4 positive 'p4', "
        "b.parquet row 0 positive 'p4 '",
        "  batch 3: a known positive of the anchor stands in another row of the batch: "
        "b.parquet row 1 anchor 'q1', row 2 negative_1 'p1'",
        "  batch 4: a negative is a known positive of its anchor: "
        "b.parquet row 3 anchor 'q1', row 3 negative_1 'p7'",
    ]


def test_clean_rows_say_so_and_leave_with_zero(tmp_path, cli):
    path = write(tmp_path / "rows.parquet", ROWS)
    done = cli("verify", path, "--batch-size", "2")
    assert done.code == 0
    assert "3 of 3 batches of 2 are clean, 0 (0.0%) of 5 rows break a rule" in done.stdout
    assert "the last batch has 1 of 2 rows" in done.stderr


def test_no_more_violations_are_named_than_asked_for_and_all_are_counted(tmp_path):
    path = write(tmp_path / "rows.parquet", [["q", "p", "n"]] * 6)
    for most in (1, 2, 100):
        summary = summary_of(path, 3, most)
        assert summary.rows_by_rule["repeated"] == 6
        assert len(summary.first) == len(set(summary.first)) <= most
        assert summary.first[0] == (0, "repeated", ((0, 0), (1, 0)))


@pytest.mark.parametrize(
    ("names", "options", "expected"),
    [
        ("query answer wrong worse", {}, "query answer"),
        ("source anchor positive negative", {}, "anchor positive negative"),
        ("anchor positive negative_1 note negative_2", {}, "anchor positive negative_1 negative_2"),
        ("anchor positive score label", {"label_column": "none"}, "anchor positive"),
        ("query answer wrong", {"negative_column": ("wrong",)}, "query answer wrong"),
        ("x y z", {"query_column": "y", "passage_column": "x"}, "y x"),
    ],
)
def test_columns_are_found_by_name_and_the_others_are_said(names, options, expected, tmp_path):
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({name: ["text"] for name in names.split()}), path)
    reader = open_rows(str(path), VerifyConfig(**options))
    [(_, block)] = reader.read(True)
    anchor, positive, *negatives = expected.split()
    assert block.anchors.name == anchor
    assert [one.name for one in block.positives] == [positive]
    assert [one.name for one in block.negatives] == negatives
    ignored = [name for name in names.split() if name not in expected.split()]
    assert reader.described[0].partition("; not read: ")[2] == ", ".join(ignored)


def test_json_lines_and_tables_of_text_are_read_as_parquet_is(tmp_path):
    rows = [*ROWS[:4], ["q1", "p9", "p1"]]
    expected = violation(write(tmp_path / "r.parquet", rows), 2)
    lines = [dict(zip(COLUMNS, row, strict=False), label=1.0) for row in rows]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "r.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "r.tsv").write_text("\n".join("\t".join(row) for row in [COLUMNS[:3], *rows]))
    for name in ("r.jsonl.gz", "r.tsv"):
        found = violation(tmp_path / name, 2)
        assert "row 4 anchor 'q1', row 4 negative_1 'p1'" in found
        same = found.replace(name, "r.parquet").replace(", label from label", "")
        same = same.replace("  label: 1 is a positive\n", "")
        assert same == expected


def write_lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def bad_inputs(folder: Path) -> None:
    """Files that cannot be read as rows."""
    write(folder / "good.parquet", ROWS)
    write(folder / "mixed" / "a.parquet", ROWS)
    write(folder / "mixed" / "b.parquet", ROWS, ["anchor", "positive", "other"])
    write(folder / "no_rows.parquet", [])
    write(folder / "one.parquet", [["q"]])
    (folder / "empty.parquet").touch()
    (folder / "broken.parquet").write_text("no Parquet")
    (folder / "rows.txt").write_text("a b")
    labels = {"anchor": ["q"], "positive": [["p", "m"]], "labels": [[1, 2]]}
    pq.write_table(pa.table(labels), folder / "labels.parquet")
    write_lines(folder / "labels.jsonl", [{"anchor": "q", "positive": ["p", "n"], "labels": [1]}])
    write_lines(folder / "ids.jsonl", [[1, 2, 3]])
    (folder / "broken.jsonl").write_text('{"query": "a", "positive_passages": []}\n{"query"\n')
    write_lines(folder / "nested.jsonl", [{"query": "a", "positive_passages": [{"docid": "1"}]}])
    (folder / "other.json").write_text('[{"a": 1}]')
    (folder / "broken.json").write_text('[{"a": 1')
    half = [{"question": "q", "positive_ctxs": [], "hard_negative_ctxs": []}] * 2
    (folder / "half.json").write_text(json.dumps(half)[:-9])
    (folder / "no_list.json").write_text('{"a": 1}')
    (folder / "run.trec").write_text("a b\n")
    (folder / "hits.trec").write_text("q Q0 d 1 0.5 tag\n")
    for name in ("two_texts", "no_texts"):
        write_lines(folder / name / "corpus.jsonl", [{"_id": "d1", "text": t} for t in "ab"])
        (folder / name / "qrels").mkdir()
        (folder / name / "qrels/train.tsv").write_text("query-id\tcorpus-id\tscore\nq\td1\t1\n")
    write_lines(folder / "two_texts/queries.jsonl", [{"_id": "q", "text": "q"}])
    shutil.copytree(folder / "two_texts", folder / "no_id")
    write_lines(folder / "no_id/corpus.jsonl", [{"text": "a"}])
    shutil.copytree(folder / "two_texts", folder / "grade")
    write_lines(folder / "grade/corpus.jsonl", [{"_id": "d1", "text": "a"}])
    (folder / "grade/qrels/train.tsv").write_text("query-id\tcorpus-id\tscore\nq\td1\thigh\n")
    for name in ("fields", "no_lists"):
        (folder / name).mkdir()
        for table in ("collection", "queries"):
            (folder / f"{name}/{table}.tsv").write_text("0\ttext\n")
    (folder / "no_lists/triples.jsonl").write_text("1\n")
    (folder / "fields/triples.tsv").write_text("0\n1\n")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("good.parquet --batch-size 1", ["--batch-size", "at least 2", "found 1"]),
        ("good.parquet --batch-size 2 --query-column q", ["'q'", "--query-column", "positive"]),
        ("good.parquet --batch-size 2 --negative-column n", ["'n'", "--negative-column"]),
        (
            "good.parquet --batch-size 2 --query-column positive --passage-column positive",
            ["'positive' for both", "--query-column"],
        ),
        ("one.parquet --batch-size 2", ["one.parquet", "the passages", "--passage-column"]),
        (
            "labels.parquet",
            ["'labels'", "numbers from 1 to 2", "--label-column none"],
        ),
        ("labels.jsonl", ["a label for every text", "found 1 in 'labels' and 2 in 'positive'"]),
        ("ids.jsonl", ["ids.jsonl", "names queries by id", "--queries FILE"]),
        ("broken.jsonl", ["line 2 of", "broken.jsonl", "no JSON object"]),
        ("nested.jsonl", ["nested.jsonl", "names passages by id", "--corpus FILE"]),
        ("hits.trec --query-column query", ["--query-column is for rows of others", "TREC run"]),
        ("other.json", ["which column of", "other.json", "--passage-column"]),
        ("broken.json", ["expected JSON rows", "broken.json"]),
        ("half.json", ["expected JSON rows in", "half.json"]),
        ("no_list.json", ["which column of", "no_list.json", "--passage-column"]),
        ("run.trec", ["query Q0 passage rank score tag", "'a b'"]),
        ("two_texts", ["expected one text per id", "two under 'd1'"]),
        ("no_texts", ["expected corpus.jsonl and queries.jsonl", "found no queries.jsonl"]),
        ("no_id", ["no column of ids", "no_id/corpus.jsonl", "call that of the ids _id"]),
        ("grade", ["expected numbers in column 'score'", "train.tsv", "'high'"]),
        ("no_lists", ["line 1 of", "triples.jsonl", "no JSON object"]),
        ("fields", ["ids of a query and of its passages", "triples.tsv"]),
        (
            "mixed --batch-size 2",
            ["b.parquet", "differ in their columns", "a pattern that fits"],
        ),
        ("no_rows.parquet --batch-size 2", ["no_rows.parquet", "at least one row"]),
        ("empty.parquet --batch-size 2", ["empty.parquet is empty"]),
        ("broken.parquet --batch-size 2", ["expected parquet", "broken.parquet"]),
        ("rows.txt --batch-size 2", ["rows.txt", ".parquet", "convert"]),
        ("nothing.parquet --batch-size 2", ["nothing.parquet"]),
    ],
)
def test_a_wrong_input_is_one_line(line, said, tmp_path, cli_here):
    bad_inputs(tmp_path)
    name, *options = line.split()
    error = cli_here("verify", tmp_path / name, *options).error
    for part in said:
        assert part in error


def test_options_for_rows_are_refused_for_our_own_batches(strict_shards, cli_here):
    error = cli_here("verify", strict_shards, "--batch-size", "64").error
    assert "--batch-size is for rows of others" in error
    assert "leave it out" in error

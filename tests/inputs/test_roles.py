"""What columns hold is told by their values too: ids of other tables, examples, empty lists."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_formats import Fields, read, write_lines

from stx_mine.errors import InputError
from stx_mine.inputs.pairs import PairSource
from stx_mine.stages.ingest.pairs import read_source

QUERIES = [f"how high is hill {i}?" for i in range(6)]
TEXTS = [f"hill {i} is {i} m high" for i in range(6)]
PAIRS = list(zip(QUERIES, TEXTS, strict=True))
KNOWN = {(QUERIES[i], TEXTS[(i + 1) % 6]) for i in range(6)}


def tables(folder: Path, key: str = "_id") -> dict[str, str]:
    """Queries and a corpus, with their ids under a key, as options."""
    for role, texts in (("queries", QUERIES), ("corpus", TEXTS)):
        rows = [{key: f"{role[0]}{i}", "text": one} for i, one in enumerate(texts)]
        write_lines(folder / f"{role}.jsonl", rows)
    return {role: str(folder / f"{role}.jsonl") for role in ("queries", "corpus")}


@pytest.mark.parametrize(
    ("query", "positive", "negative"),
    [("query", "positive", "negative"), ("qid", "pos", "neg"), ("anchor", "doc", "hard_negatives")],
)
@pytest.mark.parametrize("as_lists", [False, True])
def test_values_that_are_ids(
    tmp_path: Path, query: str, positive: str, negative: str, as_lists: bool
) -> None:
    def cell(name: str) -> Any:
        return [name] if as_lists else name

    rows = [
        {query: f"q{i}", positive: cell(f"c{i}"), negative: cell(f"c{(i + 1) % 6}")}
        for i in range(6)
    ]
    path = write_lines(tmp_path / "p.jsonl", rows)
    found = read(path, **tables(tmp_path))
    assert found.pairs == PAIRS
    assert found.known == KNOWN


@pytest.mark.parametrize("name", ["neg", "negatives", "hard_negative", "negative_passages"])
def test_numbers_in_lists_of_negatives_are_ids(tmp_path: Path, name: str) -> None:
    rows = [{"query": q, "pos": [p], name: [(i + 1) % 6]} for i, (q, p) in enumerate(PAIRS)]
    path = write_lines(tmp_path / "p.jsonl", rows)
    with pytest.raises(InputError, match=f"{name}.*--corpus FILE, or --negative-column none"):
        read(path)
    assert read(path, negative_column=("none",)).pairs == PAIRS
    corpus = write_lines(
        tmp_path / "c.jsonl", [{"_id": i, "text": one} for i, one in enumerate(TEXTS)]
    )
    assert read(path, corpus=str(corpus)).known == KNOWN


def test_texts_are_no_ids(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "p.jsonl", [{"query": q, "positive": p} for q, p in PAIRS])
    options = tables(tmp_path)
    assert read(path, corpus=options["corpus"]).pairs == PAIRS
    with pytest.raises(InputError, match=r"how high is hill 0.*leave --queries out"):
        read(path, **options)


def test_tables_without_ids(tmp_path: Path) -> None:
    rows = [{"query_id": f"q{i}", "corpus_id": f"c{i}"} for i in range(6)]
    path = write_lines(tmp_path / "p.jsonl", rows)
    options = tables(tmp_path, key="key")
    with pytest.raises(InputError, match=r"no column of ids; its columns are key, text"):
        read(path, **options)


def test_unknown_ids_are_shown(tmp_path: Path) -> None:
    rows = [{"query_id": f"q{i} ", "corpus_id": f"c{i}"} for i in range(6)]
    path = write_lines(tmp_path / "p.jsonl", rows)
    with pytest.raises(InputError, match=r"has the id 'q0 ' of column 'query_id'.*are 'q0', 'q1'"):
        read(path, **tables(tmp_path))


@pytest.mark.parametrize("name", ["texts", "set"])
def test_labels_of_examples(tmp_path: Path, name: str) -> None:
    rows = [{name: list(pair), "label": float(i % 2)} for i, pair in enumerate(PAIRS)]
    found = read(write_lines(tmp_path / "p.jsonl", rows))
    assert found.pairs == PAIRS[1::2]
    assert found.known == set(PAIRS[::2])


def test_three_texts_of_an_example(tmp_path: Path) -> None:
    rows = [{"texts": [q, p, TEXTS[(i + 1) % 6]]} for i, (q, p) in enumerate(PAIRS)]
    path = write_lines(tmp_path / "p.jsonl", rows)
    found = read(path)
    assert found.pairs == PAIRS
    assert found.known == KNOWN
    assert not read(path, negative_column=("none",)).known


@pytest.mark.parametrize("empty", [[], None])
def test_rows_without_a_positive_are_counted(tmp_path: Path, empty: Any) -> None:
    rows = [{"query": q, "pos": empty if i < 2 else [p]} for i, (q, p) in enumerate(PAIRS)]
    found = read(write_lines(tmp_path / "p.jsonl", rows))
    assert found.pairs == PAIRS[2:]
    assert found.dropped == {"no_positive": 2}


@pytest.mark.parametrize("label", ["is_accepted", "accepted", "is_correct", "correct"])
def test_flags_in_answers(tmp_path: Path, label: str) -> None:
    rows = [
        {
            "question": q,
            "answers": [
                {"text": p, label: True, "votes": 3},
                {"text": TEXTS[(i + 1) % 6], label: False, "votes": 1},
            ],
        }
        for i, (q, p) in enumerate(PAIRS)
    ]
    path = write_lines(tmp_path / "p.jsonl", rows)
    found = read(path)
    assert found.pairs == PAIRS
    assert found.known == KNOWN
    said = PairSource.open(str(path), Fields(), "train").description()[0]
    assert said.endswith("; not read: answers.votes")


def test_empty_grades_are_counted(tmp_path: Path) -> None:
    rows = [{"query_id": f"q{i}", "corpus_id": f"c{i}", "score": i or None} for i in range(6)]
    path = write_lines(tmp_path / "p.jsonl", rows)
    options = tables(tmp_path)
    found = read(path, **options)
    assert found.pairs == PAIRS[1:]
    assert found.dropped == {"no_label": 1}
    judged = list(PairSource.open(str(path), Fields(**options), "train").judgements())
    assert [name for ids, _, _ in judged for name in ids.to_pylist()] == [
        f"q{i}" for i in range(1, 6)
    ]


@pytest.mark.parametrize("text", ["\u200b", "\ufeff", "\0", " \u200b\u2060 ", "\u3000"])
def test_what_nobody_sees_is_empty(tmp_path: Path, text: str) -> None:
    rows = [{"query": q, "positive": p} for q, p in PAIRS]
    rows[2]["positive"] = text
    found = read(write_lines(tmp_path / "p.jsonl", rows))
    assert found.pairs == PAIRS[:2] + PAIRS[3:]
    assert found.dropped == {"empty_passage": 1}


@pytest.mark.parametrize(
    ("query", "passage"),
    [("q", "a"), ("prompt", "completion"), ("instruction", "output"), ("input", "output")],
)
def test_names_of_prompts(tmp_path: Path, query: str, passage: str) -> None:
    rows = [{passage: p, query: q} for q, p in PAIRS]
    assert read(write_lines(tmp_path / "p.jsonl", rows)).pairs == PAIRS


def test_times_are_no_texts(tmp_path: Path) -> None:
    times = pa.array(range(6), pa.timestamp("s"))
    pq.write_table(pa.table({"query": times, "passage": TEXTS}), tmp_path / "p.parquet")
    with pytest.raises(InputError, match="found times; name another column"):
        read(tmp_path / "p.parquet")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"messages": [{"role": "user", "content": "a"}]}, "found conversations"),
        ({"query": "a", "pos": ["b"], "neg": {"bm25": ["c"]}}, "--negative-column none"),
        ({"query": ["a"], "passage": "b"}, "one query a row"),
        ({"instruction": "a", "input": "b", "output": "c"}, "--query-column"),
    ],
)
def test_ways_out(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    (tmp_path / "p.jsonl").write_text(2 * (json.dumps(row) + "\n"))
    with pytest.raises(InputError, match=said):
        read(tmp_path / "p.jsonl")


def test_an_id_of_several_texts_is_said(tmp_path: Path) -> None:
    rows = [
        {"query_id": "a", "query": q, "docid": f"c{i}", "passage": p}
        for i, (q, p) in enumerate(PAIRS)
    ]
    path = write_lines(tmp_path / "p.jsonl", rows)
    source = PairSource.open(str(path), Fields(), "train")
    assert "passage id from docid" in source.description()[0]
    assert read_source(source).notes == [
        "query_id: 1 ids stand beside several texts, 'a' for example; exports by id need one for "
        "each text"
    ]

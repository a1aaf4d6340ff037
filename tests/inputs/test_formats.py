"""Every layout of docs/formats.md is read as its owner means it, or refused with the way out."""

import bz2
import csv
import gzip
import json
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
import zstandard

from stx_mine.errors import InputError
from stx_mine.inputs.config import SourceFields, SymmetryFields
from stx_mine.inputs.pairs import PairSource
from stx_mine.stages.ingest.pairs import read_source
from stx_mine.stages.verify.config import VerifyConfig
from stx_mine.stages.verify.pair_rows import open_rows
from stx_mine.store.digests import text_numbers

NUM = 12
QUERIES = [f"what is the height of hill {i}?" for i in range(NUM)]
PASSAGES = [f'Hill "{i}" is {i * 7 + 3} m high, they say; it stands in Köln.' for i in range(NUM)]
NEGATIVES = [f"River {i} is {i + 2} km long and flows north, he said." for i in range(NUM)]
PAIRS = list(zip(QUERIES, PASSAGES, strict=True))
KNOWN = set(zip(QUERIES, NEGATIVES, strict=True))
ROWS = [{"query": q, "passage": p} for q, p in PAIRS]
TRIPLES = list(zip(QUERIES, PASSAGES, NEGATIVES, strict=True))
QUERY_IDS, PASSAGE_IDS = [f"q{i}" for i in range(NUM)], [f"d{i}" for i in range(NUM)]
NEGATIVE_IDS = [f"d{NUM + i}" for i in range(NUM)]
CORPUS = dict(zip([*PASSAGE_IDS, *NEGATIVE_IDS], [*PASSAGES, *NEGATIVES], strict=True))


@dataclass(frozen=True)
class Layout:
    """A layout of the field.

    Attributes:
        write: Writes it into a folder; gives what PAIRS is, and options.
        known: Whether its negatives are read too.
        ids: Whether the ids of its queries are kept.
    """

    write: Callable[[Path], tuple[str, dict[str, Any]]]
    known: bool = False
    ids: bool = False


LAYOUTS: dict[str, Layout] = {}
Written = Path | tuple[Path, dict[str, Any]]


def layout(name: str, **about: bool) -> Callable[[Callable[[Path], Written]], None]:
    """Name a function that writes a layout, as docs/formats.md names it."""

    def add(write: Callable[[Path], Written]) -> None:
        def written(folder: Path) -> tuple[str, dict[str, Any]]:
            found = write(folder)
            path, options = found if isinstance(found, tuple) else (found, {})
            return str(path), options

        assert name not in LAYOUTS
        LAYOUTS[name] = Layout(written, **about)

    return add


@dataclass(frozen=True)
class Read:
    """What was read: texts of pairs and of known negatives, ids of queries, drops by reason."""

    pairs: list[tuple[str, str]]
    known: set[tuple[str, str]]
    ids: dict[str, str | None]
    dropped: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Fields(SymmetryFields, SourceFields):
    """All options of a source."""


def read(path: str | Path, prefer: str = "train", **options: Any) -> Read:
    source = PairSource.open(str(path), Fields(**options), prefer)
    assert source.description()
    found = read_source(source)

    def texts(stream, distinct):
        by_id: dict[int, tuple[str, str | None]] = {}
        ids = iter(distinct.ids.tolist())
        for values, originals in stream:
            for value, original in zip(values.to_pylist(), originals.to_pylist(), strict=True):
                by_id.setdefault(next(ids), (value, original))
        return by_id

    queries = texts(source.queries(), found.queries)
    passages = texts(source.passages(), found.passages)
    return Read(
        [(queries[q][0], passages[p][0]) for q, p in found.pairs.tolist()],
        {(queries[q][0], passages[p][0]) for q, p in found.negatives.tolist()},
        {text: original for number, (text, original) in queries.items() if number >= 0},
        {reason: n for reason, n in found.counts.pairs_dropped.items() if n},
    )


def write_lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_table(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def write_values(path: Path, rows: list[tuple[Any, ...]], delimiter: str, **how: Any) -> Path:
    with path.open("w", newline="", encoding=how.pop("encoding", "utf-8")) as handle:
        csv.writer(handle, delimiter=delimiter, **how).writerows(rows)
    return path


def raw_lines(path: Path, rows: list[tuple[Any, ...]]) -> Path:
    path.write_text("".join("\t".join(map(str, row)) + "\n" for row in rows))
    return path


# --- tables of texts ---


@layout("Parquet")
def _(folder):
    return write_table(folder / "p.parquet", query=QUERIES, passage=PASSAGES)


@layout("Parquet with an id first", ids=True)
def _(folder):
    return write_table(folder / "p.parquet", id=QUERY_IDS, passage=PASSAGES, query=QUERIES)


@layout("Parquet of pandas, with its index")
def _(folder):
    frame = pd.DataFrame({"question": QUERIES, "answer": PASSAGES}).iloc[::-1].iloc[::-1]
    frame.index = np.arange(NUM) * 3
    frame.to_parquet(folder / "p.parquet")
    return folder / "p.parquet"


for _name, _type in {
    "large_string": pa.large_string(),
    "string_view": pa.string_view(),
    "dictionary": pa.dictionary(pa.int32(), pa.string()),
    "binary": pa.binary(),
}.items():

    @layout(f"Parquet, {_name} columns")
    def _(folder, kind=_type):
        if kind == pa.string_view():
            # Parquet's writer has no views: an Arrow file does.
            table = pa.table({"query": QUERIES, "passage": PASSAGES})
            views = table.cast(pa.schema([("query", kind), ("passage", kind)]))
            with pa.ipc.new_file(folder / "p.arrow", views.schema) as writer:
                writer.write_table(views)
            return folder / "p.arrow"
        columns = {"query": pa.array(QUERIES), "passage": pa.array(PASSAGES)}
        cast = {name: column.cast(kind) for name, column in columns.items()}
        return write_table(folder / "p.parquet", **cast)


@layout("Arrow file, Arrow stream, Feather")
def _(folder):
    table = pa.table({"query": QUERIES[:4], "passage": PASSAGES[:4]})
    with pa.ipc.new_file(folder / "a.arrow", table.schema) as writer:
        writer.write_table(table)
    rest = pa.table({"query": QUERIES[4:8], "passage": PASSAGES[4:8]})
    with pa.ipc.new_stream(folder / "b.arrow", table.schema) as writer:
        writer.write_table(rest)
    with pa.ipc.new_stream(folder / "c.arrow", table.schema) as writer:
        writer.write_table(pa.table({"query": QUERIES[8:], "passage": PASSAGES[8:]}))
    pa.feather.write_feather(table, folder / "only.feather")
    assert read(folder / "only.feather").pairs == PAIRS[:4]
    return folder / "*.arrow"


@layout("CSV")
def _(folder):
    return write_values(folder / "p.csv", [("query", "passage"), *PAIRS], ",")


@layout("CSV of pandas, with its index")
def _(folder):
    pd.DataFrame({"question": QUERIES, "context": PASSAGES}).to_csv(folder / "p.csv")
    return folder / "p.csv"


@layout("CSV with semicolons")
def _(folder):
    return write_values(folder / "p.csv", [("Query", "Passage"), *PAIRS], ";")


@layout("CSV in cp1252")
def _(folder):
    rows = [("query", "passage"), *PAIRS]
    path = write_values(folder / "p.csv", rows, ",", encoding="cp1252")
    with pytest.raises(InputError, match=r"line 2 of .*p.csv is not UTF-8.*--encoding cp1252"):
        read(path)
    return path, {"encoding": "cp1252"}


@layout("CSV with a byte order mark, or in UTF-16")
def _(folder):
    path = write_values(folder / "m.csv", [("query", "passage"), *PAIRS], ",", encoding="utf-8-sig")
    assert read(path).pairs == PAIRS
    return write_values(folder / "p.csv", [("query", "passage"), *PAIRS], ",", encoding="utf-16")


@layout("TSV, quotation marks are text")
def _(folder):
    return raw_lines(folder / "p.tsv", [("query", "passage"), *PAIRS])


@layout("TSV of pandas and spreadsheets")
def _(folder):
    pd.DataFrame({"query": QUERIES, "passage": PASSAGES}).to_csv(
        folder / "p.tsv", sep="\t", index=False
    )
    return folder / "p.tsv"


@layout("TSV of two texts without a header line")
def _(folder):
    return raw_lines(folder / "p.tsv", PAIRS)


@layout("TSV of three texts without a header line (MS MARCO triples)", known=True)
def _(folder):
    return raw_lines(folder / "triples.train.small.tsv", TRIPLES)


@layout("CSV without a header line, columns named", ids=True)
def _(folder):
    rows = [(i, p, q) for i, (q, p) in zip(QUERY_IDS, PAIRS, strict=True)]
    return write_values(folder / "p.csv", rows, ","), {"columns": ("qid,passage,query",)}


@layout("JSON lines")
def _(folder):
    return write_lines(folder / "p.jsonl", ROWS)


@layout("JSON lines whose first line lacks keys", known=True)
def _(folder):
    rows = [
        {"negative": n, "passage": p, "query": q} if i else {"query": q, "passage": p}
        for i, (q, p, n) in enumerate(TRIPLES)
    ]
    rows.append({"query": QUERIES[0], "passage": PASSAGES[0], "negative": NEGATIVES[0]})
    return write_lines(folder / "p.jsonl", rows)


@layout("JSON lines with columns of mixed types that are not read")
def _(folder):
    odd = ["none", 1, 2.5, [1], {"a": 1}, None, True, [], [{"b": "x"}], 10**30, "", {}]
    return write_lines(
        folder / "p.jsonl", [{"meta": o, **row} for o, row in zip(odd, ROWS, strict=True)]
    )


@layout("JSON lines, compressed")
def _(folder):
    content = write_lines(folder / "p.jsonl", ROWS).read_bytes()
    for suffix, compress in (
        ("gz", gzip.compress),
        ("bz2", bz2.compress),
        ("zst", zstandard.compress),
    ):
        (folder / f"p.jsonl.{suffix}").write_bytes(compress(content))
        assert read(folder / f"p.jsonl.{suffix}").pairs == PAIRS
    return folder / "p.jsonl"


@layout("JSON lines in a .json file")
def _(folder):
    return write_lines(folder / "p.json", ROWS)


@layout("A JSON array of objects")
def _(folder):
    (folder / "p.json").write_text(json.dumps(ROWS, indent=2))
    (folder / "one_line.json").write_text(json.dumps(ROWS))
    assert read(folder / "one_line.json").pairs == PAIRS
    return folder / "p.json"


@layout("Lines of JSON lists: query, passage, negatives", known=True)
def _(folder):
    write_lines(folder / "two.jsonl", [list(pair) for pair in PAIRS])
    assert read(folder / "two.jsonl").pairs == PAIRS
    return write_lines(folder / "p.jsonl", [list(row) for row in TRIPLES])


@layout("Lines of {set: [...]}")
def _(folder):
    return write_lines(folder / "p.jsonl", [{"set": list(pair)} for pair in PAIRS])


@layout("A zip of one of these")
def _(folder):
    path = write_values(folder / "p.csv", [("query", "passage"), *PAIRS], ",")
    with zipfile.ZipFile(folder / "p.zip", "w") as archive:
        archive.write(path, "inner/p.csv")
        archive.writestr("__MACOSX/p.csv", "junk")
    return folder / "p.zip"


# --- negatives, labels, scores ---


@layout("Triplets: anchor, positive, negative", known=True)
def _(folder):
    return write_table(folder / "p.parquet", anchor=QUERIES, positive=PASSAGES, negative=NEGATIVES)


@layout("n-tuples: anchor, positive, negative_1 ...", known=True)
def _(folder):
    rows = [
        {"anchor": q, "positive": p, "negative_1": n, "negative_2": n, "scores": [0.9, 0.1, 0.1]}
        for q, p, n in TRIPLES
    ]
    return write_lines(folder / "p.jsonl", rows)


@layout("FlagEmbedding: query, pos, neg as lists", known=True)
def _(folder):
    rows = [
        {"query": q, "pos": [p], "neg": [n], "pos_scores": [0.9], "neg_scores": [0.2]}
        for q, p, n in TRIPLES
    ]
    return write_lines(folder / "p.jsonl", rows)


@layout("A 0/1 label: question1, question2, is_duplicate", known=True)
def _(folder):
    rows = [(q, p, 1) for q, p in PAIRS] + [(q, n, 0) for q, n in sorted(KNOWN)]
    return write_values(folder / "p.csv", [("question1", "question2", "is_duplicate"), *rows], ",")


@layout("labeled-pair: anchor, positive, label", known=True)
def _(folder):
    return write_table(
        folder / "p.parquet",
        anchor=QUERIES * 2,
        positive=PASSAGES + NEGATIVES,
        label=[1] * NUM + [0] * NUM,
    )


@layout("labeled-list: anchor, lists of passages and labels", known=True)
def _(folder):
    rows = [{"anchor": q, "positive": [p, n], "labels": [1, 0]} for q, p, n in TRIPLES]
    return write_lines(folder / "p.jsonl", rows)


@layout("labeled-list with scores instead of labels", known=True)
def _(folder):
    rows = [{"anchor": q, "positive": [p, n], "scores": [0.4, 0.7]} for q, p, n in TRIPLES]
    return write_lines(folder / "p.jsonl", rows)


@layout("MS MARCO v2: passages with is_selected", known=True)
def _(folder):
    rows = [
        {"query": q, "passages": {"is_selected": [0, 1], "passage_text": [n, p], "url": ["", ""]}}
        for q, p, n in TRIPLES
    ]
    return write_table(
        folder / "p.parquet",
        query=[row["query"] for row in rows],
        passages=[row["passages"] for row in rows],
    )


@layout("STS scores")
def _(folder):
    rows = [(q, p, "4.6") for q, p in PAIRS] + [(q, n, "1.5") for q, n in sorted(KNOWN)]
    path = write_values(folder / "p.csv", [("sentence1", "sentence2", "score"), *rows], ",")
    with pytest.raises(InputError, match=r"'score'.*numbers from 1.5 to 4.6.*--min-grade"):
        read(path)
    assert len(read(path, label_column="none").pairs) == 2 * NUM
    return path, {"min_grade": 4.0}


@layout("NLI classes", known=True)
def _(folder):
    labels = ["entailment"] * NUM + ["contradiction"] * NUM + ["neutral"]
    rows = list(zip([*QUERIES, *QUERIES, "x"], [*PASSAGES, *NEGATIVES, "y"], labels, strict=True))
    path = write_values(folder / "p.csv", [("premise", "hypothesis", "label"), *rows], ",")
    with pytest.raises(InputError, match=r"'label'.*entailment.*--positive-label"):
        read(path)
    return path, {"positive_label": ("entailment",), "negative_label": ("contradiction",)}


# --- nested layouts ---


def tevatron(**more: Any) -> list[dict[str, Any]]:
    return [
        {
            "query_id": query_id,
            "query": q,
            "positive_passages": [{"docid": d, "title": "", "text": p}],
            "negative_passages": [{"docid": e, "title": "", "text": n}],
            **more,
        }
        for query_id, (q, p, n), d, e in zip(
            QUERY_IDS, TRIPLES, PASSAGE_IDS, NEGATIVE_IDS, strict=True
        )
    ]


@layout("Tevatron", known=True, ids=True)
def _(folder):
    rows = tevatron()
    write_lines(folder / "p.jsonl", rows)
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    write_table(folder / "p.parquet", **columns)
    assert read(folder / "p.parquet").known == KNOWN
    return folder / "p.jsonl"


@layout("RLHN", known=True, ids=True)
def _(folder):
    return write_lines(folder / "p.jsonl", tevatron(subset="fever"))


@layout("Tevatron, ids with a corpus", known=True, ids=True)
def _(folder):
    corpus = [{"docid": d, "text": text} for d, text in CORPUS.items()]
    rows = [
        {
            "query_id": i,
            "query": q,
            "positive_document_ids": [d],
            "negative_document_ids": [e],
        }
        for i, q, d, e in zip(QUERY_IDS, QUERIES, PASSAGE_IDS, NEGATIVE_IDS, strict=True)
    ]
    write_lines(folder / "corpus.jsonl", corpus)
    return write_lines(folder / "p.jsonl", rows), {"corpus": str(folder / "corpus.jsonl")}


@layout("DPR", known=True)
def _(folder):
    rows = [
        {
            "dataset": "nq",
            "question": q,
            "answers": ["x", "y"],
            "positive_ctxs": [{"title": "", "text": p, "score": 1000, "passage_id": str(i)}],
            "negative_ctxs": [],
            "hard_negative_ctxs": [{"title": "", "text": n, "score": 1.5, "passage_id": "9"}],
        }
        for i, (q, p, n) in enumerate(TRIPLES)
    ]
    (folder / "nq-train.json").write_text(json.dumps(rows, indent=1))
    return folder / "nq-train.json"


def squad(paragraphs: list[tuple[str, str, bool]]) -> dict[str, Any]:
    return {
        "version": "v2.0",
        "data": [
            {
                "title": "Hills",
                "paragraphs": [
                    {
                        "context": context,
                        "qas": [
                            {
                                "id": f"q{i}",
                                "question": question,
                                "is_impossible": not answered,
                                "answers": [{"text": "x", "answer_start": 0}] * answered,
                            }
                        ],
                    }
                    for i, (question, context, answered) in enumerate(paragraphs)
                ],
            }
        ],
    }


@layout("SQuAD as JSON", ids=True)
def _(folder):
    (folder / "train.json").write_text(json.dumps(squad([(q, p, True) for q, p in PAIRS])))
    return folder / "train.json"


@layout("SQuAD as a dataset", ids=True)
def _(folder):
    return write_table(
        folder / "p.parquet",
        id=QUERY_IDS,
        title=["Hills"] * NUM,
        context=PASSAGES,
        question=QUERIES,
        answers=[{"text": ["x"], "answer_start": [0]}] * NUM,
    )


@layout("SQuAD 2, questions without an answer", known=True)
def _(folder):
    both = [(q, p, True) for q, p in PAIRS] + [(q, n, False) for q, n in sorted(KNOWN)]
    (folder / "train.json").write_text(json.dumps(squad(both)))
    assert read(folder / "train.json").known == KNOWN
    return write_table(
        folder / "p.parquet",
        context=[p for _, p, _ in both],
        question=[q for q, _, _ in both],
        answers=[{"text": ["x"] * is_answered} for _, _, is_answered in both],
    )


@layout("ms-swift: messages", known=True)
def _(folder):
    def said(role: str, text: str) -> list[dict[str, str]]:
        return [{"role": role, "content": text}]

    rows = [
        {
            "messages": said("user", q),
            "positive_messages": [said("user", p)],
            "negative_messages": [said("user", n)],
        }
        for q, p, n in TRIPLES
    ]
    return write_lines(folder / "p.jsonl", rows)


# --- ids and their texts ---


def write_texts(folder: Path, suffix: str = ".jsonl") -> dict[str, Any]:
    """`queries` and `collection` by id, as options."""
    if suffix == ".tsv":
        raw_lines(folder / "queries.tsv", list(zip(QUERY_IDS, QUERIES, strict=True)))
        raw_lines(folder / "collection.tsv", list(CORPUS.items()))
    else:
        queries = dict(zip(QUERY_IDS, QUERIES, strict=True))
        write_lines(folder / "queries.jsonl", [{"id": i, "text": t} for i, t in queries.items()])
        corpus = [{"id": i, "contents": text} for i, text in CORPUS.items()]
        write_lines(folder / "collection.jsonl", corpus)
    return {
        name: str(folder / f"{file}{suffix}")
        for name, file in (("queries", "queries"), ("corpus", "collection"))
    }


@layout("MS MARCO triples of ids", known=True, ids=True)
def _(folder):
    rows = list(zip(QUERY_IDS, PASSAGE_IDS, NEGATIVE_IDS, strict=True))
    return raw_lines(folder / "qidpidtriples.tsv", rows), write_texts(folder, ".tsv")


@layout("MS MARCO triples of ids, a folder", known=True, ids=True)
def _(folder):
    ids = [*range(NUM, 2 * NUM), *range(NUM)]
    rows = list(zip(QUERY_IDS, ids, ids[NUM:], strict=False))
    raw_lines(folder / "collection.tsv", list(zip(ids, CORPUS.values(), strict=True)))
    raw_lines(folder / "queries.tsv", list(zip(QUERY_IDS, QUERIES, strict=True)))
    # The folder says that these small numbers are ids, and no grades.
    raw_lines(folder / "triples.tsv", rows[:4])
    assert read(folder).known == {(q, n) for q, _, n in TRIPLES[:4]}
    raw_lines(folder / "triples.tsv", rows)
    return folder


@layout("ColBERT: lists of ids", known=True, ids=True)
def _(folder):
    rows = list(zip(QUERY_IDS, PASSAGE_IDS, NEGATIVE_IDS, strict=True))
    # A row may be shorter than others.
    lines = [[*row, row[2]] if i else list(row) for i, row in enumerate(rows)]
    write_lines(folder / "triples.jsonl", lines)
    write_texts(folder, ".tsv")
    assert read(folder / "triples.jsonl").known == KNOWN
    (folder / "scored").mkdir()
    write_texts(folder / "scored", ".tsv")
    scored = [[q, [p, 0.9], [n, 1]] for q, p, n in rows]
    write_lines(folder / "scored/examples.jsonl", scored)
    assert read(folder / "scored").known == KNOWN
    write_lines(folder / "scored/examples.jsonl", lines)
    return folder / "scored"


@layout("TREC qrels between spaces", ids=True)
def _(folder):
    rows = [(q, 0, d, 1) for q, d in zip(QUERY_IDS, PASSAGE_IDS, strict=True)]
    lines = [" ".join(map(str, row)).replace(" ", " " * (1 + i % 3)) for i, row in enumerate(rows)]
    _lines(folder / "p.trec", "", *lines[:5], "", *lines[5:])
    (folder / "p.qrels").write_bytes((folder / "p.trec").read_bytes().replace(b"\n", b" \r\n"))
    texts = write_texts(folder)
    assert read(folder / "p.qrels", **texts).pairs == PAIRS
    return folder / "p.trec", texts


@layout("TREC qrels without a header line", ids=True)
def _(folder):
    rows = [(q, 0, d, 1) for q, d in zip(QUERY_IDS, PASSAGE_IDS, strict=True)]
    return raw_lines(folder / "qrels.train.tsv", rows), write_texts(folder, ".tsv")


@layout("Pairs of ids", ids=True)
def _(folder):
    rows = [
        {"corpus-id": d, "query-id": q, "score": 1}
        for q, d in zip(QUERY_IDS, PASSAGE_IDS, strict=True)
    ]
    return write_lines(folder / "p.jsonl", rows), write_texts(folder)


def write_beir(folder: Path, header: tuple[str, ...], rows: list[tuple[Any, ...]]) -> Path:
    (folder / "qrels").mkdir()
    queries = dict(zip(QUERY_IDS, QUERIES, strict=True))
    write_lines(folder / "queries.jsonl", [{"_id": i, "text": t} for i, t in queries.items()])
    corpus = [{"_id": i, "title": "", "text": text} for i, text in CORPUS.items()]
    write_lines(folder / "corpus.jsonl", corpus)
    raw_lines(folder / "qrels/train.tsv", [header, *rows] if header else rows)
    return folder


RELEVANT = [(q, d, 1) for q, d in zip(QUERY_IDS, PASSAGE_IDS, strict=True)]


@layout("BEIR folder", ids=True)
def _(folder):
    return write_beir(folder, ("query-id", "corpus-id", "score"), RELEVANT)


@layout("BEIR folder, qrels in TREC's four columns", ids=True)
def _(folder):
    header = ("query-id", "iter", "corpus-id", "score")
    return write_beir(folder, header, [(q, 0, d, s) for q, d, s in RELEVANT])


@layout("BEIR folder, qrels in another order", ids=True)
def _(folder):
    return write_beir(
        folder, ("corpus-id", "query-id", "score"), [(d, q, s) for q, d, s in RELEVANT]
    )


@layout("BEIR folder, qrels without a header line", ids=True)
def _(folder):
    return write_beir(folder, (), RELEVANT)


@layout("BEIR folder, a document is missing", ids=True)
def _(folder):
    rows = [*RELEVANT, ("q3", "gone", 1)]
    path = write_beir(folder, ("query-id", "corpus-id", "score"), rows)
    assert read(path).dropped == {"unknown_passage_id": 1}
    return path


@layout("MTEB and BEIR as Parquet: corpus, queries, qrels", ids=True)
def _(folder):
    for name in ("corpus", "queries", "qrels"):
        (folder / name).mkdir()
    write_table(folder / "queries/queries-00000-of-00001.parquet", _id=QUERY_IDS, text=QUERIES)
    write_table(
        folder / "corpus/corpus-00000-of-00001.parquet",
        _id=list(CORPUS),
        title=[""] * len(CORPUS),
        text=list(CORPUS.values()),
    )
    columns = dict(
        zip(("query-id", "corpus-id", "score"), zip(*RELEVANT, strict=True), strict=True)
    )
    lists = {name: list(values) for name, values in columns.items()}
    write_table(folder / "qrels/train-00000-of-00001.parquet", **lists)
    assert read(folder).pairs == PAIRS
    card = (
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n"
        "    path: qrels/train-*\n- config_name: corpus\n  data_files:\n  - split: corpus\n"
        "    path: corpus/corpus-*\n- config_name: queries\n  data_files:\n  - split: queries\n"
        "    path: queries/queries-*\n---\n# A data set\n"
    )
    (folder / "README.md").write_text(card)
    return folder


@layout("three-table: scores, queries, documents", known=True, ids=True)
def _(folder):
    write_table(folder / "queries.parquet", query_id=QUERY_IDS, text=QUERIES)
    write_table(folder / "documents.parquet", document_id=list(CORPUS), text=list(CORPUS.values()))
    ids = [list(both) for both in zip(PASSAGE_IDS, NEGATIVE_IDS, strict=True)]
    write_table(
        folder / "train.parquet", query_id=QUERY_IDS, document_ids=ids, scores=[[0.9, 0.1]] * NUM
    )
    return folder


@layout("NeMo Automodel", known=True, ids=True)
def _(folder):
    corpus = [{"id": i, "text": text} for i, text in CORPUS.items()]
    write_lines(folder / "corpus.jsonl", corpus)
    data = [
        {
            "question_id": i,
            "question": q,
            "corpus_id": "c",
            "pos_doc": [{"id": d}],
            "neg_doc": [{"id": e}],
        }
        for i, q, d, e in zip(QUERY_IDS, QUERIES, PASSAGE_IDS, NEGATIVE_IDS, strict=True)
    ]
    (folder / "train.json").write_text(json.dumps({"corpus": {"path": "c"}, "data": data}))
    return folder / "train.json", {"corpus": str(folder / "corpus.jsonl")}


@layout("NeMo Automodel, a folder", known=True, ids=True)
def _(folder):
    names = ("question_id", "question", "corpus_id", "pos_doc", "neg_doc")
    rows = [
        dict(zip(names, (i, q, "c", [str(number)], [NUM + number]), strict=True))
        for number, (i, q) in enumerate(zip(QUERY_IDS, QUERIES, strict=True))
    ]
    (folder / "texts").mkdir()
    ids = [str(number) for number in range(2 * NUM)]
    write_table(folder / "texts/t.parquet", id=ids, text=list(CORPUS.values()))
    (folder / "texts/merlin_metadata.json").write_text('{"class": "TextQADataset"}')
    document = {"note": [1, {"data": 2}], "data": rows, "corpus": [{"path": "texts"}]}
    (folder / "train.json").write_text(json.dumps(document, indent=1))
    assert read(folder / "train.json").known == KNOWN
    (folder / "texts").rename(folder / "corpus")
    (folder / "train.json").write_text(json.dumps(document).replace('"texts"', '"corpus"'))
    return folder


@layout("A folder of pairs and a corpus")
def _(folder):
    write_lines(folder / "train.jsonl", ROWS)
    write_lines(folder / "corpus.jsonl", [{"id": i, "text": text} for i, text in CORPUS.items()])
    assert PairSource.open(str(folder), Fields(), "train").corpus is not None
    return folder


@layout("A zip of a BEIR folder", ids=True)
def _(folder):
    header = ("query-id", "corpus-id", "score")
    beir = write_beir(folder, header, RELEVANT)
    raw_lines(beir / "qrels/test.tsv", [header, RELEVANT[0]])
    with zipfile.ZipFile(folder / "beir.zip", "w") as archive:
        for name in ("corpus.jsonl", "queries.jsonl", "qrels/train.tsv", "qrels/test.tsv"):
            archive.write(beir / name, f"scifact/{name}")
        archive.writestr("__MACOSX/scifact/corpus.jsonl", "junk")
        for outside in ("/tmp/train.tsv", "scifact/qrels/../../train.tsv"):
            archive.writestr(outside, "junk")
    for name in ("corpus.jsonl", "queries.jsonl", "qrels/train.tsv", "qrels/test.tsv"):
        (beir / name).unlink()
    assert read(folder / "beir.zip", split="test").pairs == PAIRS[:1]
    return folder / "beir.zip"


# --- several files ---


def write_shards(folder: Path, split: str = "train") -> None:
    folder.mkdir(exist_ok=True)
    for shard in range(3):
        some = slice(shard * 4, shard * 4 + 4)
        path = folder / f"{split}-0000{shard}-of-00003.parquet"
        write_table(path, query=QUERIES[some], passage=PASSAGES[some])


@layout("A folder of shards")
def _(folder):
    write_shards(folder)
    write_table(folder / "test-00000-of-00001.parquet", query=["x"], passage=["y"])
    (folder / ".hidden.parquet").write_text("junk")
    assert read(folder, split="test").pairs == [("x", "y")]
    return folder


@layout("A folder of shards with a dataset card")
def _(folder):
    write_shards(folder / "data")
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n"
        "    path: data/train-*.parquet\n---\n"
    )
    return folder


@layout("A pattern of files")
def _(folder):
    write_shards(folder / "data")
    return folder / "data/train-*.parquet"


@layout("A saved dataset")
def _(folder):
    datasets.Dataset.from_dict({"query": QUERIES, "passage": PASSAGES}).save_to_disk(
        folder / "saved", num_shards=2
    )
    return folder / "saved"


@layout("A saved DatasetDict")
def _(folder):
    both = datasets.DatasetDict(
        train=datasets.Dataset.from_dict({"query": QUERIES, "passage": PASSAGES}),
        validation=datasets.Dataset.from_dict({"query": ["v"], "passage": ["w"]}),
    )
    both.save_to_disk(folder / "saved")
    assert read(folder / "saved", split="dev").pairs == [("v", "w")]
    with pytest.raises(InputError, match=r"no split 'tset'.*one of: train, validation"):
        read(folder / "saved", split="tset")
    return folder / "saved"


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_gives_its_pairs(name: str, tmp_path: Path) -> None:
    one = LAYOUTS[name]
    path, options = one.write(tmp_path)
    found = read(path, **options)
    assert sorted(found.pairs) == sorted(PAIRS)
    assert found.known == (KNOWN if one.known else set())
    if one.ids:
        assert {found.ids[q] for q in QUERIES} == set(QUERY_IDS)


@pytest.mark.parametrize("name", LAYOUTS)
def test_verify_reads_a_layout_alike(name: str, tmp_path: Path) -> None:
    one = LAYOUTS[name]
    path, options = one.write(tmp_path)
    reader = open_rows(path, VerifyConfig(**options))
    texts = [*QUERIES, *PASSAGES, *NEGATIVES]
    text_of = dict(zip(text_numbers(pa.array(texts)).tolist(), texts, strict=True))
    pairs, known = (set[tuple[str, str]]() for _ in range(2))
    for _, rows in reader.blocks():
        for row, anchor in enumerate(rows.anchors.tolist()):
            query = text_of.get(anchor, "")
            pairs |= {(query, text_of.get(p, "")) for p in rows.positives.row(row).tolist()}
            known |= {(query, text_of.get(n, "")) for n in rows.negatives.row(row).tolist()}
    # What names no text, or is missing, is a missing text to `verify`.
    assert {pair for pair in pairs if all(pair)} == set(PAIRS)
    assert {pair for pair in known if all(pair)} == (KNOWN if one.known else set())


def test_the_page_of_formats_lists_what_is_tested(repo_root: Path) -> None:
    page = (repo_root / "docs/formats.md").read_text("utf-8")
    listed = re.findall(r"^\| ([^|]+?) \|", page, re.MULTILINE)
    assert [name for name in LAYOUTS if name not in listed] == []


# --- what cannot be right is refused with the way out ---

REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "unknown names": (
        lambda folder: write_values(folder / "p.csv", [("foo", "bar"), *PAIRS], ","),
        r"'foo,bar'.*--query-column and --passage-column",
    ),
    "unknown names in Parquet": (
        lambda folder: write_table(folder / "p.parquet", foo=QUERIES, bar=PASSAGES),
        r"which column .* holds the queries.*'foo', 'bar'.*--query-column",
    ),
    "a corpus instead of pairs": (
        lambda folder: write_table(
            folder / "p.parquet", _id=QUERY_IDS, title=QUERIES, text=PASSAGES
        ),
        r"holds the queries.*--query-column",
    ),
    "texts and labels": (
        lambda folder: write_table(folder / "p.parquet", text=QUERIES, label=[1] * NUM),
        r"holds the queries.*--query-column",
    ),
    "two columns of queries": (
        lambda folder: write_table(
            folder / "p.parquet", query=QUERIES, anchor=QUERIES, passage=PASSAGES
        ),
        r"several columns .* may hold the queries \(query, anchor\).*--query-column",
    ),
    "ids without texts": (
        lambda folder: write_lines(folder / "p.jsonl", [{"query-id": "q", "corpus-id": "d"}]),
        r"names queries by id.*--queries FILE",
    ),
    "a column twice": (
        lambda folder: write_values(folder / "p.csv", [("query", "query"), *PAIRS], ","),
        "'query' twice",
    ),
    "a key twice": (
        lambda folder: _lines(folder / "p.jsonl", '{"query": "a", "query": "b", "passage": "c"}'),
        r"line 1 of .*'query' stands twice.*fix that row",
    ),
    "numbers of columns that differ": (
        lambda folder: _lines(folder / "p.tsv", "query\tpassage", "a\tb", "a\tb\tc"),
        "Expected 2 columns, got 3",
    ),
    "shards of different columns": (
        lambda folder: (
            write_table(folder / "a.parquet", query=QUERIES, passage=PASSAGES),
            write_table(folder / "b.parquet", question=QUERIES, answer=PASSAGES),
            folder / "*.parquet",
        )[-1],
        "differ in their columns",
    ),
    "files of several kinds": (
        lambda folder: (
            write_table(folder / "a.parquet", query=QUERIES, passage=PASSAGES),
            write_lines(folder / "b.jsonl", ROWS),
            folder / "*",
        )[-1],
        "files of one kind",
    ),
    "a card that names files outside": (
        lambda folder: (
            (folder / "README.md").write_text(
                "---\nconfigs:\n- config_name: default\n  data_files: ../secret.csv\n---\n"
            ),
            folder,
        )[-1],
        "outside of it",
    ),
    "a document that names a corpus outside": (
        lambda folder: (
            (folder / "p.json").write_text(
                json.dumps(
                    {
                        "corpus": {"path": "../secret"},
                        "data": [{"question": "q", "pos_doc": [{"id": "1"}]}],
                    }
                )
            ),
            folder / "p.json",
        )[-1],
        r"outside of its folder \(\.\./secret\)",
    ),
    "several corpora": (
        lambda folder: (
            (folder / "p.json").write_text(
                json.dumps(
                    {
                        "corpus": [{"path": "a"}, {"path": "b"}],
                        "data": [{"question": "q", "pos_doc": [{"id": "1"}]}],
                    }
                )
            ),
            folder / "p.json",
        )[-1],
        "expected one corpus.*found 2.*--corpus FILE",
    ),
    "a line of qrels with another number of values": (
        lambda folder: _lines(folder / "p.trec", "q1 0 d1 1", "", "q2 0 d1"),
        "expected 4 values in every line .*, found 3 in line 3; fix that line",
    ),
    "a document without rows": (
        lambda folder: _lines(folder / "p.json", '{"rows": [1],', '"note": 2}'),
        "an object with the keys rows, note",
    ),
    "a document with a key twice": (
        lambda folder: _lines(folder / "p.json", '{"data": [],', '"data": []}'),
        "key 'data' stands twice",
    ),
    "a document and more": (
        lambda folder: _lines(folder / "p.json", json.dumps(ROWS), json.dumps(ROWS)),
        "expected the end of the document",
    ),
    "a document without an end": (
        lambda folder: _lines(folder / "p.json", '{"data":', '[{"query": "a", "passage": "b"}]'),
        "expected a comma or '}'",
    ),
    "a dataset that is not there": (
        lambda folder: Path("no-such-org/no-such-data"),
        "nothing lies at no-such-org/no-such-data.*check the path",
    ),
}


def _lines(path: Path, *lines: str) -> Path:
    path.write_text("".join(line + "\n" for line in lines))
    return path


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_told_is_refused(name: str, tmp_path: Path) -> None:
    write, said = REFUSED[name]
    with pytest.raises(InputError, match=said):
        read(write(tmp_path))

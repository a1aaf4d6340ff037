"""Layouts of ids, joined with the texts that lie beside them."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stx_mine.errors import InputError
from stx_mine.stages.verify.readers.blocks import (
    ReadRows,
    RowBlock,
    RowColumn,
    RowReader,
    TextTable,
)
from stx_mine.stages.verify.readers.documents import (
    checked,
    json_field,
    json_items,
    json_lines,
    lists_of_items,
)
from stx_mine.stages.verify.readers.tables import TEXT, by_label, columns_of, list_texts, separated

_ROWS_AT_ONCE = 8_192


def text_table(path: Path, id_name: str, text_name: str = "text") -> TextTable:
    """Read the texts of a file, or of the files of a folder, by their ids.

    Args:
        path: Parquet or JSON lines with these columns, or lines of an id, a tab and a text.
        id_name: Column of ids.
        text_name: Column of texts; a column `title` beside it is put in front.
    """
    if not path.exists():
        raise InputError(
            f"expected the texts that ids stand for at {path}, found none; put it there"
        )
    kinds = ("*.parquet", "*.jsonl*", "*.tsv")
    found = [one for kind in kinds for one in sorted(path.glob(kind))] if path.is_dir() else [path]
    if not found:
        raise InputError(f"expected tables of {id_name} and {text_name} in {path}, found none")

    def stream() -> Iterator[tuple[pa.Array, pa.Array]]:
        for one in found:
            blocks = _texts(one, id_name, text_name)
            yield from checked(f"texts ({id_name!r} and {text_name!r})", one, blocks)

    return TextTable.read(path, stream)


def _texts(path: Path, id_name: str, text_name: str) -> Iterator[tuple[pa.Array, pa.Array]]:
    if ".tsv" in path.suffixes:
        yield from ((one[0], one[1]) for one in separated(path, "\t", 2))
    elif ".parquet" in path.suffixes:
        for batch in columns_of(path, [id_name, text_name]):
            yield batch[0].cast(TEXT), batch[1].cast(TEXT)
    else:
        for rows in lists_of_items(json_lines(path), _ROWS_AT_ONCE):
            ids = pa.array([str(row[id_name]) for row in rows], TEXT)
            yield ids, pa.array([_titled(row, text_name) for row in rows], TEXT)


def _titled(row: dict[str, Any], text_name: str) -> str:
    return f"{row.get('title') or ''} {row[text_name]}".strip()


def colbert_rows(folder: Path, path: Path) -> RowReader:
    """`[qid, pid, pid, ...]` a line; a pid may stand with its score."""

    def read(path: Path, negatives: bool) -> Iterator[RowBlock]:
        for rows in lists_of_items(json_lines(path), _ROWS_AT_ONCE):
            ids = [[str(one[0] if isinstance(one, list) else one) for one in row] for row in rows]
            parts = ([row[1:2] for row in ids], [row[2:] for row in ids])
            yield _of_lists("qid", [row[0] for row in ids], ("positive", "negative"), parts)

    return _joined(folder, path, read, "ColBERT")


def ms_marco_rows(folder: Path, path: Path) -> RowReader:
    """`qid`, `pid` of a positive and `pid` of a negative a line."""

    def read(path: Path, negatives: bool) -> Iterator[RowBlock]:
        for query, positive, negative in separated(path, "\t", 3):
            yield RowBlock(
                RowColumn("qid", None, query),
                (RowColumn("positive", None, positive),),
                (RowColumn("negative", None, negative),),
            )

    return _joined(folder, path, read, "MS MARCO")


def beir_rows(folder: Path, paths: tuple[Path, ...]) -> RowReader:
    """`query-id`, `corpus-id`, `score` a line, below a header line; a grade of 0 is a negative."""

    def read(path: Path, negatives: bool) -> Iterator[RowBlock]:
        for query, passage, grade in separated(path, "\t", 3, header=True):
            relevant = pc.greater(pc.cast(grade, pa.float64()), 0).to_numpy(zero_copy_only=False)
            roles = by_label("corpus-id", None, passage, relevant)
            yield RowBlock(RowColumn("query-id", None, query), roles[:1], roles[1:])

    described = (
        f"read judgements of BEIR ({', '.join(path.name for path in paths)}): anchor 'query-id', "
        "positive 'corpus-id', joined with corpus.jsonl and queries.jsonl"
    )
    queries, corpus = (
        text_table(folder / name, "_id") for name in ("queries.jsonl", "corpus.jsonl")
    )
    return RowReader(paths, _checked("BEIR", read), described, queries, corpus)


def three_table_rows(folder: Path) -> RowReader:
    """Tables `scores`, `queries` and `documents`; the first document of a list is the positive."""

    def read(path: Path, negatives: bool) -> Iterator[RowBlock]:
        for queries, documents in columns_of(path, ["query_id", "document_ids"]):
            lengths, ids = list_texts(documents)
            roles = by_label("document_ids", lengths, ids, first_of(lengths))
            anchors = RowColumn("query_id", None, queries.cast(TEXT))
            yield RowBlock(anchors, roles[:1], roles[1:])

    described = (
        "read tables of ids: anchor 'query_id', positive the first of 'document_ids', negatives "
        "the others, joined with queries/ and documents/"
    )
    queries = text_table(folder / "queries", "query_id")
    documents = text_table(folder / "documents", "document_id")
    paths = tuple(sorted((folder / "scores").glob("*.parquet")))
    return RowReader(paths, _checked("tables of ids", read), described, queries, documents)


def tevatron_rows(folder: Path, paths: tuple[Path, ...]) -> RowReader:
    """Parquet or JSON lines of lists of ids, and `corpus/`."""
    names = ["query_text", "positive_document_ids", "negative_document_ids"]

    def read(path: Path, negatives: bool) -> Iterator[RowBlock]:
        if ".parquet" in path.suffixes:
            for queries, *lists in columns_of(path, names):
                columns = [
                    RowColumn(name, *list_texts(one))
                    for name, one in zip(names[1:], lists, strict=True)
                ]
                anchors = RowColumn(names[0], None, queries.cast(TEXT))
                yield RowBlock(anchors, (columns[0],), (columns[1],))
            return
        for rows in lists_of_items(json_lines(path), _ROWS_AT_ONCE):
            queries, *lists = ([row[name] for row in rows] for name in names)
            yield _of_lists(names[0], queries, names[1:], lists)

    described = (
        "read ids of Tevatron: anchor 'query_text', positives 'positive_document_ids', negatives "
        "'negative_document_ids', joined with corpus/"
    )
    corpus = text_table(folder / "corpus", "docid")
    return RowReader(paths, _checked("Tevatron", read), described, None, corpus)


def nemo_rows(paths: tuple[Path, ...]) -> RowReader:
    """JSON documents with `data` and the folder of one corpus."""
    roles = ("pos_doc", "neg_doc")

    def read(path: Path, negatives: bool) -> Iterator[RowBlock]:
        for rows in lists_of_items(json_items(path), _ROWS_AT_ONCE):
            lists = [[_document_ids(row[role]) for row in rows] for role in roles]
            yield _of_lists("question", [row["question"] for row in rows], roles, lists)

    folders = {_corpus_of(path) for path in paths}
    if len(folders) > 1:
        raise InputError(
            f"expected one corpus for all of {paths[0].parent}, found {len(folders)}; verify one "
            "of the files by its name"
        )
    described = (
        "read ids of NeMo AutoModel: anchor 'question', positives 'pos_doc', negatives 'neg_doc', "
        "joined with the corpus"
    )
    corpus = text_table(folders.pop(), "id")
    return RowReader(paths, _checked("NeMo AutoModel", read), described, None, corpus)


def _checked(layout: str, read: ReadRows) -> ReadRows:
    """Reading that says where a row of another layout stands."""
    return lambda path, negatives: checked(layout, path, read(path, negatives))


def first_of(lengths: NDArray[np.int64]) -> NDArray[np.bool_]:
    """bool, as many as all lists together: whether each item is the first of its list."""
    marked = np.zeros(int(lengths.sum()), bool)
    marked[(np.cumsum(lengths) - lengths)[lengths > 0]] = True
    return marked


def _corpus_of(path: Path) -> Path:
    listed = json_field(path, "corpus")
    folders = [one["path"] for one in (listed if isinstance(listed, list) else [listed])]
    if len(folders) != 1:
        raise InputError(
            f"expected one corpus in {path}, found {len(folders)}; verify the rows of each corpus "
            "as a file of its own"
        )
    return path.parent / str(folders[0])


def _document_ids(documents: list[Any]) -> list[str]:
    return [str(one["id"] if isinstance(one, dict) else one) for one in documents]


def _of_lists(
    anchor: str, anchors: list[str], names: Sequence[str], roles: Sequence[list[list[str]]]
) -> RowBlock:
    positives, negatives = (
        RowColumn.of_lists(name, lists) for name, lists in zip(names, roles, strict=True)
    )
    column = RowColumn(anchor, None, pa.array(anchors, TEXT))
    return RowBlock(column, (positives,), (negatives,))


def _joined(folder: Path, path: Path, read: ReadRows, layout: str) -> RowReader:
    """Rows of ids with `queries.tsv` and `collection.tsv` beside them."""
    tables = [text_table(folder / name, "id") for name in ("queries.tsv", "collection.tsv")]
    described = f"read ids of {layout}, joined with queries.tsv and collection.tsv"
    return RowReader((path,), _checked(layout, read), described, *tables)

"""JSON objects that are a table as a whole: by columns, by ids, or of a tool for fine-tuning."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Literal

from stx_mine.inputs.files import InputFile
from stx_mine.inputs.names import is_known

Row = dict[str, Any]
Values = Callable[[InputFile, json.JSONDecoder], Iterator[Any]]
_Layout = Literal["split", "columns", "texts", "judgements", "finetuning"]
_SAID: dict[_Layout, str] = {
    "split": "its `columns` name the values of each row of its `data`",
    "columns": "read by columns: each key holds the values of all rows",
    "texts": "each key is the id of a text",
    "judgements": "each key is the id of a query, and holds the ids of its passages",
    "finetuning": "the pairs of its `relevant_docs`; other passages of its `corpus` are not read",
}
_NEEDED = {"queries", "corpus", "relevant_docs"}


def table_of(document: Row) -> tuple[Values, str] | None:
    """What reads an object that is a whole file, and what is said of it; None if it is no table.

    `Values` raise ValueError where a row has too many or too few values, or an id names no text.
    """
    layout = _layout(document)
    return layout and (partial(_table_rows, layout), _SAID[layout])


def line_rows(file: InputFile, decoder: json.JSONDecoder) -> Iterator[Any]:
    """The values of a file of one a line."""
    with file.stream() as stream:
        yield from (decoder.decode(line.decode()) for line in stream.read().split(b"\n") if line)


def _table_rows(layout: _Layout, file: InputFile, decoder: json.JSONDecoder) -> Iterator[Row]:
    with file.stream() as stream:
        document = decoder.decode(stream.read().decode())
    if layout == "split":
        yield from named_rows(document["data"], document["columns"])
    elif layout == "columns":
        yield from named_rows(zip(*map(_cells, document.values()), strict=True), list(document))
    elif layout == "texts":
        for name, text in document.items():
            yield {"_id": name, **(text if isinstance(text, dict) else {"text": text})}
    elif layout == "judgements":
        for query, passages in document.items():
            if isinstance(passages, list):
                yield from ({"query_id": query, "corpus_id": one} for one in passages)
                continue
            for passage, grade in passages.items():
                yield {"query_id": query, "corpus_id": passage, "score": grade}
    else:
        yield from _finetuning_rows(document)


def named_rows(rows: Any, names: Sequence[str]) -> Iterator[Row]:
    """Lists of values as objects of these names.

    Raises:
        ValueError: A row has too many or too few values, or a name stands twice.
    """
    if len(set(names)) < len(names):
        raise ValueError(f"a column stands twice ({', '.join(names)})")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, (list, tuple)) or len(row) != len(names):
            raise ValueError(f"row {number:,} has not one value for each of {', '.join(names)}")
        yield dict(zip(names, row, strict=True))


def names_columns(row: Any) -> bool:
    """Whether a list names columns rather than being a row: all of it are names of the field."""
    return (
        isinstance(row, list)
        and 1 < len(row) == len(set(map(str, row)))
        and all(isinstance(name, str) and is_known(name) for name in row)
    )


def is_header_line(line: bytes) -> bool:
    """Whether a line is a list that names columns."""
    try:
        return names_columns(json.loads(line))
    except (ValueError, RecursionError):
        return False


def _layout(document: Row) -> _Layout | None:
    values = list(document.values())
    if _NEEDED <= document.keys() and all(isinstance(document[one], dict) for one in _NEEDED):
        return "finetuning"
    names, rows = document.get("columns"), document.get("data")
    if isinstance(names, list) and isinstance(rows, list) and _are(names, str):
        return "split"
    # Of q1, q2, q3 ... the first two are also names of columns.
    are_ids = len(values) > 2 and len({re.sub(r"\d+", "", name) for name in document}) == 1
    known = [] if are_ids else [name for name in document if is_known(name)]
    if len(known) > 1 and _are_cells(values):
        return "columns"
    if known or len(values) < 2:
        return None
    objects = [one for one in values if isinstance(one, dict)]
    if _are(values, str) or (
        len(objects) == len(values) and all(one and all(map(is_known, one)) for one in objects)
    ):
        return "texts"
    if len(objects) == len(values) and all(_are(one.values(), int, float) for one in objects):
        return "judgements"
    are_lists = all(isinstance(one, list) and _are(one, str, int) for one in values)
    return "judgements" if are_lists else None


def _are(values: Any, *kinds: type) -> bool:
    return all(isinstance(one, kinds) for one in values)


def _are_cells(values: list[Any]) -> bool:
    """Whether the columns of a table are all lists of one length, or all objects of equal keys."""
    if all(isinstance(one, list) for one in values):
        return len({len(one) for one in values}) == 1
    return all(isinstance(one, dict) for one in values) and all(
        list(one) == list(values[0]) for one in values
    )


def _cells(column: Any) -> list[Any]:
    return list(column.values() if isinstance(column, dict) else column)


def _finetuning_rows(document: Row) -> Iterator[Row]:
    """Pairs of the queries, corpus and relevant documents of one object, as llama_index has it."""
    queries, corpus = document["queries"], document["corpus"]
    for name, query in queries.items():
        own = document["relevant_docs"].get(name, [])
        named = list(own) if isinstance(own, (list, dict)) else [own]
        missing = next((one for one in named if str(one) not in corpus), None)
        if missing is not None:
            raise ValueError(f"relevant_docs of {name!r} names {missing!r}, which corpus lacks")
        yield {"id": name, "query": query, "positive": [corpus[str(one)] for one in named]}

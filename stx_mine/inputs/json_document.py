"""One JSON document: an array of rows, or an object whose `data` holds them, as SQuAD's does."""

import json
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

import pyarrow as pa

from stx_mine.errors import InputError, one_line
from stx_mine.inputs.files import InputFile
from stx_mine.inputs.json_kinds import batch_of, kinds_of, schema_of
from stx_mine.inputs.json_lines import JsonLines, as_row, text_decoder, value_decoder
from stx_mine.inputs.json_stream import JsonStream
from stx_mine.inputs.json_tables import (
    Values,
    is_header_line,
    line_rows,
    named_rows,
    names_columns,
    table_of,
)

# An object that is longer is no table as a whole.
_MOST_BYTES = 1 << 29
_HEAD_BYTES, _BLOCK_BYTES, _BLOCK_ROWS = 1 << 22, 1 << 22, 1_024


def open_json(file: InputFile) -> "JsonLines | JsonDocument":
    """A file of JSON, by its content: one document, or a row a line.

    Raises:
        InputError: It is no JSON, or holds no rows.
    """
    with file.stream() as stream:
        head = stream.read(_HEAD_BYTES).lstrip()
    start = head[1:].lstrip()
    if head.startswith(b"[") and start[:1] in (b"{", b"[", b"]"):
        return JsonDocument(file)
    line, _, others = head.partition(b"\n")
    if head.startswith(b"[") and is_header_line(line):
        return JsonDocument(file, line_rows)
    if not head.startswith(b"{"):
        return JsonLines(file)
    if others.strip() and _is_json(line):
        return JsonLines(file)
    is_long = file.path.stat().st_size > _MOST_BYTES
    if is_long and others.strip():
        return JsonDocument(file)
    document, is_one_line = _whole(file)
    if not is_long and (found := table_of(document)):
        return JsonDocument(file, *found)
    # A single line, of one object, holds rows rather than being one.
    holds_rows = is_one_line and isinstance(document.get("data"), list)
    return JsonDocument(file) if others.strip() or holds_rows else JsonLines(file)


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _whole(file: InputFile) -> tuple[dict[str, Any], bool]:
    """The object that a file is, empty where it is none; and whether it stands on one line."""
    with file.stream() as stream:
        text = stream.read().strip()
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}, False
    return (found if isinstance(found, dict) else {}), b"\n" not in text


class JsonDocument:
    """A file that is one JSON document."""

    def __init__(self, file: InputFile, values: Values | None = None, note: str = "") -> None:
        """Read the keys of all rows.

        Args:
            file: The file.
            values: What reads its rows; None for those of an array, or in `data`.
            note: What was guessed of it.

        Raises:
            InputError: It holds no rows, or is no JSON.
        """
        self._file, self._values = file, values or _values
        self.notes = (note,) if note else ()
        self.num_broken = dict[str, int]()
        self._kinds = kinds_of(self._rows(value_decoder()), {})
        if not self._kinds:
            raise InputError(f"expected JSON objects in {file.name}, found no row; check the file")
        self.schema = schema_of(self._kinds)

    def record_batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """Stream some columns; a key that a row lacks is null."""
        broken = dict.fromkeys(columns, 0)
        waiting = self._rows(text_decoder())
        while rows := list(islice(waiting, _BLOCK_ROWS)):
            yield batch_of(rows, columns, self._kinds, broken)
        self.num_broken = broken

    def _rows(self, decoder: json.JSONDecoder) -> Iterator[dict[str, Any]]:
        try:
            values = self._values(self._file, decoder)
            first = list(islice(values, 1))
            if first and names_columns(first[0]):
                yield from named_rows(values, first[0])
                return
            yield from map(as_row, chain(first, values))
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"expected JSON rows in {self._file.name}, found something else "
                f"({one_line(error)}); write one object a line (JSONL), or an array of objects"
            ) from error


def _values(file: InputFile, decoder: json.JSONDecoder) -> Iterator[Any]:
    """The rows of a document, one after the other."""
    stream, names = JsonStream(file.blocks(_BLOCK_BYTES), decoder), list[str]()
    if stream.take("["):
        yield from stream.items()
        stream.end()
        return
    has_rows = False
    for name in stream.fields() if stream.take("{") else ():
        names.append(name)
        if name != "data" or not stream.take("["):
            stream.skip()
            continue
        has_rows = True
        for row in stream.items():
            if isinstance(row, dict) and isinstance(row.get("paragraphs"), list):
                yield from _questions(row["paragraphs"])
            else:
                yield row
    stream.end()
    if not has_rows:
        raise ValueError(f"an object with the keys {', '.join(names[:8])}")


def corpus_names(file: InputFile) -> list[str]:
    """The paths of the corpora that a document lists in its field `corpus`, as NeMo's does."""
    stream = JsonStream(file.blocks(_BLOCK_BYTES), value_decoder())
    try:
        for name in stream.fields() if stream.take("{") else ():
            if name == "corpus":
                value = stream.value()
                listed = value if isinstance(value, list) else [value]
                return [str(one["path"]) for one in listed if isinstance(one, dict)]
            stream.skip()
    except (KeyError, ValueError, RecursionError):
        # Lines of objects: no document.
        return []
    return []


def _questions(paragraphs: list[Any]) -> Iterator[dict[str, Any]]:
    """The questions of an article of SQuAD, each with the paragraph that it was asked about.

    Raises:
        ValueError: It is none of SQuAD.
    """
    for paragraph in paragraphs:
        for question in _objects(paragraph, "qas"):
            answers = [one.get("text") for one in _objects(question, "answers")]
            yield {
                "id": question.get("id"),
                "question": question.get("question"),
                "context": paragraph.get("context"),
                "answers": {"text": answers},
            }


def _objects(holder: Any, name: str) -> list[dict[str, Any]]:
    """The objects in a field of an object of SQuAD; none where it lacks the field."""
    found = holder.get(name, []) if isinstance(holder, dict) else None
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise ValueError(f"a paragraph or question of SQuAD without a list {name!r} of objects")
    return found

"""One JSON document: an array of rows, or an object whose `data` holds them, as SQuAD's does."""

import json
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Any

import pyarrow as pa

from stx_mine.errors import InputError
from stx_mine.inputs.files import InputFile
from stx_mine.inputs.json_kinds import batch_of, kinds_of, schema_of
from stx_mine.inputs.json_lines import JsonLines, as_row, text_decoder, value_decoder
from stx_mine.inputs.json_tables import (
    Values,
    is_header,
    is_header_line,
    line_rows,
    named_rows,
    table_of,
)

_BLOCK_BYTES, _BLOCK_ROWS = 1 << 22, 8_192


def open_json(file: InputFile) -> "JsonLines | JsonDocument":
    """A file of JSON, by its content: one document, or a row a line.

    Raises:
        InputError: It is no JSON, or holds no rows.
    """
    with file.stream() as stream:
        head = stream.read(_BLOCK_BYTES).lstrip()
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
    if found := table_of(file):
        return JsonDocument(file, *found)
    return JsonDocument(file) if others.strip() or _is_document(file) else JsonLines(file)


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _is_document(file: InputFile) -> bool:
    """Whether a single line, of one object, holds rows rather than being one."""
    with file.stream() as stream:
        line = stream.read().strip()
    try:
        return isinstance(json.loads(line).get("data"), list) and b"\n" not in line
    except ValueError:
        return False


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
            if first and is_header(first[0]):
                yield from named_rows(values, first[0])
                return
            yield from map(as_row, chain(first, values))
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"expected JSON rows in {self._file.name}, found something else ({error}); write "
                "one object a line (JSONL), or an array of objects"
            ) from error


def _values(file: InputFile, decoder: json.JSONDecoder) -> Iterator[Any]:
    """The rows of a document; of an array no more than a block is in memory."""
    blocks = file.blocks(_BLOCK_BYTES)
    first = next(blocks, b"")
    if first.lstrip().startswith(b"["):
        yield from _elements(first, blocks, decoder)
        return
    document = decoder.decode((first + b"".join(blocks)).decode())
    rows = document.get("data")
    if not isinstance(rows, list):
        raise ValueError(f"an object with the keys {', '.join(list(document)[:8])}")
    for row in rows:
        if isinstance(row, dict) and isinstance(row.get("paragraphs"), list):
            yield from _questions(row["paragraphs"])
        else:
            yield row


def _elements(first: bytes, blocks: Iterable[bytes], decoder: json.JSONDecoder) -> Iterator[Any]:
    """The elements of an array, one after the other."""
    text, pending = "", first.lstrip()[1:]
    more = iter(blocks)
    place, done = 0, False
    while True:
        stripped = place
        while stripped < len(text) and text[stripped] in " \t\r\n,":
            stripped += 1
        place = stripped
        if place < len(text):
            if text[place] == "]":
                return
            try:
                value, end = decoder.raw_decode(text, place)
                # A number or a word may go on in the next block.
                if end < len(text) or done:
                    yield value
                    place = end
                    continue
            except json.JSONDecodeError:
                if done:
                    raise
        if done:
            raise ValueError("the array has no end")
        block = next(more, None)
        done = block is None and not pending
        pending += block or b""
        whole, pending = _whole_characters(pending, last=block is None)
        text, place = text[place:] + whole, 0


def _whole_characters(block: bytes, last: bool) -> tuple[str, bytes]:
    """The text of a block, and the bytes of a character that it cuts."""
    for cut in range(len(block), max(len(block) - 4, -1), -1):
        try:
            return block[:cut].decode(), b"" if last and cut == len(block) else block[cut:]
        except UnicodeDecodeError:
            if last:
                raise
    raise ValueError("its text is not UTF-8; give --encoding")


def _questions(paragraphs: list[Any]) -> Iterator[dict[str, Any]]:
    """The questions of an article of SQuAD, each with the paragraph that it was asked about."""
    for paragraph in paragraphs:
        for question in paragraph["qas"]:
            yield {
                "id": question.get("id"),
                "question": question.get("question"),
                "context": paragraph.get("context"),
                "answers": {"text": [one.get("text") for one in question.get("answers", [])]},
            }

"""JSON lines: one object a line; columns are the keys of all lines."""

import json
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.json

from stx_mine.errors import InputError, one_line
from stx_mine.inputs.files import InputFile, undecodable
from stx_mine.inputs.json_kinds import JsonKind, batch_of, kinds_of, schema_of

_BLOCK_BYTES = 1 << 24


class JsonLines:
    """A file of JSON lines.

    Lines are objects; or all are lists, whose columns are their places: `0`, `1` ...
    """

    notes: tuple[str, ...] = ()

    def __init__(self, file: InputFile) -> None:
        """Read the keys of all lines.

        Raises:
            InputError: A line is neither an object nor a list.
        """
        stat = file.path.stat()
        self._file = file
        self._kinds = _scan(file, stat.st_size, stat.st_mtime_ns)
        self.schema = schema_of(self._kinds)
        self.num_broken = dict[str, int]()

    def record_batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """Stream some columns; a key that a line lacks is null."""
        wanted = [self._kinds[name] for name in columns]
        schema = None
        if all(kind.strict for kind in wanted):
            fields = [(name, kind.read_type) for name, kind in zip(columns, wanted, strict=True)]
            schema = pa.schema(fields)
        broken = dict.fromkeys(columns, 0)
        for block, first_line in _line_blocks(self._file):
            batch = schema and _arrow_batch(block, schema, "ignore")
            if batch is None:
                rows = [row for _, row in _rows(self._file, block, first_line, as_text=True)]
                batch = batch_of(rows, columns, self._kinds, broken)
            yield batch
        self.num_broken = broken


@lru_cache(maxsize=64)
def _scan(file: InputFile, size: int, changed: int) -> dict[str, JsonKind]:
    """The kinds of all columns; `size` and `changed` tell one state of the file from another."""
    kinds = dict[str, JsonKind]()
    for block, first_line in _line_blocks(file):
        if kinds and all(kind.strict for kind in kinds.values()):
            schema = pa.schema([(name, kind.read_type) for name, kind in kinds.items()])
            batch = _arrow_batch(block, schema, "error")
            if batch is not None:
                kinds = {name: kind.filled(batch.column(name)) for name, kind in kinds.items()}
                continue
        for number, row in _rows(file, block, first_line, as_text=False):
            try:
                kinds = kinds_of([row], kinds)
            except ValueError as error:
                raise _no_row(file, number, error) from error
    if not kinds:
        raise InputError(f"expected JSON objects in {file.name}, found no row; check the file")
    return kinds


def _arrow_batch(block: bytes, schema: pa.Schema, unknown: str) -> pa.RecordBatch | None:
    """A block as Arrow reads it; None where its values are not of the schema."""
    try:
        table = pa.json.read_json(
            pa.BufferReader(block),
            read_options=pa.json.ReadOptions(block_size=max(len(block) + 1, 1 << 10)),
            parse_options=pa.json.ParseOptions(
                explicit_schema=schema, unexpected_field_behavior=unknown
            ),
        )
    except pa.ArrowInvalid:
        return None
    batches: list[pa.RecordBatch] = table.combine_chunks().to_batches()
    return batches[0] if len(batches) == 1 else None


def _line_blocks(file: InputFile) -> Iterator[tuple[bytes, int]]:
    """Blocks of whole lines, and the number of the first line of each, from 1."""
    rest, line = b"", 1
    for block in file.blocks(_BLOCK_BYTES):
        cut = block.rfind(b"\n") + 1
        if not cut:
            rest += block
            continue
        whole, rest = rest + block[:cut], block[cut:]
        if whole.strip():
            yield _checked(file, whole, line), line
        line += whole.count(b"\n")
    if rest.strip():
        yield _checked(file, rest, line), line


def _checked(file: InputFile, block: bytes, first_line: int) -> bytes:
    """The block, which is UTF-8."""
    try:
        block.decode()
    except UnicodeDecodeError as error:
        raise undecodable(file.name, block, first_line, error) from error
    return block


def _rows(
    file: InputFile, block: bytes, first_line: int, as_text: bool
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The numbers and objects of a block; numbers in them as their text if asked for."""
    decode = (text_decoder() if as_text else value_decoder()).decode
    for number, line in enumerate(block.split(b"\n"), first_line):
        if not line.strip():
            continue
        try:
            yield number, as_row(decode(line.decode()))
        except (ValueError, RecursionError) as error:
            raise _no_row(file, number, error) from error


def _no_row(file: InputFile, number: int, error: BaseException) -> InputError:
    return InputError(
        f"line {number:,} of {file.name} is no JSON object ({one_line(error)}); fix that row"
    )


def value_decoder() -> json.JSONDecoder:
    """Decodes JSON, and refuses objects with a key twice; NaN and Infinity are missing."""
    return json.JSONDecoder(object_pairs_hook=_object, parse_constant=_nothing)


def text_decoder() -> json.JSONDecoder:
    """Decodes JSON with numbers as the text that stands in the file."""
    return json.JSONDecoder(
        object_pairs_hook=_object, parse_int=str, parse_float=str, parse_constant=_nothing
    )


def _nothing(_: str) -> None:
    """What stands for NaN and Infinity, which are no text, no label and no score."""


def as_row(value: Any) -> dict[str, Any]:
    """An object as it is, a list by its places from 1.

    Raises:
        ValueError: It is something else.
    """
    if isinstance(value, list):
        return {str(place): part for place, part in enumerate(value, 1)}
    if not isinstance(value, dict):
        raise ValueError(f"it is {type(value).__name__}")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"key {twice!r} stands twice")
    return found

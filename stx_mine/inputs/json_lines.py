"""JSON lines, also compressed: one object per line, columns by the first one."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.json

_FIRST_BYTES, _BLOCK_BYTES = 1 << 22, 1 << 24


class JsonLinesFormat:
    """Reads JSON lines."""

    def column_names(self, path: Path) -> tuple[str, ...]:
        """Names in the first row, in their order."""
        return tuple(_first_row(path))

    def column_kinds(self, path: Path) -> dict[str, str]:
        """Column -> `text`, `texts` (lists of it) or `other`, as the first row shows."""
        return {name: _kind(value) for name, value in _first_row(path).items()}

    def record_batches(self, path: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """Stream some columns; null where a block of lines lacks one that other blocks have."""
        parse = pa.json.ParseOptions(unexpected_field_behavior="infer")
        read = pa.json.ReadOptions(block_size=_BLOCK_BYTES)
        with pa.input_stream(str(path), compression="detect") as stream:
            for batch in pa.json.open_json(stream, read_options=read, parse_options=parse):
                arrays = [
                    batch.column(name)
                    if name in batch.schema.names
                    else pa.nulls(batch.num_rows, pa.large_string())
                    for name in columns
                ]
                yield pa.RecordBatch.from_arrays(arrays, names=columns)


def _first_row(path: Path) -> dict[str, Any]:
    with pa.input_stream(str(path), compression="detect") as stream:
        row = json.loads(stream.read(_FIRST_BYTES).lstrip().split(b"\n", 1)[0])
    if not isinstance(row, dict):
        raise ValueError("a line is no JSON object")
    return row


def _kind(value: Any) -> str:
    if isinstance(value, list):
        return "texts" if all(isinstance(part, str) for part in value) else "other"
    return "text" if value is None or isinstance(value, str) else "other"

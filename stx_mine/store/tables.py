"""Tables on disk for other programs, in a stream: Parquet, JSON, or separated values."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stx_mine.store.files import atomic

_DICTIONARY_BYTES = 1 << 28

# Streams tables into a file, atomically, and counts the lines.
TableWriter = Callable[[Path, Iterable[pa.Table]], int]


def write_parquet(path: Path, tables: Iterable[pa.Table]) -> int:
    """Stream at least one table into a Parquet file, atomically, a row group each.

    Without the Arrow schema, so that readers see plain strings and lists.

    Returns:
        The number of lines.
    """
    lines, writer = 0, None
    with atomic(path) as temporary:
        for table in tables:
            writer = writer or pq.ParquetWriter(
                temporary,
                table.schema,
                compression="zstd",
                dictionary_pagesize_limit=_DICTIONARY_BYTES,
                store_schema=False,
            )
            # `datasets` reads batches as long as the first row group, and fails where it is empty.
            if table.num_rows:
                writer.write_table(table)
            lines += table.num_rows
        assert writer is not None, f"{path} needs a schema"
        writer.close()
    return lines


def write_json_lines(path: Path, tables: Iterable[pa.Table]) -> int:
    """Stream tables into a file of JSON lines, atomically.

    Returns:
        The number of lines.
    """
    lines = 0
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8") as handle:
        for table in tables:
            handle.writelines(_json(row) + "\n" for row in table.to_pylist())
            lines += table.num_rows
    return lines


def json_writer(before: str, after: str) -> TableWriter:
    """A writer of one JSON document: an array of the lines, one a line, between two texts."""

    def write(path: Path, tables: Iterable[pa.Table]) -> int:
        lines = 0
        with atomic(path) as temporary, temporary.open("w", encoding="utf-8") as handle:
            handle.write(before)
            for table in tables:
                for row in table.to_pylist():
                    handle.write((",\n" if lines else "\n") + _json(row))
                    lines += 1
            handle.write("\n" + after)
        return lines

    return write


def tabbed_writer(header: bool = False) -> TableWriter:
    """A writer of tab-separated values, as they are: without quotes.

    Args:
        header: Whether the first line names the columns.
    """

    def write(path: Path, tables: Iterable[pa.Table]) -> int:
        return _write_separated(path, tables, "\t", header)

    return write


def write_spaced(path: Path, tables: Iterable[pa.Table]) -> int:
    """Stream tables into a file of values with a space between them, atomically.

    Returns:
        The number of lines.
    """
    return _write_separated(path, tables, " ", header=False)


def _write_separated(path: Path, tables: Iterable[pa.Table], separator: str, header: bool) -> int:
    lines, between = 0, pa.scalar(separator, pa.large_string())
    with atomic(path) as temporary, temporary.open("wb") as handle:
        for table in tables:
            if header and not lines:
                handle.write(separator.join(table.column_names).encode() + b"\n")
            columns = [_as_text(column) for column in table.columns]
            joined = pc.binary_join_element_wise(*columns, between).cast(pa.large_binary())
            handle.writelines(line + b"\n" for line in joined.to_pylist())
            lines += table.num_rows
    return lines


def _as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return column.cast(pa.large_string())


def _json(row: object) -> str:
    return json.dumps(row, ensure_ascii=False)

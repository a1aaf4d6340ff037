"""Exports on disk: Parquet or JSON lines written in a stream."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stx_mine.store.files import atomic

_DICTIONARY_BYTES = 1 << 28
_TEXTS_AT_ONCE = 8_192


def text_tables(id_name: str, texts: pa.Table) -> Iterator[pa.Table]:
    """Yield the texts of one role with their ids, a block at a time; row number = id."""
    for start in range(0, texts.num_rows, _TEXTS_AT_ONCE):
        block = texts.column("text").slice(start, _TEXTS_AT_ONCE)
        yield pa.table({id_name: np.arange(start, start + len(block)), "text": block})


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
            for row in table.to_pylist():
                handle.write(json.dumps(row, ensure_ascii=False) + "\n")
            lines += table.num_rows
    return lines

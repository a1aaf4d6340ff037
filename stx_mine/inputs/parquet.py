"""Parquet files."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

BATCH_ROWS = 65_536


class ParquetFormat:
    """Reads Parquet."""

    def column_names(self, path: Path) -> tuple[str, ...]:
        """Names of the columns, in their order."""
        return tuple(pa.parquet.read_schema(path).names)

    def column_kinds(self, path: Path) -> dict[str, str]:
        """Column -> `text`, `texts` (lists of it) or `other`, as the schema says."""
        return {field.name: arrow_kind(field.type) for field in pa.parquet.read_schema(path)}

    def record_batches(self, path: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """Stream some columns."""
        yield from pa.parquet.ParquetFile(path).iter_batches(batch_size=BATCH_ROWS, columns=columns)


def arrow_kind(kind: pa.DataType) -> str:
    """What a column of an Arrow type holds: `text`, `texts` or `other`."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return "texts" if arrow_kind(kind.value_type) == "text" else "other"
    if pa.types.is_dictionary(kind):
        return arrow_kind(kind.value_type)
    texts = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)
    return "text" if texts else "other"

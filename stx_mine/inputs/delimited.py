"""CSV and TSV, also compressed: the first line names the columns, and all of them are text."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.csv

_FIRST_BYTES, _BLOCK_BYTES = 1 << 22, 1 << 24


class DelimitedFormat:
    """Reads CSV and TSV."""

    def column_names(self, path: Path) -> tuple[str, ...]:
        """Names in the first line, in their order."""
        with pa.input_stream(str(path), compression="detect") as stream:
            reader = pa.csv.open_csv(
                stream,
                read_options=pa.csv.ReadOptions(block_size=_FIRST_BYTES),
                parse_options=_parse_options(path),
            )
            return tuple(reader.schema.names)

    def column_kinds(self, path: Path) -> dict[str, str]:
        """Column -> `text`."""
        return dict.fromkeys(self.column_names(path), "text")

    def record_batches(self, path: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """Stream some columns."""
        convert = pa.csv.ConvertOptions(
            include_columns=columns, column_types={name: pa.large_string() for name in columns}
        )
        with pa.input_stream(str(path), compression="detect") as stream:
            yield from pa.csv.open_csv(
                stream,
                read_options=pa.csv.ReadOptions(block_size=_BLOCK_BYTES),
                parse_options=_parse_options(path),
                convert_options=convert,
            )


def _parse_options(path: Path) -> pa.csv.ParseOptions:
    if ".tsv" in path.suffixes:
        return pa.csv.ParseOptions(delimiter="\t", quote_char=False)
    return pa.csv.ParseOptions(newlines_in_values=True)

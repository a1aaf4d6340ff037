"""Parquet, Arrow and Feather files."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet

from stx_mine.inputs.blocks import parquet_rows
from stx_mine.inputs.files import InputFile

_BATCH_ROWS = 65_536


class ParquetTable:
    """A Parquet file."""

    def __init__(self, file: InputFile) -> None:
        """Read its schema."""
        self._file = file
        self.notes, self.num_broken = (), dict[str, int]()
        with file.binary() as source:
            self.schema = pa.parquet.read_schema(source)

    def record_batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """Stream some columns."""
        with self._file.binary() as source:
            whole, num_rows = pa.parquet.ParquetFile(source), 0
            at_once = parquet_rows(whole, columns)
            for batch in whole.iter_batches(batch_size=at_once, columns=columns):
                # What is damaged is no UTF-8, or points out of its own memory.
                batch.validate(full=True)
                num_rows += batch.num_rows
                yield batch
            if num_rows != whole.metadata.num_rows:
                raise pa.ArrowInvalid(
                    f"found {num_rows:,} of {whole.metadata.num_rows:,} values of "
                    f"{', '.join(columns)}"
                )


class ArrowTable:
    """An Arrow file or stream, as Feather files are too."""

    def __init__(self, file: InputFile) -> None:
        """Read its schema."""
        self._file = file
        self.notes, self.num_broken = (), dict[str, int]()
        with file.binary() as source:
            self.schema = _reader(source).schema

    def record_batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """Stream some columns."""
        with self._file.binary() as source:
            reader = _reader(source)
            batches = (
                (reader.get_batch(number) for number in range(reader.num_record_batches))
                if isinstance(reader, pa.ipc.RecordBatchFileReader)
                else reader
            )
            for batch in batches:
                batch.validate(full=True)
                for start in range(0, batch.num_rows, _BATCH_ROWS):
                    yield batch.slice(start, _BATCH_ROWS).select(columns)


def _reader(source: pa.NativeFile) -> pa.RecordBatchFileReader | pa.RecordBatchStreamReader:
    try:
        return pa.ipc.open_file(source)
    except pa.ArrowInvalid:
        source.seek(0)
        return pa.ipc.open_stream(source)

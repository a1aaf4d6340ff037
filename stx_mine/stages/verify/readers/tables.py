"""Columns of Parquet files and of lines of separated values, as large strings or lists of them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyarrow import csv

from stx_mine.errors import InputError
from stx_mine.stages.verify.readers.blocks import RowColumn

TEXT = pa.large_string()
_ROWS_AT_ONCE, _BLOCK_BYTES = 8_192, 1 << 22


def columns_of(path: Path, names: list[str]) -> Iterator[list[pa.Array]]:
    """Yield columns of a Parquet file, some rows at a time.

    Raises:
        InputError: It lacks one of them, or is no Parquet file.
    """
    try:
        file = pq.ParquetFile(path)
        missing = [name for name in names if name not in file.schema_arrow.names]
        if missing:
            raise InputError(
                f"expected a column {missing[0]!r} in {path}, found "
                f"{', '.join(file.schema_arrow.names)}; give a file that has it"
            )
        for batch in file.iter_batches(_ROWS_AT_ONCE, columns=names):
            yield [batch.column(name) for name in names]
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"cannot read {path} as Parquet ({error}); write it again") from error


def list_texts(column: pa.Array) -> tuple[NDArray[np.int64], pa.Array]:
    """The length of each list, 0 for null, and all their items as large strings."""
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
        # Of lines of JSON none of which has the field.
        return np.zeros(len(column), np.int64), pa.array([], TEXT)
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    return lengths.astype(np.int64), pc.list_flatten(column).cast(TEXT)


def separated(
    path: Path, separator: str, num_fields: int, header: bool = False
) -> Iterator[list[pa.Array]]:
    """Yield the first fields of lines, without quotes, as large strings, some lines at a time.

    Args:
        path: The file.
        separator: One character between two fields.
        num_fields: Fields of a line, at least; all lines have as many.
        header: Whether the first line names the fields.

    Raises:
        InputError: A line has fewer fields.
    """
    options = {
        "read_options": csv.ReadOptions(
            block_size=_BLOCK_BYTES, skip_rows=int(header), autogenerate_column_names=True
        ),
        "parse_options": csv.ParseOptions(delimiter=separator, quote_char=False),
        "convert_options": csv.ConvertOptions(
            column_types={f"f{number}": TEXT for number in range(num_fields)},
            strings_can_be_null=False,
        ),
    }
    try:
        with pa.input_stream(str(path), compression="detect") as stream:
            for batch in csv.open_csv(stream, **options):
                if batch.num_columns < num_fields:
                    raise InputError(
                        f"expected {num_fields} fields in every line of {path}, found "
                        f"{batch.num_columns}; give the file in its layout"
                    )
                yield batch.columns[:num_fields]
    except pa.ArrowInvalid as error:
        message = " ".join(str(error).split())
        if "Empty CSV file" in message:
            return
        raise InputError(
            f"expected {num_fields} fields in every line of {path}, found others ({message}); fix "
            "that line"
        ) from error


def by_label(
    name: str, lengths: NDArray[np.int64] | None, texts: pa.Array, is_positive: NDArray[np.bool_]
) -> tuple[RowColumn, RowColumn]:
    """Texts of rows as positives and negatives.

    Args:
        name: Name of their column.
        lengths: int64 (R,) texts of each row; None for one a row.
        texts: All texts.
        is_positive: bool, aligned with them.
    """
    count = len(texts) if lengths is None else len(lengths)
    owners = np.arange(count) if lengths is None else np.repeat(np.arange(count), lengths)
    positives, negatives = (
        RowColumn(
            name, np.bincount(owners[chosen], minlength=count), texts.filter(pa.array(chosen))
        )
        for chosen in (is_positive, ~is_positive)
    )
    return positives, negatives

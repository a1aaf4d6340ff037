"""Blocks of rows by their bytes, so that long texts take no more memory than many short ones."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

BLOCK_BYTES = 1 << 26
_BLOCK_ROWS = 65_536
# Rows of columns whose values may be stored once and repeated, so that no size tells their bytes.
_DICTIONARY_ROWS = 8_192
_DICTIONARIES = {"PLAIN_DICTIONARY", "RLE_DICTIONARY"}


def within_bytes(arrays: list[pa.Array], most_bytes: int = BLOCK_BYTES) -> Iterator[list[pa.Array]]:
    """Columns of the same rows, halved until they hold at most so many bytes, or one row.

    Args:
        arrays: At least one; of the same length.
        most_bytes: Of all columns together, dictionaries counted as they are when decoded.
    """
    num_rows = len(arrays[0])
    if num_rows <= 1 or sum(map(_decoded_bytes, arrays)) <= most_bytes:
        yield arrays
        return
    half = num_rows // 2
    yield from within_bytes([one.slice(0, half) for one in arrays], most_bytes)
    yield from within_bytes([one.slice(half) for one in arrays], most_bytes)


def parquet_rows(file: pq.ParquetFile, columns: list[str]) -> int:
    """How many rows of some columns to read at once, from 1 to 65,536, by what a footer says.

    Args:
        file: The file.
        columns: The columns that are read.

    Raises:
        OSError: What the footer says of a column is damaged.
    """
    rows, metadata = _BLOCK_ROWS, file.metadata
    paths = (metadata.schema.column(place).path for place in range(metadata.num_columns))
    places = [place for place, path in enumerate(paths) if path.split(".")[0] in columns]
    for number in range(metadata.num_row_groups):
        # A damaged entry of a column ends the process where it is asked for, but not in a reader.
        next(file.iter_batches(1, row_groups=[number], columns=columns), None)
        group = metadata.row_group(number)
        chunks = [group.column(place) for place in places]
        size = sum(one.total_uncompressed_size for one in chunks)
        rows = min(rows, group.num_rows * BLOCK_BYTES // max(size, 1))
        if any(_DICTIONARIES & set(one.encodings) for one in chunks):
            rows = min(rows, _DICTIONARY_ROWS)
    return max(1, rows)


def _decoded_bytes(array: pa.Array) -> int:
    array = array.cast(_without_views(array.type))
    if not pa.types.is_dictionary(array.type):
        return int(array.nbytes)
    values = array.dictionary
    if pa.types.is_nested(values.type):
        return int(values.nbytes)
    sizes = pc.binary_length(values.cast(pa.large_string()))
    return int(pc.sum(sizes.take(array.indices)).as_py() or 0) + 8 * len(array)


def _without_views(kind: pa.DataType) -> pa.DataType:
    """The type with values of their own: views share bytes, which a slice counts whole.

    pyarrow before 24 does not count them at all.
    """
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        return pa.large_binary()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        inner = _without_views(kind.value_type)
        return kind if inner == kind.value_type else pa.large_list(inner)
    return kind

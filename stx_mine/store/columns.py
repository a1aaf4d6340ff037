"""Arrow columns to numbers: which values are the same, and where they stand."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


def number_values(values: pa.Array | pa.ChunkedArray) -> tuple[NDArray[np.int64], pa.Array]:
    """Number distinct values in the order of their first rows.

    Returns:
        int64 (rows,): numbers, -1 for null; and the value that each number stands for.
    """
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    encoded = values.dictionary_encode()
    return _filled(encoded.indices), encoded.dictionary


def find_rows(wanted: pa.Array, keys: pa.Array) -> NDArray[np.int64]:
    """int64 (wanted,): the row of each value among distinct keys; -1 for none, and for null."""
    return _filled(pc.index_in(wanted, value_set=keys, skip_nulls=True))


def _filled(numbers: pa.Array) -> NDArray[np.int64]:
    found: NDArray[np.int64] = pc.fill_null(numbers, -1).to_numpy(zero_copy_only=False)
    return found.astype(np.int64)

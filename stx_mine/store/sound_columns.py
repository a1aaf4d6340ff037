"""Whether the offsets of a stored column stay within its values: a reader follows them blindly."""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_WIDE = (pa.types.is_large_list, pa.types.is_large_string, pa.types.is_large_binary)
_NARROW = (pa.types.is_list, pa.types.is_string, pa.types.is_binary)


def column_problem(column: pa.ChunkedArray) -> str:
    """What was expected of a column and what was found; empty where nothing is wrong."""
    return next(filter(None, map(_array_problem, column.chunks)), "")


def _array_problem(array: pa.Array) -> str:
    kind = array.type
    is_wide = any(check(kind) for check in _WIDE)
    if not is_wide and not any(check(kind) for check in _NARROW):
        return ""
    buffers, size = array.buffers(), np.int64 if is_wide else np.int32
    if not len(array) or buffers[1] is None:
        return ""
    whole: NDArray[Any] = np.frombuffer(buffers[1], size)
    offsets = whole[array.offset :][: len(array) + 1].astype(np.int64, copy=False)
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if is_list:
        end = len(array.values)
    else:
        end = buffers[2].size if buffers[2] is not None else 0
    if offsets[0] < 0 or offsets[-1] > end or bool((np.diff(offsets) < 0).any()):
        return f"expected rising offsets from 0 to {end:,}, found others"
    return _array_problem(array.values) if is_list else ""

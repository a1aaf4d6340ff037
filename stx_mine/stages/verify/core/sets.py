"""Look numbers up in rising arrays: which are there, where, and how many two arrays share."""

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from stx_mine.core.ragged import Ragged


def find_all(rising: NDArray[np.int64], values: NDArray[np.int64]) -> NDArray[np.int64]:
    """The first place of each value in a rising array; -1 where it is not there.

    Args:
        rising: int64; values may repeat.
        values: int64, any shape.
    """
    if not len(rising):
        return np.full(values.shape, -1, np.int64)
    places = np.searchsorted(rising, values)
    np.minimum(places, len(rising) - 1, out=places)
    places[rising[places] != values] = -1
    return places


def are_in(sets: Ragged, rows: NDArray[np.int64], values: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each value stands in a row of a ragged.

    Args:
        sets: Rows of rising values.
        rows: int64 (V,): the row to look in; -1 for one without values.
        values: int64 (V,).

    Returns:
        bool (V,).
    """
    found: NDArray[np.bool_] = _are_in(sets.offsets, sets.values, rows, values)
    return found


def common_counts(
    one: NDArray[np.int64],
    one_bounds: NDArray[np.int64],
    other: NDArray[np.int64],
    other_bounds: NDArray[np.int64],
) -> NDArray[np.int64]:
    """How many numbers two ranges share, for many pairs of ranges; the shorter one is walked.

    Args:
        one: int64, rising within each range, without repeats.
        one_bounds: int64 (V, 2): where each range begins and ends.
        other: int64, likewise.
        other_bounds: int64 (V, 2).

    Returns:
        int64 (V,).
    """
    found: NDArray[np.int64] = _common_counts(one, one_bounds, other, other_bounds)
    return found


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def first_from(values: Any, first: Any, last: Any, wanted: Any) -> Any:
    """The first place in [first, last) of rising values that is not below `wanted`; else last."""
    while first < last:
        middle = (first + last) // 2
        if values[middle] < wanted:
            first = middle + 1
        else:
            last = middle
    return first


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _are_in(offsets: Any, sets: Any, rows: Any, values: Any) -> Any:
    found = np.zeros(len(values), np.bool_)
    for place in range(len(values)):
        row = rows[place]
        if row >= 0:
            at = first_from(sets, offsets[row], offsets[row + 1], values[place])
            found[place] = at < offsets[row + 1] and sets[at] == values[place]
    return found


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _common_counts(one: Any, one_bounds: Any, other: Any, other_bounds: Any) -> Any:
    counts = np.zeros(len(one_bounds), np.int64)
    for number in range(len(counts)):
        walked, (first, last) = one, one_bounds[number]
        searched, (start, end) = other, other_bounds[number]
        if end - start < last - first:
            walked, searched = searched, walked
            first, last, start, end = start, end, first, last
        for value in walked[first:last]:
            start = first_from(searched, start, end, value)
            if start < end and searched[start] == value:
                counts[number] += 1
    return counts

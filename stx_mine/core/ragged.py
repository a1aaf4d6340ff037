"""Rows of different lengths in flat arrays: the shape that every room shares."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Ragged:
    """Rows of different lengths in one flat array.

    Attributes:
        offsets: int64 (num rows + 1,); row i is values[offsets[i]:offsets[i + 1]].
        values: int64, all rows one after the other.
    """

    offsets: NDArray[np.int64]
    values: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def lengths(self) -> NDArray[np.int64]:
        """int64 (num rows,): length of each row."""
        return np.diff(self.offsets)

    def row(self, number: int) -> NDArray[np.int64]:
        """One row."""
        return self.values[self.offsets[number] : self.offsets[number + 1]]

    def take(
        self, rows: NDArray[np.int64], longest: NDArray[np.int64] | int | None = None
    ) -> tuple["Ragged", NDArray[np.int64]]:
        """Some rows, and where their values stand.

        Args:
            rows: int64 (R,) row numbers, in any order, also repeated.
            longest: How much of the front of each row to take: int64 (R,), or one number for
                all; None takes all of it.

        Returns:
            The R rows, and int64 positions in `values`, to take aligned arrays by.
        """
        lengths = self.lengths()[rows]
        if longest is not None:
            lengths = np.minimum(lengths, longest)
        offsets = offsets_of(lengths)
        places = places_of(self.offsets[rows], offsets)
        return Ragged(offsets, self.values[places]), places

    def padded(self, width: int) -> NDArray[np.int64]:
        """int64 (num rows, width): each row, then -1; no row is longer than `width`."""
        padded = np.full((len(self), width), -1, np.int64)
        padded[np.arange(width)[None] < self.lengths()[:, None]] = self.values
        return padded


def offsets_of(lengths: NDArray[Any] | list[int]) -> NDArray[np.int64]:
    """int64 (num rows + 1,): where rows of these lengths begin, and where the last one ends."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def places_of(starts: NDArray[np.int64] | int, offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Every place of some ranges, one range after the other.

    Args:
        starts: int64 (R,) first place of each range, or one number for all.
        offsets: int64 (R + 1,) where each range begins in the result, from 0, and where the last
            one ends.
    """
    return np.repeat(starts - offsets[:-1], np.diff(offsets)) + np.arange(offsets[-1])


def ragged_sets(rows: NDArray[np.int64], values: NDArray[np.int64], num_rows: int) -> Ragged:
    """Collect the distinct values of each row, rising.

    Args:
        rows: int64 (N,), in [0, num_rows).
        values: int64 (N,).
        num_rows: Number of rows of the result.
    """
    order = np.lexsort((values, rows))
    rows, values = rows[order], values[order]
    new = np.ones(len(rows), bool)
    new[1:] = (rows[1:] != rows[:-1]) | (values[1:] != values[:-1])
    counts = np.bincount(rows[new], minlength=num_rows)
    return Ragged(offsets_of(counts), values[new])


def ragged_union(one: Ragged, other: Ragged) -> Ragged:
    """The distinct values of each row of two raggeds of as many rows, rising."""
    rows = [np.repeat(np.arange(len(ragged)), ragged.lengths()) for ragged in (one, other)]
    values = np.concatenate([one.values, other.values])
    return ragged_sets(np.concatenate(rows), values, len(one))

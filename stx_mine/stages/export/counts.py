"""Counts of `export`: rows in, kept, and dropped for lack of negatives."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stx_mine.store.counts import Counts


@dataclass(frozen=True)
class ExportCounts(Counts):
    """Counts of one layout of `exports/`.

    Attributes:
        rows_in: Rows of `negatives/`.
        rows_kept: Rows with enough negatives for the layout.
        rows_dropped: `no_negative`, `fewer_than_k` -> rows that the layout cannot hold.
        rows_ragged: Kept rows with fewer than k negatives.
        rows_by_negatives: k + 1 numbers: rows with 0, 1, ... k negatives; empty where the layout
            holds no rows.
        lines: Lines written.
        texts_joined: Texts whose tabs and line breaks became spaces.
    """

    rows_in: int
    rows_kept: int
    rows_dropped: dict[str, int]
    rows_ragged: int
    rows_by_negatives: list[int]
    lines: int
    texts_joined: int = 0

    def __post_init__(self) -> None:
        """Check that every row is kept or dropped for one reason."""
        assert self.rows_in == self.rows_kept + sum(self.rows_dropped.values()), self

    @classmethod
    def of(
        cls, rows_by_negatives: NDArray[np.int64], needs: int, lines: int, texts_joined: int
    ) -> "ExportCounts":
        """The counts of rows.

        Args:
            rows_by_negatives: int64 (k + 1,) rows by their number of negatives.
            needs: Fewest negatives of a row that is kept.
            lines: Lines written.
            texts_joined: Texts whose tabs and line breaks became spaces.
        """
        dropped = rows_by_negatives[:needs]
        return cls(
            rows_in=int(rows_by_negatives.sum()),
            rows_kept=int(rows_by_negatives[needs:].sum()),
            rows_dropped={
                "no_negative": int(dropped[:1].sum()),
                "fewer_than_k": int(dropped[1:].sum()),
            },
            rows_ragged=int(rows_by_negatives[needs:-1].sum()),
            rows_by_negatives=rows_by_negatives.tolist(),
            lines=lines,
            texts_joined=texts_joined,
        )

    @classmethod
    def without_rows(cls, rows: int, lines: int) -> "ExportCounts":
        """The counts of a layout that holds no rows, and so drops none."""
        return cls(rows, rows, {"no_negative": 0, "fewer_than_k": 0}, 0, [], lines)

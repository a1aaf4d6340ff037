"""What the tests of the pure cores share: rows as lists of numbers, violations as tuples."""

from collections.abc import Sequence

import numpy as np

from stx_mine.core.ragged import Ragged, offsets_of
from stx_mine.stages.verify.core.batches import Broken, in_order
from stx_mine.stages.verify.core.rows import TextRows


def ragged(rows: Sequence[Sequence[int]]) -> Ragged:
    """Lists of numbers as one flat array with offsets."""
    flat = [value for row in rows for value in row]
    return Ragged(offsets_of([len(row) for row in rows]), np.array(flat, np.int64))


def text_rows(rows: Sequence[tuple[int, Sequence[int], Sequence[int]]]) -> TextRows:
    """(anchor, positives, negatives) of each row, as numbers of texts."""
    anchors = np.array([anchor for anchor, _, _ in rows], np.int64)
    return TextRows(anchors, *(ragged([row[role] for row in rows]) for role in (1, 2)))


def named(found: Sequence[Broken], size: int) -> list[tuple[int, str, tuple[int, ...]]]:
    """(row, what, ids) of violations, in the order in which they are told."""
    return [(one.row, one.what, one.ids) for one in in_order(found, size)]

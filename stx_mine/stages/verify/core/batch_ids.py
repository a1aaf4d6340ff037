"""The ids of packed batches of pairs.

Shape letters: N rows of some whole batches, B rows of a batch, M negatives of all rows, A anchors
that have known positives.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from stx_mine.core.groups import Groups
from stx_mine.core.ragged import Ragged


@dataclass(frozen=True)
class BatchIds:
    """The ids of some whole batches, of texts but for those that are known and near.

    Attributes:
        batch_size: B.
        anchors: int64 (N,).
        positives: int64 (N,).
        negatives: (N,) ragged.
        ignored: (N,) ragged.
        known: (A,) ragged: groups of all known positives of an anchor, rising.
        near: (A,) ragged: groups of its near positives, rising.
        asked_N: int64 (N,): the row of each row's anchor in `known` and `near`; -1 for none.
        groups: The group of each text.
    """

    batch_size: int
    anchors: NDArray[np.int64]
    positives: NDArray[np.int64]
    negatives: Ragged
    ignored: Ragged
    known: Ragged
    near: Ragged
    asked_N: NDArray[np.int64]
    groups: Groups

    @cached_property
    def numbers(self) -> NDArray[np.int64]:
        """int64 (N,): the batch of each row."""
        return np.arange(len(self.anchors)) // self.batch_size

    @cached_property
    def negative_rows(self) -> NDArray[np.int64]:
        """int64 (M,): the row of each negative."""
        return np.repeat(np.arange(len(self.anchors)), self.negatives.lengths())

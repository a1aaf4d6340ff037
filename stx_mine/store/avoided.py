"""What lies beside packed batches: groups of texts, and which groups each anchor avoids."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stx_mine.core.groups import Groups
from stx_mine.core.ragged import Ragged, ragged_sets
from stx_mine.errors import InputError
from stx_mine.store.batches import GROUPS, POSITIVES, ragged_column


@dataclass(frozen=True)
class AvoidedGroups:
    """Groups by anchor: of its known positives, and of its near ones.

    Attributes:
        anchors: int64 (A,), rising.
        known: (A,) ragged, rising.
        near: (A,) ragged, rising.
    """

    anchors: NDArray[np.int64]
    known: Ragged
    near: Ragged

    @classmethod
    def open(cls, folder: Path) -> "AvoidedGroups":
        """Read the known and the near positives beside batches.

        Raises:
            InputError: Their table is missing.
        """
        path = folder / POSITIVES
        if not path.exists():
            raise InputError(f"expected {POSITIVES} in {folder}, found none; pack again")
        table = pq.read_table(path)
        anchors = table.column("anchor_id").to_numpy()
        order = np.argsort(anchors, kind="stable")
        known, near = (
            _rising(ragged_column(table, name)).take(order)[0]
            for name in ("positive_ids", "near_ids")
        )
        return cls(anchors[order], known, near)


def _rising(ragged: Ragged) -> Ragged:
    """The same rows, each rising, as `pack` writes them."""
    falls = np.flatnonzero(np.diff(ragged.values) <= 0) + 1
    if np.isin(falls, ragged.offsets).all():
        return ragged
    rows = np.repeat(np.arange(len(ragged)), ragged.lengths())
    return ragged_sets(rows, ragged.values, len(ragged))


def read_text_groups(folder: Path) -> Groups:
    """The group of every text of batches.

    Raises:
        InputError: Their table is missing.
    """
    path = folder / GROUPS
    if not path.exists():
        raise InputError(f"expected {GROUPS} in {folder}, found none; pack again")
    table = pq.read_table(path)
    return Groups(table.column("text_id").to_numpy(), table.column("group").to_numpy())

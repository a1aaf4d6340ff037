"""Pools and verdicts of any units of `negatives/`, wherever they lie."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stx_mine.artifacts.artifact import Manifest
from stx_mine.artifacts.batches import ragged_column
from stx_mine.artifacts.files import read_table
from stx_mine.artifacts.pools import pool_files
from stx_mine.ragged import Ragged, offsets_of


@dataclass(frozen=True)
class Judged:
    """Pools and judged hits of U units.

    Attributes:
        positive_scores: float32 (U,) the positive score that margins count from.
        pools: (U,) passage ids, in the order of the pool.
        hits: (U,) passage ids of all hits, best first.
        hit_scores: float32 (H,), aligned with `hits.values`.
        verdicts: uint8 (H,), aligned with `hits.values`.
    """

    positive_scores: NDArray[np.float32]
    pools: Ragged
    hits: Ragged
    hit_scores: NDArray[np.float32]
    verdicts: NDArray[np.uint8]


@dataclass(frozen=True)
class JudgedUnits:
    """Reader of the units of a finished `negatives/`, in any order; files are mapped when read.

    Attributes:
        manifest: Of `negatives/`.
    """

    manifest: Manifest

    @cached_property
    def _files(self) -> list[str]:
        return pool_files(self.manifest)

    @cached_property
    def _places(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """All unit ids, rising, with the file and the row of each."""
        ids_of = []
        for name in self._files:
            table = read_table(self.manifest.folder / name)
            # Copied, so that no file stays mapped.
            ids_of.append(table.column("unit_id").to_numpy().copy())
        sizes = [len(one) for one in ids_of]
        ids = np.concatenate([np.empty(0, np.int64), *ids_of])
        files = np.repeat(np.arange(len(sizes)), sizes)
        rows = np.arange(len(ids)) - offsets_of(sizes)[files]
        order = np.argsort(ids, kind="stable")
        return ids[order], files[order], rows[order]

    def pools(self, unit_ids: NDArray[np.int64]) -> Ragged:
        """The pools of units, as `take` gives them, without reading their hits."""
        return ragged_column(self._table(unit_ids, ["passage_ids"]), "passage_ids")

    def take(self, unit_ids: NDArray[np.int64]) -> Judged:
        """The units of these ids, in their order, also repeated.

        Args:
            unit_ids: int64 (U,), at least one: query ids, or numbers of pairs where each has a
                pool of its own. All of them are there, as those of kept rows are.
        """
        names = ["positive_score", "passage_ids", "hit_ids", "hit_scores", "verdicts"]
        table = self._table(unit_ids, names)
        return Judged(
            table.column("positive_score").to_numpy(),
            ragged_column(table, "passage_ids"),
            ragged_column(table, "hit_ids"),
            table.column("hit_scores").combine_chunks().flatten().to_numpy(),
            table.column("verdicts").combine_chunks().flatten().to_numpy(),
        )

    def _table(self, unit_ids: NDArray[np.int64], names: list[str]) -> pa.Table:
        known, files, rows = self._places
        distinct, back = np.unique(unit_ids, return_inverse=True)
        places = np.searchsorted(known, distinct)
        assert (known[places] == distinct).all(), "a kept row has a unit"
        files, rows = files[places], rows[places]
        parts = []
        for file in np.unique(files):
            table = read_table(self.manifest.folder / self._files[file]).select(names)
            parts.append(table.take(pa.array(rows[files == file])))
        # The parts are in the order of their files.
        place_of = np.argsort(np.argsort(files, kind="stable"))
        return pa.concat_tables(parts).take(pa.array(place_of[back]))

"""Hits and negatives on disk: Arrow files of list columns, a file per block of queries."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stx_mine.artifacts.artifact import Manifest
from stx_mine.artifacts.files import read_table
from stx_mine.ragged import Ragged


def block_names(stem: str, num_blocks: int) -> list[str]:
    """File names of `num_blocks` blocks, in order."""
    return [f"{stem}-{i:05d}-of-{num_blocks:05d}.arrow" for i in range(num_blocks)]


@dataclass(frozen=True)
class HitBlock:
    """The hits of a block of consecutive queries.

    Attributes:
        first_query: The first query_id of the block.
        hits: (queries of the block,) passage ids, best first.
        scores: float32, aligned with `hits.values`.
    """

    first_query: int
    hits: Ragged
    scores: NDArray[np.float32]

    def table(self) -> pa.Table:
        """The block as an Arrow table `query_id`, `passage_ids`, `scores`."""
        offsets = pa.array(self.hits.offsets, pa.int64())
        ids = pa.LargeListArray.from_arrays(offsets, pa.array(self.hits.values, pa.int32()))
        scores = pa.LargeListArray.from_arrays(offsets, pa.array(self.scores, pa.float32()))
        query_ids = np.arange(self.first_query, self.first_query + len(self.hits))
        return pa.table({"query_id": query_ids, "passage_ids": ids, "scores": scores})

    @classmethod
    def read(cls, manifest: Manifest, name: str) -> "HitBlock":
        """Map one file of a finished `hits/`."""
        table = read_table(manifest.folder / name).combine_chunks()
        ids, scores = table.column("passage_ids"), table.column("scores")
        if not table.num_rows:
            return cls(
                0, Ragged(np.zeros(1, np.int64), np.empty(0, np.int64)), np.empty(0, np.float32)
            )
        ids, scores = ids.chunk(0), scores.chunk(0)
        hits = Ragged(ids.offsets.to_numpy(), ids.values.to_numpy().astype(np.int64))
        return cls(table.column("query_id")[0].as_py(), hits, scores.values.to_numpy())


@dataclass(frozen=True)
class Pools:
    """The ordered pool of every pair.

    Attributes:
        ids_NS: int32 (N pairs, slots) passage ids; -1 pads.
    """

    ids_NS: NDArray[np.int32]

    @classmethod
    def open(cls, manifest: Manifest, pair_query_ids: NDArray[np.int64]) -> "Pools":
        """Read the pools of a finished `negatives/`, a row a pair."""
        tables = [read_table(manifest.folder / one["file"]) for one in manifest.content["files"]]
        table = pa.concat_tables(tables)
        slots = int(manifest.extra["slots"])
        lists = table.column("passage_ids").combine_chunks()
        units_US = np.full((table.num_rows, slots), -1, np.int32)
        lengths = np.diff(lists.offsets.to_numpy())
        within = np.arange(slots)[None] < lengths[:, None]
        units_US[within] = lists.flatten().to_numpy()
        unit_ids = table.column("unit_id").to_numpy()
        row_of_unit = np.empty(int(unit_ids.max(initial=-1)) + 1, np.int64)
        row_of_unit[unit_ids] = np.arange(len(unit_ids))
        units = np.arange(len(pair_query_ids)) if manifest.extra["per_pair"] else pair_query_ids
        return cls(units_US[row_of_unit[units]])

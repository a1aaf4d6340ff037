"""The pools of `negatives/`, without the hits that they were chosen from."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stx_mine.core.ragged import Ragged
from stx_mine.store.artifact import Manifest
from stx_mine.store.batches import ragged_column
from stx_mine.store.negatives import pool_files, rows_of


@dataclass(frozen=True)
class PoolBlock:
    """The pools of a block of queries.

    Attributes:
        unit_ids: int64 (U,) query_id, or number of the pair where every pair has its own pool;
            rising.
        query_ids: int64 (U,).
        pools: (U,) passage ids, in the order of the pool.
        scores: float32, aligned with `pools.values`.
        ranks: int32 among the candidates, aligned with `pools.values`.
    """

    unit_ids: NDArray[np.int64]
    query_ids: NDArray[np.int64]
    pools: Ragged
    scores: NDArray[np.float32]
    ranks: NDArray[np.int32]

    @classmethod
    def read(cls, negatives: Manifest, name: str) -> "PoolBlock":
        """Read one file of a finished `negatives/`; verdicts stay on disk."""
        table = negatives.table(name)
        return cls(
            table.column("unit_id").to_numpy(),
            table.column("query_id").to_numpy(),
            ragged_column(table, "passage_ids"),
            table.column("scores").combine_chunks().flatten().to_numpy(),
            table.column("ranks").combine_chunks().flatten().to_numpy(),
        )


@dataclass(frozen=True)
class Pools:
    """The ordered pool of every pair.

    Attributes:
        ids_NS: int32 (N pairs, slots) passage ids; -1 pads.
        rows: int64 numbers of the pairs that are rows to train on, rising.
        scores: The same passage ids, and float32 scores aligned with them, where asked for.
    """

    ids_NS: NDArray[np.int32]
    rows: NDArray[np.int64]
    scores: tuple[NDArray[np.int32], NDArray[np.float32]] | None = None

    @classmethod
    def open(
        cls,
        manifest: Manifest,
        pair_query_ids: NDArray[np.int64],
        scores: bool = False,
        num_passages: int = 1 << 31,
    ) -> "Pools":
        """Read all pools of a finished `negatives/`, with their scores where asked for.

        Raises:
            DamagedError: A file is damaged, or names pairs or passages that are not there.
        """
        units = np.arange(len(pair_query_ids)) if manifest.extra["per_pair"] else pair_query_ids
        shape = (int(units.max(initial=-1)) + 1, int(manifest.extra["slots"]))
        # A unit all of whose pairs were dropped has no pool.
        ids_US = np.full(shape, -1, np.int32)
        scores_US = np.zeros(shape if scores else (0, 0), np.float32)
        for name in pool_files(manifest):
            block = PoolBlock.read(manifest, name)
            manifest.refuse_beyond(name, block.unit_ids, shape[0])
            manifest.refuse_beyond(name, block.pools.values, num_passages)
            padded = block.pools.padded(shape[1])
            ids_US[block.unit_ids] = padded
            if scores:
                part = np.zeros(padded.shape, np.float32)
                part[padded >= 0] = block.scores
                scores_US[block.unit_ids] = part
        ids_NS = ids_US[units]
        known = (ids_NS, scores_US[units]) if scores else None
        return cls(ids_NS, rows_of(manifest, len(units)), known)

    def known_scores(
        self, rows: NDArray[np.int64], ids_NK: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Scores of passages that are in the pools of their rows.

        Args:
            rows: int64 (N,) numbers of pairs.
            ids_NK: int64 (N, K) passage ids of each.

        Returns:
            float32 (N, K); NaN for what is in no pool of its row, such as a random negative.
        """
        assert self.scores is not None, "open the pools with their scores"
        pool_NS, scores_NS = (part[rows] for part in self.scores)
        same_NKS = ids_NK[:, :, None] == pool_NS[:, None, :]
        places_NK = same_NKS.argmax(2)
        found = np.take_along_axis(scores_NS, places_NK, 1)
        missing = ~same_NKS.any(2) | (ids_NK < 0)
        return np.where(missing, np.float32(np.nan), found)

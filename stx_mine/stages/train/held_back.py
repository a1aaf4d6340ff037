"""Batches that are held back from training: none of their rows is trained on, in any packing."""

from dataclasses import dataclass, field, fields, replace
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stx_mine.core.ragged import Ragged, offsets_of
from stx_mine.errors import ConfigError
from stx_mine.stages.train.packed_sampler import PackedBatchSampler
from stx_mine.store.batches import BatchShard, list_column, ragged_column, slot_text_ids

_NO_ROWS = np.empty(0, np.int64)


@dataclass(frozen=True, eq=False)
class ReducedShard(BatchShard):
    """A shard whose batches lack some rows.

    Attributes:
        held_back: int64 row_ids that are left out, sorted.
        num_ranks: The number of rows left in a batch is a multiple of it.
    """

    held_back: NDArray[np.int64] = field(default_factory=lambda: _NO_ROWS)
    num_ranks: int = 1

    @classmethod
    def of(cls, shard: BatchShard, held_back: NDArray[np.int64], num_ranks: int) -> "ReducedShard":
        """The shard without some rows."""
        values: dict[str, Any] = {
            declared.name: getattr(shard, declared.name) for declared in fields(BatchShard)
        }
        return cls(**values, held_back=held_back, num_ranks=num_ranks)

    def batch(self, number: int) -> pa.Table:
        """A batch without the rows that are held back, and without their texts."""
        table = super().batch(number)
        rows = self._kept(table.column("row_id").to_numpy())
        return some_rows(table, rows, self.num_negatives)

    def rows_of_batches(self) -> NDArray[np.int64]:
        """int64 (batches,): rows that are left in each."""
        ids = super().ids().column("row_id").to_numpy()
        batches = ids[: self.num_batches * self.batch_size].reshape(-1, self.batch_size)
        return np.array([len(self._kept(batch)) for batch in batches], np.int64)

    def _kept(self, row_ids_B: NDArray[np.int64]) -> NDArray[np.int64]:
        rows = np.flatnonzero(~np.isin(row_ids_B, self.held_back))
        return rows[: len(rows) // self.num_ranks * self.num_ranks]


@dataclass(frozen=True)
class HeldBack:
    """What is held back, and what is left.

    Attributes:
        packings: The shards to train on.
        batches: (shard, number within it) of each batch that is held back.
    """

    packings: list[list[BatchShard]]
    batches: list[tuple[BatchShard, int]]

    @property
    def num_rows(self) -> int:
        """Rows that are held back."""
        return sum(shard.batch_size for shard, _ in self.batches)

    def rows_of_steps(self, num_steps: int, num_passes: int, seed: int) -> int:
        """Rows that the first steps of a run see, with the order of its `PackedBatchSampler`."""
        sizes = np.concatenate(
            [
                shard.rows_of_batches()
                if isinstance(shard, ReducedShard)
                else np.full(shard.num_batches, shard.batch_size)
                for packing in self.packings
                for shard in packing
            ]
        )
        batches = PackedBatchSampler(
            range(len(sizes)),
            1,
            seed=seed,
            num_packings=len(self.packings),
            num_passes=num_passes,
        )
        return sum(int(sizes[one[0]]) for one in islice(batches, num_steps))


def hold_back(packings: list[list[BatchShard]], share: float, num_ranks: int = 1) -> HeldBack:
    """Hold back the last batches of the first packing.

    The other packings lose as many batches, since all have the same number, and each of their
    batches loses the rows that are held back.

    Args:
        packings: Shards of each packing.
        share: Share of the batches, rounded up; 0: none.
        num_ranks: Processes that share a batch: rows that are left are a multiple of it.

    Raises:
        ConfigError: Nothing would be left, or the batches cannot lose rows.
    """
    if not share:
        return HeldBack(packings, [])
    numbered = [(shard, one) for shard in packings[0] for one in range(shard.num_batches)]
    wanted = int(np.ceil(share * len(numbered) - 1e-9))
    if wanted >= len(numbered):
        raise ConfigError(
            f"--validation-share {share:g} would hold back all {len(numbered)} batches of a "
            "packing; run `stx-mine pack` with a smaller --batch-size, or leave it out"
        )
    held = numbered[-wanted:]
    left = [_first_batches(packing, len(numbered) - wanted) for packing in packings]
    if len(packings) == 1:
        return HeldBack(left, held)
    if any(shard.texts_per_label is not None for shard in packings[0]):
        raise ConfigError(
            f"--validation-share {share:g} cannot hold back rows of (text, label) batches in "
            f"{len(packings)} packings; run `stx-mine pack --packings 1`, or leave it out"
        )
    ids = np.sort(np.concatenate([_row_ids(shard, number) for shard, number in held]))
    later = [[ReducedShard.of(one, ids, num_ranks) for one in packing] for packing in left[1:]]
    if not all(shard.rows_of_batches().all() for packing in later for shard in packing):
        raise ConfigError(
            f"--validation-share {share:g} would leave batches without any row; run `stx-mine "
            "pack` with a larger --batch-size, or give a smaller share"
        )
    return HeldBack([left[0], *(list[BatchShard](packing) for packing in later)], held)


def some_rows(table: pa.Table, rows: NDArray[np.int64], num_negatives: int) -> pa.Table:
    """Some rows of a batch as a batch of their own: what they ignore is among their texts."""
    table = table.take(pa.array(rows))
    slots = slot_text_ids(table, num_negatives)
    ignored = ragged_column(table, "ignore_ids")
    owners = np.repeat(np.arange(len(ignored)), ignored.lengths())
    there = np.isin(ignored.values, slots)
    lengths = np.bincount(owners[there], minlength=len(ignored))
    left = list_column(Ragged(offsets_of(lengths), ignored.values[there]))
    return table.set_column(table.schema.get_field_index("ignore_ids"), "ignore_ids", left)


def _first_batches(packing: list[BatchShard], num_batches: int) -> list[BatchShard]:
    left, shards = num_batches, []
    for shard in packing:
        if left > 0:
            shards.append(replace(shard, num_batches=min(shard.num_batches, left)))
        left -= shard.num_batches
    return shards


def _row_ids(shard: BatchShard, number: int) -> NDArray[np.int64]:
    ids: NDArray[np.int64] = shard.ids().column("row_id").to_numpy()
    return ids[number * shard.batch_size :][: shard.batch_size]

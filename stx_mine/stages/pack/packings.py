"""Packings: how many to make, assigning them in turn, and which shards they are cut into."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.core.assign import Assignment
from stx_mine.stages.pack.shard_files import shard_path

# Below MIN_EPOCH_STEPS a person is warned. Packings are made until there are MIN_STEPS steps in
# all: of one batch of 32,768 rows, 12 steps gave a better model than 20 (docs/design.md).
MIN_PACKINGS, MIN_STEPS, MIN_EPOCH_STEPS = 2, 12, 20
# Earlier packings -> the next one.
AssignPacking = Callable[[Sequence[Assignment]], Assignment]


def assign_packings(assign: AssignPacking, wanted: int | None) -> list[Assignment]:
    """Assign every packing; rows left out of one come first in the next.

    Args:
        assign: Assigns one packing.
        wanted: How many; None: 2, or as many as make 12 steps.

    Returns:
        Packings that all have the same number of batches; one without batches where the first
        has none.
    """
    packings = [assign([])]
    reached = len(packings[0].rows_PB)
    if reached == 0:
        return packings
    for _ in range(1, wanted or default_packings(reached)):
        packings.append(assign(packings))
    smallest = min(len(one.rows_PB) for one in packings)
    return [packing.truncated(smallest) for packing in packings]


def default_packings(num_batches: int) -> int:
    """How many packings are made of so many batches each where nobody says: 2, or for 12 steps."""
    return max(MIN_PACKINGS, -(-MIN_STEPS // num_batches))


def left_out_last(earlier: Sequence[Assignment]) -> NDArray[np.int64]:
    """Rows that the last packing left out; none before the first."""
    return earlier[-1].left_out if earlier else np.empty(0, np.int64)


def batches_of_shards(
    config: PackConfig, packings: list[Assignment]
) -> dict[str, tuple[int, NDArray[np.int64], int]]:
    """Cut packings into shards of whole batches.

    Returns:
        Path of each shard -> number of its packing, int64 (batches, B) its rows, number of its
        first batch.
    """
    num_batches = len(packings[0].rows_PB)
    per_shard = max(1, config.shard_rows // config.batch_size)
    num_shards = -(-num_batches // per_shard)
    return {
        shard_path(number, shard, num_shards): (number, packing.rows_PB[first:][:per_shard], first)
        for number, packing in enumerate(packings)
        for shard, first in enumerate(range(0, num_batches, per_shard))
    }

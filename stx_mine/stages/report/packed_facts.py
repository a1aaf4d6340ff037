"""What a page tells of the batches: distinct texts against places, masks, random negatives."""

from dataclasses import dataclass

import numpy as np

from stx_mine.stages.pack.hardness import BatchHardness
from stx_mine.stages.show.batch_views import make_up
from stx_mine.store.artifact import Manifest
from stx_mine.store.batches import list_packings

# Rows of the batches that are looked at.
MOST_ROWS = 200_000


@dataclass(frozen=True)
class Spread:
    """A number of each batch.

    Attributes:
        least: The smallest.
        mean: The mean.
        most: The largest.
    """

    least: int
    mean: float
    most: int


@dataclass(frozen=True)
class PackedFacts:
    """The make-up of batches.

    Attributes:
        looked_at: Batches that were looked at.
        of_batches: Batches of all packings.
        packings: Packings.
        batch_size: Rows of a batch.
        policy: merge or strict.
        reached: Batches of a packing.
        bound: How many there are at most.
        cause: What bounds them.
        left_out: Rows left out of each packing.
        spreads: `places`, `distinct texts`, `random negatives`, `masked texts` of a batch.
        distinct_share: Distinct texts of all places, in [0, 1].
        hardness: Of a random batch; None where it was not measured.
    """

    looked_at: int
    of_batches: int
    packings: int
    batch_size: int
    policy: str
    reached: int
    bound: int
    cause: str
    left_out: int
    spreads: dict[str, Spread]
    distinct_share: float
    hardness: BatchHardness | None


def batch_facts(batches: Manifest, seed: int) -> PackedFacts:
    """The make-up of batches that are drawn of all packings.

    Args:
        batches: Of rows of pairs.
        seed: Which batches are drawn.
    """
    packings, counts = list_packings(batches.folder), batches.counts
    places = [
        (shard, number)
        for shards in packings
        for shard in shards
        for number in range(shard.num_batches)
    ]
    size = packings[0][0].batch_size
    most = max(1, min(len(places), MOST_ROWS // size))
    drawn = np.sort(np.random.default_rng(seed).choice(len(places), most, replace=False))
    chosen = [places[one] for one in drawn.tolist()]
    made = [make_up(shard.batch_ids(number), shard.num_negatives) for shard, number in chosen]
    names = ("places", "distinct texts", "random negatives", "masked texts")
    columns = dict(zip(names, zip(*made, strict=True), strict=True))
    return PackedFacts(
        len(made),
        len(places),
        len(packings),
        size,
        packings[0][0].policy,
        counts["batches"],
        counts["batches_bound"],
        counts["batches_bound_cause"],
        counts["rows_left_out"],
        {name: Spread(min(one), float(np.mean(one)), max(one)) for name, one in columns.items()},
        sum(columns["distinct texts"]) / max(1, sum(columns["places"])),
        BatchHardness.read(batches),
    )

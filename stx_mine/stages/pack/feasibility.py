"""Sizes of batches that cannot be packed, refused before work starts."""

import numpy as np

from stx_mine.errors import ConfigError
from stx_mine.stages.pack.builder import Packer
from stx_mine.stages.pack.packings import MIN_EPOCH_STEPS
from stx_mine.stages.pack.teacher import band_of_pools
from stx_mine.store.artifact import Manifest

# Known positives to ignore in a batch: 8 bytes each, and a shard holds 65,536 rows of batches.
MAX_MASKS = 1 << 25
_ROWS = 65_536


def refuse_sizes(packer: Packer) -> None:
    """Refuse what no batch can be made of, before work starts.

    Raises:
        ConfigError: The batch is larger than the rows or than the clean texts there are, or lists
            too many positives to ignore.
    """
    config, k, store = packer.config, packer.k, packer.store
    size, rows = config.batch_size, len(packer.pools.rows)
    if size > rows:
        raise ConfigError(
            f"--batch-size {size:,} is larger than the {rows:,} rows there are; add pairs, or give "
            f"--batch-size {max(2, rows // MIN_EPOCH_STEPS):,} for {MIN_EPOCH_STEPS} steps an epoch"
        )
    if packer.composition.num_batches(packer.pools.rows) == 0:
        taken = dict(zip(*packer.rows_taken(), strict=True))
        most = max(taken.values()) if packer.composition.one_source else sum(taken.values())
        named = ", ".join(f"{name} {number:,}" for name, number in taken.items())
        raise ConfigError(
            f"no batch of {size:,} rows can be filled: a packing takes {named} rows of the sources"
            f"{' and a batch has one source' if packer.composition.one_source else ''}; give "
            f"--batch-size {max(2, most):,} or less, other weights, or a higher "
            "--source-temperature"
        )
    if config.policy == "strict" and size * (1 + k) > store.num_passages:
        fits = max(2, store.num_passages // (1 + k))
        raise ConfigError(
            f"a strict batch of {size:,} rows with {k} negatives needs {size * (1 + k):,} distinct "
            f"passages, there are {store.num_passages:,}; give --batch-size {fits:,} or less, a "
            "smaller --k, or --policy merge"
        )
    if config.policy == "strict":
        _refuse_no_batch(packer)
    else:
        _refuse_masks(packer)


def _refuse_no_batch(packer: Packer) -> None:
    """Say that there is no strict batch before one is looked for."""
    bound = packer.bound()
    if bound.batches:
        return
    rows, cause = packer.pools.rows, bound.cause
    if len(bound.bottlenecks):
        texts = packer.anchor_groups[rows], packer.positive_groups[rows]
        most = max(int((groups == bound.bottlenecks[0]).sum()) for groups in texts)
        cause += f" (one text stands in {most:,} of {len(rows):,} rows)"
    raise ConfigError(
        f"no strict batch of {packer.config.batch_size:,} rows can be filled, because of {cause}; "
        "give a smaller --batch-size or --policy merge"
    )


def _refuse_masks(packer: Packer) -> None:
    """Refuse batches in which the rows of one query would mask each other's positives by far.

    Of the m rows of a query m B / N meet, and each ignores the positives of the others.
    """
    rows, size = packer.pools.rows, packer.config.batch_size
    rows_of = np.bincount(packer.store.pair_query_ids[rows])
    masks = int(((rows_of * (size / len(rows))) ** 2).sum())
    if masks > MAX_MASKS:
        fits = max(2, int(size * (MAX_MASKS / masks) ** 0.5))
        raise ConfigError(
            f"one query stands in {rows_of.max():,} of {len(rows):,} rows: a batch of {size:,} "
            f"would list {masks:,} known positives to ignore, at most {MAX_MASKS:,} are written; "
            f"give --batch-size {fits:,} or less, or fewer pairs of that query"
        )


def refuse_unscored(packer: Packer, negatives: Manifest) -> None:
    """Refuse a judge who has no scores of any row, before work starts.

    Raises:
        ConfigError: It has none of both a positive and a negative of its pool.
    """
    config, rows = packer.config, packer.pools.rows
    if config.judge is None:
        return
    assert packer.teacher is not None, "opened for the judge"
    for start in range(0, len(rows), _ROWS):
        some = rows[start : start + _ROWS]
        positives = packer.store.pair_passage_ids[some, None]
        slots = np.concatenate([positives, packer.pools.ids_NS[some]], axis=1)
        scored = np.isfinite(packer.teacher.scores(some, slots))
        if (scored[:, 0] & scored[:, 1:].any(1)).any():
            return
    band = band_of_pools(negatives, max(1, packer.k))
    raise ConfigError(
        f"--scores {config.scores} needs judgements of the positive and of a negative of some row, "
        f"found none in {len(rows):,} rows; judge more, with `stx-mine judge --name {config.judge} "
        f"--band {band:g}` and the judge itself, or leave it out"
    )

"""Which batch size fits some labels, where the one asked for does not."""

import numpy as np
from numpy.typing import NDArray

from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.labels.core.batches import assign_labels, largest_batch, most_batches
from stx_mine.stages.pack.labels.core.labels import Labels
from stx_mine.stages.pack.packings import MIN_EPOCH_STEPS


def too_large(config: PackConfig, sizes: NDArray[np.int64]) -> str:
    """What is wrong with a batch size of which no batch fills, and what to give.

    Args:
        config: The config.
        sizes: int64 (labels,) texts of each.
    """
    size, each, rows = config.batch_size, config.texts_per_label, int(sizes.sum())
    fits = largest_batch(sizes, MIN_EPOCH_STEPS, each) or largest_batch(sizes, 1, each)
    advice = f"give --batch-size {fits}" if fits else "give a smaller --texts-per-label"
    if size > rows:
        return (
            f"--batch-size {size:,} is larger than the {rows:,} labelled rows there are; {advice}"
        )
    wider = [m for m in range(each, size + 1) if size % m == 0 and most_batches(sizes, size, m)]
    also = f", or --texts-per-label {wider[0]}" if wider else ""
    return (
        f"a batch of {size:,} rows with at most {each} texts a label needs {size // each:,} labels "
        f"with so many, there are {len(sizes):,} labels; {advice}{also}"
    )


def smaller_batch(config: PackConfig, labels: Labels) -> str:
    """Advice: a smaller batch size of which a batch fills."""
    each, none = config.texts_per_label, np.empty(0, np.int64)
    halves = [config.batch_size >> power for power in range(1, config.batch_size.bit_length())]
    for smaller in (config.batch_size - each, *halves):
        size = smaller // each * each
        rng = np.random.default_rng([config.seed, 0])
        if size and len(assign_labels(labels, size, each, none, rng).rows_PB):
            return f"give --batch-size {size}"
    return "give another --texts-per-label"

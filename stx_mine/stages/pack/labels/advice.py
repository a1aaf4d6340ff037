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
    advice = f"give --batch-size {fits}" if fits else _smallest(sizes)
    if size > rows:
        return (
            f"--batch-size {size:,} is larger than the {rows:,} labelled rows there are; {advice}"
        )
    divisors = [m for m in range(each, size // 2 + 1) if size % m == 0]
    wider = [m for m in divisors if most_batches(sizes, size, m)]
    also = f", or --texts-per-label {wider[0]}" if wider else ""
    return (
        f"a batch of {size:,} rows with at most {each} texts a label needs {size // each:,} labels "
        f"with so many, there are {len(sizes):,} labels; {advice}{also}"
    )


def smaller_batch(config: PackConfig, labels: Labels) -> str:
    """Advice: a smaller batch size of which a batch fills."""
    each, none = config.texts_per_label, np.empty(0, np.int64)

    def fills(size: int, each: int) -> bool:
        rng = np.random.default_rng([config.seed, 0])
        return len(assign_labels(labels, size, each, none, rng).rows_PB) > 0

    halves = [config.batch_size >> power for power in range(1, config.batch_size.bit_length())]
    for smaller in (config.batch_size - each, *halves):
        size = smaller // each * each
        if size >= 2 * each and fills(size, each):
            return f"give --batch-size {size}"
    if fills(4, 2):
        return "give --batch-size 4 --texts-per-label 2"
    return "no two labels may share a batch; give data with labels that have no text in common"


def _smallest(sizes: NDArray[np.int64]) -> str:
    """Advice where no batch of so many texts a label fills."""
    fits = largest_batch(sizes, 1, 2)
    return f"give --batch-size {fits} --texts-per-label 2" if fits else "give more labels"

"""Parts: which units are held out for test and development, and what leaks into training.

Shape letters: N pairs, U units.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stx_mine.stages.split.core.units import PairGraph, PairUnits

# The number of a part is its place here.
PARTS = ("train", "dev", "test")
TRAIN = PARTS.index("train")
# In this order: what is in test does not depend on the size of dev.
_FILLED = ("test", "dev")


def target_size(size: float, num_pairs: int) -> int:
    """Pairs of a part: a share of them below 1, else their number."""
    return int(size * num_pairs + 0.5) if size < 1 else int(size)


def parts_of_pairs(units: PairUnits, targets: Mapping[str, int], seed: int) -> NDArray[np.int8]:
    """Hold out whole units, in random order, until the parts are as large as they should be.

    A unit that does not fit any more is passed over, so that a large one stays in training. What
    is missing in the end is made up for by the smallest unit left if that is nearer to the target.

    Args:
        units: What stays together.
        targets: `test`, `dev` -> pairs wanted; 0 for no such part.
        seed: Orders the units.

    Returns:
        int8 (N,): the place in `PARTS` of each pair.
    """
    parts_U = np.full(len(units), TRAIN, np.int8)
    order = units.order(seed)
    for name in _FILLED:
        free = order[parts_U[order] == TRAIN]
        parts_U[_filled(free, units.sizes_U[free], targets[name])] = PARTS.index(name)
    return parts_U[units.of_pair_N]


def _filled(units: NDArray[np.int64], sizes: NDArray[np.int64], target: int) -> NDArray[np.int64]:
    """The units that fill a part, out of some in order."""
    taken, left = np.zeros(len(units), bool), target
    for place, size in enumerate(sizes.tolist()):
        if left <= 0:
            break
        if size <= left:
            taken[place] = True
            left -= size
    rest = np.flatnonzero(~taken)
    if left > 0 and len(rest):
        smallest = rest[np.argmin(sizes[rest])]
        excess = int(sizes[smallest]) - left
        # An empty part is no use to anyone: there as near is near enough.
        if excess < left or (excess == left == target):
            taken[smallest] = True
    return units[taken]


@dataclass(frozen=True)
class Leaks:
    """Held-out pairs that share a text with training; texts that count as one are one.

    Attributes:
        held_out: Pairs of test and dev.
        positives: Those whose positive is a positive of training too.
        texts: Those whose query or positive stands in training, in whatever role.
    """

    held_out: int
    positives: int
    texts: int

    @classmethod
    def of(cls, graph: PairGraph, parts_N: NDArray[np.int8]) -> "Leaks":
        """Count them.

        Args:
            graph: The pairs.
            parts_N: int8 (N,) the part of each pair.
        """
        held = parts_N != TRAIN
        queries_N, passages_N = graph.names[graph.queries_N], graph.names[graph.passages_N]
        positives = np.zeros(len(graph.digests), bool)
        positives[passages_N[~held]] = True
        texts = positives.copy()
        texts[queries_N[~held]] = True
        queries_H, passages_H = queries_N[held], passages_N[held]
        return cls(
            len(queries_H),
            int(positives[passages_H].sum()),
            int((texts[queries_H] | texts[passages_H]).sum()),
        )

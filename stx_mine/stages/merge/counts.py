"""Counts of `merge`."""

from dataclasses import dataclass

from stx_mine.store.counts import Counts


@dataclass(frozen=True, kw_only=True)
class MergeCounts(Counts):
    """What was merged.

    Attributes:
        models: Models, without a base.
        tensors: Tensors of each.
        parameters: Numbers in them that were merged.
    """

    models: int
    tensors: int
    parameters: int

"""Counts of `diff`: what two runs share, and how the pools of their rows differ."""

from dataclasses import dataclass
from typing import Self

from stx_mine.store.counts import Counts


@dataclass(frozen=True, kw_only=True)
class SharedCounts(Counts):
    """Sizes of two sets, one of each run, split by where a member is.

    Attributes:
        only_a: Members that only A has.
        both: Members that both have.
        only_b: Members that only B has.
    """

    only_a: int
    both: int
    only_b: int

    @classmethod
    def of(cls, num_a: int, num_b: int, num_both: int) -> Self:
        """Split the sizes of two sets that have `num_both` members in common."""
        return cls(only_a=num_a - num_both, both=num_both, only_b=num_b - num_both)


@dataclass(frozen=True, kw_only=True)
class ComparedRows(SharedCounts):
    """Pairs of both runs by where they are rows, and rows of both by their pools.

    `both` is the sum of the last four; the pairs of both runs are the sum of the first four.

    Attributes:
        neither: Pairs that `mine` dropped in both runs.
        empty: Rows of both whose pools are empty in both.
        equal: Rows with the same negatives in the same order.
        reordered: Rows with the same negatives in another order.
        changed: Rows with other negatives.
    """

    neither: int
    empty: int
    equal: int
    reordered: int
    changed: int

"""The weights of models combined, one tensor of each at a time.

Sums are taken in float64 and rounded once to the format of the tensors. What all models agree on
stays as it is, bit for bit.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.floating]
# Numbers that exist in float64 at one time.
_BLOCK = 1 << 20
# 1 - |cosine| below which two directions count as one: their angle says nothing any more.
_PARALLEL = 1e-9


def shares_of(weights: Sequence[float]) -> list[float]:
    """Weights that sum to 1.

    Args:
        weights: At least 0 each, one of them above.
    """
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def linear(tensors: Sequence[Numbers], shares: Sequence[float]) -> Numbers:
    """The weighted mean.

    Args:
        tensors: float32 or float64, of one shape.
        shares: One a tensor; they sum to 1.

    Returns:
        A new tensor of the format and shape of the first.
    """
    return _sum(tensors, shares, keeps=True)


def task(base: Numbers, tensors: Sequence[Numbers], weights: Sequence[float]) -> Numbers:
    """Base + sum of weight x (tensor - base): task vectors (Ilharco et al. 2023).

    Args:
        base: float32 or float64.
        tensors: Of the same shape.
        weights: One a tensor, of any sign and sum.

    Returns:
        A new tensor of the format and shape of the base.
    """
    return _sum([base, *tensors], [1 - math.fsum(weights), *weights], keeps=True)


def slerp(first: Numbers, second: Numbers, share: float) -> Numbers:
    """The point on the arc from one tensor to another, both as flat vectors (Shoemake 1985).

    Lengths are kept as they are: the factors of the arc apply to the tensors, not to their
    directions. Where these are one (or opposite, or one is zero) there is no arc, and the mean is
    taken.

    Args:
        first: float32 or float64.
        second: Of the same shape.
        share: How far towards the second, in [0, 1].

    Returns:
        A new tensor of the format and shape of the first.
    """
    lengths = math.sqrt(_dot(first, first)), math.sqrt(_dot(second, second))
    cosine = _dot(first, second) / (lengths[0] * lengths[1]) if all(lengths) else 1.0
    if 1 - abs(cosine) < _PARALLEL or share in (0, 1):
        return linear([first, second], [1 - share, share])
    angle = math.acos(cosine)
    factors = [math.sin((1 - share) * angle), math.sin(share * angle)]
    return _sum([first, second], [one / math.sin(angle) for one in factors], keeps=False)


@dataclass
class Distance:
    """How far the weights of one model are from those of another, over all tensors.

    Attributes:
        product: Sum of the products of their numbers.
        other: Sum of the squares of the one they are compared with.
        own: Sum of its own squares.
        apart: Sum of the squares of the differences.
    """

    product: float = 0.0
    other: float = 0.0
    own: float = 0.0
    apart: float = 0.0

    def add(self, own: Numbers, other: Numbers) -> None:
        """Count one more tensor of both."""
        self.product += _dot(own, other)
        self.own += _dot(own, own)
        self.other += _dot(other, other)
        self.apart += math.fsum(
            float(np.square(one.astype(np.float64) - two).sum()) for one, two in _blocks(own, other)
        )

    @property
    def cosine(self) -> float:
        """Of all weights as one vector, in [-1, 1]; 0 where one of them is zero."""
        scale = math.sqrt(self.own) * math.sqrt(self.other)
        return max(-1.0, min(1.0, self.product / scale)) if scale else 0.0

    @property
    def relative(self) -> float:
        """Length of the difference by that of the other; infinite where that is zero."""
        if not self.apart:
            return 0.0
        return math.sqrt(self.apart / self.other) if self.other else math.inf


def _sum(tensors: Sequence[Numbers], factors: Sequence[float], keeps: bool) -> Numbers:
    """Sum of factor x tensor.

    Args:
        tensors: Of one shape.
        factors: One a tensor; a tensor of factor 0 plays no part.
        keeps: The factors sum to 1: numbers that are equal in all tensors stay.
    """
    out = np.zeros_like(tensors[0], order="C")
    used = [(one, factor) for one, factor in zip(tensors, factors, strict=True) if factor]
    if not used:
        return out
    parts = _blocks(out, *(one for one, _ in used))
    with np.errstate(over="ignore"):
        for target, *numbers in parts:
            total = numbers[0] * np.float64(used[0][1])
            for one, (_, factor) in zip(numbers[1:], used[1:], strict=True):
                total += one * np.float64(factor)
            target[:] = total
            if keeps:
                equal = np.logical_and.reduce([one == numbers[0] for one in numbers])
                target[equal] = numbers[0][equal]
    return out


def _blocks(*tensors: Numbers) -> "list[list[Numbers]]":
    """The same numbers of each tensor, a block at a time; views where tensors are contiguous."""
    flat = [one.reshape(-1) for one in tensors]
    parts = [slice(start, start + _BLOCK) for start in range(0, flat[0].size, _BLOCK)]
    return [[one[part] for one in flat] for part in parts]


def _dot(first: Numbers, second: Numbers) -> float:
    """Sum of products, in float64."""
    return math.fsum(
        float(np.dot(one.astype(np.float64), two.astype(np.float64)))
        for one, two in _blocks(first, second)
    )

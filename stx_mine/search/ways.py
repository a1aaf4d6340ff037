"""What computes on a device: torch, or kernels of Triton where they are asked for and work.

Shape letters: see `groups.py` and `device_score.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec

import torch

from stx_mine.errors import ConfigError
from stx_mine.search.device_score import lane_sums
from stx_mine.search.groups import MEMBERS, group_maxima, group_members
from stx_mine.search.product import PRECISIONS

WAYS = ("torch", "triton")


@dataclass(frozen=True)
class Way:
    """Three steps of a search, in one way to compute them.

    Attributes:
        maxima: As `groups.group_maxima`.
        members: As `groups.group_members`.
        sums: As `device_score.lane_sums`.
        wide: Whether values of products are float32, whatever their factors are.
        group: Members of the largest groups.
    """

    maxima: Callable[..., torch.Tensor]
    members: Callable[..., tuple[torch.Tensor, torch.Tensor]]
    sums: Callable[..., torch.Tensor]
    wide: bool
    group: int = MEMBERS


TORCH = Way(group_maxima, group_members, lane_sums, wide=False)


@cache
def way_of(device: str, precision: str, by_distance: bool, asked: str = "torch") -> Way:
    """How a device computes.

    Args:
        device: Where.
        precision: Of the products; float32 has no kernels.
        by_distance: Whether vectors are compared by distance.
        asked: torch or triton.

    Raises:
        ConfigError: `asked` is triton, and it does not compile here, or gives other values.
    """
    if asked == "torch":
        return TORCH
    trouble = "there are kernels for half precision only"
    if precision != "float32":
        trouble = "triton is not installed"
        if find_spec("triton") is not None:
            from stx_mine.search import kernels

            shape, trouble = kernels.working_shape(device, PRECISIONS[precision], by_distance)
            if shape is not None:
                maxima = partial(kernels.tile_maxima, shape=shape)
                return Way(
                    maxima, kernels.tile_members, kernels.tile_sums, wide=True, group=shape.group
                )
    raise ConfigError(f"kernels are 'triton' and device '{device}': {trouble}; choose torch")

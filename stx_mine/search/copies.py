"""Copies between the host and a device that neither waits for."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


def pinned(vectors_ND: NDArray[np.float32], device: str) -> torch.Tensor:
    """Vectors in memory that a CUDA device copies from by itself; as they are for others."""
    vectors = torch.from_numpy(vectors_ND)
    return vectors.pin_memory() if device.startswith("cuda") else vectors


class HostCopy:
    """Arrays of a device on their way to the host."""

    def __init__(self, tensors: Sequence[torch.Tensor]) -> None:
        """Begin to copy; what is at work on the device goes on."""
        self._copies = [one.to("cpu", non_blocking=one.is_cuda) for one in tensors]
        self._done = None
        if any(one.is_cuda for one in tensors):
            with torch.cuda.device(next(one.device for one in tensors if one.is_cuda)):
                self._done = torch.cuda.Event()
                self._done.record()

    def arrays(self) -> list[NDArray[Any]]:
        """The arrays, once all of them are there; they may be written to."""
        if self._done is not None:
            self._done.synchronize()
        # Pinned memory is for copying: what a caller keeps lies elsewhere.
        return [one.numpy().copy() for one in self._copies]

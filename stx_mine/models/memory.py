"""Whether memory ran out, how much of it is free, and what is given back."""

import ctypes
import sys
from pathlib import Path

import psutil
import torch

from stx_mine.search.device_memory import free_gpu_memory

_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")
# Limit and use of the control group that this process is in, versions 2 and 1.
_GROUP_FILES = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ),
)


def is_no_memory(error: RuntimeError | MemoryError) -> bool:
    """Whether memory ran out, on the device or here."""
    words = str(error).lower()
    return isinstance(error, MemoryError) or any(one in words for one in _NO_MEMORY)


def free_memory(device: torch.device) -> int:
    """Bytes that a process can still take on a device: for a CPU those of this machine.

    0 where the device does not tell.
    """
    if device.type == "cuda":
        return free_gpu_memory(device)
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory())
    if device.type == "cpu":
        return int(min([psutil.virtual_memory().available, *_left_to_groups()]))
    return 0


def give_back_memory() -> None:
    """Give memory that was freed back to the system, where the C library would keep it (glibc).

    Tensors of many sizes leave gaps: without this a process that trains grows from step to step.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def _left_to_groups() -> list[int]:
    """Bytes that control groups leave to their processes, where they are limited."""
    read = [
        (limit.read_text().strip(), int(used.read_text()))
        for limit, used in _GROUP_FILES
        if limit.exists() and used.exists()
    ]
    return [max(0, int(limit) - used) for limit, used in read if limit.isdigit()]

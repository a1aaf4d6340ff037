"""Threads that share no work with those of libraries."""

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from threadpoolctl import threadpool_limits

_ASKED_FOR = "OMP_NUM_THREADS"
# Blocks that are read before they are asked for.
BLOCKS_AHEAD = 8


@contextmanager
def own_threads() -> Iterator[ThreadPoolExecutor]:
    """As many threads as torch uses, each of which has its products to itself while inside.

    torch is left alone where nothing has imported it: that takes seconds.
    """
    torch = sys.modules.get("torch")
    num_threads = _num_threads() if torch is None else torch.get_num_threads()
    if torch is not None:
        torch.set_num_threads(1)
    try:
        with threadpool_limits(1, "blas"), ThreadPoolExecutor(num_threads) as threads:
            yield threads
    finally:
        if torch is not None:
            torch.set_num_threads(num_threads)


def _num_threads() -> int:
    """What is asked for in the environment, as of torch, or the processors of this process."""
    asked = os.environ.get(_ASKED_FOR, "")
    if asked.isdecimal() and int(asked):
        return int(asked)
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1

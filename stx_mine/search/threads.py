"""Threads that share no work with those of libraries."""

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from threadpoolctl import threadpool_limits

_ASKED_FOR = "OMP_NUM_THREADS"
_AHEAD = 8
_Item = TypeVar("_Item")
_Read = TypeVar("_Read")


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


def read_ahead(
    threads: ThreadPoolExecutor, read: Callable[[_Item], _Read], items: Iterable[_Item]
) -> Iterator[_Read]:
    """What `read` gives for each item, in order; a few are read before they are asked for."""
    pending: deque[Future[_Read]] = deque()
    for item in items:
        pending.append(threads.submit(read, item))
        if len(pending) > _AHEAD:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def _num_threads() -> int:
    """What is asked for in the environment, as of torch, or the processors of this process."""
    asked = os.environ.get(_ASKED_FOR, "")
    if asked.isdecimal() and int(asked):
        return int(asked)
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1

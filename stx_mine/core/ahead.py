"""Work that runs ahead of whoever takes its results."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from typing import TypeVar

Item = TypeVar("Item")
Value = TypeVar("Value")


def ahead(
    work: Callable[[Item], Value], items: Sequence[Item], threads: Executor, depth: int
) -> Iterator[Value]:
    """What `work` makes of each item, in order, with up to `depth` more of them under way."""
    under_way: deque[Future[Value]] = deque()
    for item in items:
        under_way.append(threads.submit(work, item))
        if len(under_way) > depth:
            yield under_way.popleft().result()
    while under_way:
        yield under_way.popleft().result()

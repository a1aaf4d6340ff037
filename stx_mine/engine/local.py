"""Run tasks on this machine, in this process or in several, with progress."""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import TypeVar

from stx_mine import progress

Task = TypeVar("Task")
Result = TypeVar("Result")


def run_tasks(
    tasks: Sequence[Task],
    work: Callable[[Task], Result],
    label: str,
    threads: Executor | None = None,
) -> list[Result]:
    """Run every task; one that raises stops the stage, finished ones stay.

    Args:
        tasks: What is left to do.
        work: Does one task: writes one file.
        label: What the progress line says.
        threads: Run as many tasks at once as it has threads; None for one after the other.

    Returns:
        What each task returned, in order.
    """
    results = threads.map(work, tasks) if threads else map(work, tasks)
    return list(progress.each(results, label, len(tasks), "parts"))

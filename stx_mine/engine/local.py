"""Run tasks on this machine, in this process or in several, with progress on stderr."""

import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from typing import TypeVar

from tqdm import tqdm

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
        label: What the progress line says; shown on a terminal after two seconds.
        threads: Run as many tasks at once as it has threads; None for one after the other.

    Returns:
        What each task returned, in order.
    """
    results = threads.map(work, tasks) if threads else map(work, tasks)
    return with_progress(results, label, len(tasks))


def with_progress(results: Iterable[Result], label: str, total: int) -> list[Result]:
    """What tasks return, with a progress line while they are waited for."""
    silent = not sys.stderr.isatty()
    return list(tqdm(results, label, total, unit="task", disable=silent, delay=2, leave=False))

"""Run tasks one after the other in this process, with progress on stderr."""

import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

from tqdm import tqdm

Task = TypeVar("Task")


def run_tasks(tasks: Sequence[Task], work: Callable[[Task], None], label: str) -> None:
    """Run every task in order; a task that raises stops the stage, finished ones stay.

    Args:
        tasks: What is left to do.
        work: Does one task: writes one file.
        label: What the progress line says; shown on a terminal after two seconds.
    """
    silent = not sys.stderr.isatty()
    for task in tqdm(tasks, desc=label, unit="task", disable=silent, delay=2, leave=False):
        work(task)

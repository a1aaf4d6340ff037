"""Run tasks in several processes of this machine; whichever is free takes the next one."""

import multiprocessing
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.queues import SimpleQueue

from stx_mine.engine.local import run_tasks
from stx_mine.engine.tasks import CONTINUES, Worker, attempt
from stx_mine.errors import TaskError

# What does the tasks of this process, from its start on.
_own: list[Worker] = []


def run_in_processes(tasks: Sequence[str], workers: Sequence[Worker], label: str) -> None:
    """Run every task; one that fails is tried again by itself, finished ones stay.

    Args:
        tasks: What is left to do.
        workers: A process each.
        label: What the progress line says.

    Raises:
        TaskError: A task failed three times, or a process was killed.
    """
    # Not forked: a process that has used a GPU cannot be.
    context = multiprocessing.get_context("spawn")
    waiting: SimpleQueue[Worker] = context.SimpleQueue()
    for worker in workers:
        waiting.put(worker)
    pool = ProcessPoolExecutor(min(len(workers), len(tasks)), context, _start, (waiting,))
    try:
        with pool:
            run_tasks(tasks, _work, label, pool)
    except BrokenProcessPool as error:
        raise TaskError(
            f"one of {len(workers)} processes was killed, for want of memory or by another's hand "
            f"({label}); {CONTINUES}"
        ) from error


def _start(waiting: "SimpleQueue[Worker]") -> None:
    # A pool that is killed leaves its processes waiting for work, with their memory, for good.
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _own.append(waiting.get())


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "a process of a pool has a parent"
    parent.join()
    os._exit(1)


def _work(task: str) -> None:
    attempt(_own[0], task)

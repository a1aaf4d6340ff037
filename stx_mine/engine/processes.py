"""Run tasks in several processes of this machine; whichever is free takes the next one."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.queues import SimpleQueue

from stx_mine import progress
from stx_mine.engine.tasks import CONTINUES, Worker, attempt
from stx_mine.errors import TaskError

# Python's tracker of semaphores removes them where a signal ends the program, and need not say so.
_UNSAID = "ignore:resource_tracker:UserWarning"
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
    if _UNSAID not in sys.warnoptions:
        sys.warnoptions.append(_UNSAID)
    # Not forked: a process that has used a GPU cannot be.
    context = multiprocessing.get_context("spawn")
    waiting: SimpleQueue[Worker] = context.SimpleQueue()
    for worker in workers:
        waiting.put(worker)
    pool = ProcessPoolExecutor(min(len(workers), len(tasks)), context, _start, (waiting,))
    try:
        with pool, _ended(pool):
            # A key pressed in a terminal reaches all its processes; this one ends the others.
            with _kept_from({signal.SIGINT, signal.SIGHUP}):
                results = pool.map(_work, tasks)
            for _ in progress.each(results, label, len(tasks), "parts"):
                pass
    except BrokenProcessPool as error:
        raise TaskError(
            f"one of {len(workers)} processes was killed, for want of memory or by another's hand "
            f"({label}); {CONTINUES}"
        ) from error


@contextmanager
def _kept_from(signals: set[signal.Signals]) -> Iterator[None]:
    """Keep signals from this thread, and from processes that are started inside, for good."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _ended(pool: ProcessPoolExecutor) -> Iterator[None]:
    """End the processes where the block does not end well, whatever they are at."""
    finished = False
    try:
        yield
        finished = True
    finally:
        if not finished:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.kill()


def _start(waiting: "SimpleQueue[Worker]") -> None:
    # A pool that is killed leaves its processes waiting for work, with their memory, for good.
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _own.append(waiting.get())


def _end_with_parent() -> None:
    """End this process when the one that started it is no more: it may have been killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(task: str) -> None:
    attempt(_own[0], task)

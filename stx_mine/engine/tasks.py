"""What engines run: a worker that does tasks, each of which makes one file."""

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Self

from stx_mine.errors import TaskError, one_line

TRIES = 3
# What may pass: disks and networks that fail for a while, memory that another process holds. Of the
# errors of torch those of memory and devices; shapes that do not fit never will.
_PASSING = (OSError, MemoryError)
_OF_A_MACHINE = re.compile(
    "memory|cuda|cublas|cudnn|nccl|hip error|start new thread", re.IGNORECASE
)
CONTINUES = "finished files stay, the same command continues where it stopped"


class Worker(ABC):
    """Does tasks, in this process or in others.

    A subclass is a frozen dataclass of settings and absolute paths. What it opens (models, mapped
    files) is a `cached_property`: opened once in each process, never sent to another.
    """

    @property
    def wants_gpu(self) -> bool:
        """Whether it is faster on a GPU."""
        return False

    @property
    def tasks_at_once(self) -> int:
        """How many tasks one process of this machine does at a time, in threads."""
        return 1

    @property
    def copies(self) -> Sequence["Worker"]:
        """Itself for each device of this machine that gets a process; none for this process."""
        return ()

    def in_folder(self, folder: Path) -> Self:
        """The same, with its field `folder` another one; what it has opened stays open."""
        moved = object.__new__(type(self))
        vars(moved).update({**vars(self), "folder": folder})
        return moved

    @abstractmethod
    def __call__(self, task: str) -> None:
        """Do one task: write the file of that name, whole or not at all."""

    def __getstate__(self) -> dict[str, Any]:
        """The fields; what has been opened stays here."""
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]


def attempt(worker: Worker, task: str) -> None:
    """Do a task, up to three times where the failure may pass.

    Raises:
        TaskError: It failed three times, or as it always will.
    """
    for tried in range(1, TRIES + 1):
        try:
            return worker(task)
        except (*_PASSING, RuntimeError) as error:
            passing = isinstance(error, _PASSING) or _OF_A_MACHINE.search(str(error))
            if passing and tried < TRIES:
                continue
            times = f"{tried} times, at last" if tried > 1 else "once"
            reason = one_line(error)
            raise TaskError(
                f"task {task} failed {times} with {type(error).__name__}: {reason}; {CONTINUES}"
            ) from error

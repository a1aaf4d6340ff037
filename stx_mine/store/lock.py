"""The lock of a run directory: one command at a time, or the shares of one plan together.

A plain command holds the main lock while it runs. A share holds a lock file of its own and takes
the main one only to begin and to publish, one share at a time. All locks are those of the operating
system: what is killed holds nothing. Their names are those of nobody else's files, as a run
directory may be any folder.
"""

import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from stx_mine.errors import ArtifactError, LockedError

_LOCK = ".lock-stx-mine"
_SHARE = f"{_LOCK}-share-"
_POLL_S = 0.2
# How long a share bears with another holder: who has just taken the lock has not said so yet.
_PATIENCE_S = 5.0


@dataclass(frozen=True)
class TaskShard:
    """One of several calls that do the tasks of a plan together.

    Attributes:
        number: From 0.
        count: How many there are.
        plan: What all of them have in common; no other command may run beside them.
    """

    number: int
    count: int
    plan: str

    @property
    def name(self) -> str:
        """Name of its lock."""
        return f"{_SHARE}{self.number}-of-{self.count}"


class RunLock:
    """The lock of one directory, as one command sees it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._task_shard: TaskShard | None = None
        self._main = FileLock(folder / _LOCK)

    @contextmanager
    def hold(self, task_shard: TaskShard | None = None) -> Iterator[None]:
        """Hold the directory for one command, or for one share of it.

        Raises:
            LockedError: Another command holds it, or this very share is at work.
            ArtifactError: The directory cannot be written.
        """
        with _writable(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            if task_shard is None:
                with self._taken(0):
                    self._refuse_shares()
                    yield
                return
            self._task_shard = task_shard
            own = FileLock(self._folder / task_shard.name)
            try:
                with self.exclusive():
                    self._refuse_shares()
                    self._acquire(own, 0)
                    self._say_who(task_shard.name)
                yield
            finally:
                if own.is_locked:
                    self._who(task_shard.name).unlink(missing_ok=True)
                own.release()
                self._task_shard = None

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep other shares of the plan out; a plain command has the directory anyway.

        Raises:
            LockedError: Another command holds it.
        """
        if self._task_shard is None:
            yield
            return
        with self._taken(_PATIENCE_S):
            yield

    @contextmanager
    def _taken(self, patience_s: float) -> Iterator[None]:
        if self._main.is_locked:
            yield
            return
        self._acquire(self._main, patience_s)
        try:
            self._say_who(_LOCK)
            try:
                yield
            finally:
                self._who(_LOCK).unlink(missing_ok=True)
        finally:
            self._main.release()

    def _acquire(self, lock: FileLock, patience_s: float) -> None:
        """Take a lock; wait as long as its holder is another share of the same plan."""
        left = patience_s
        while True:
            try:
                lock.acquire(timeout=min(_POLL_S, patience_s))
                return
            except Timeout as error:
                name = Path(lock.lock_file).name
                if (
                    self._task_shard
                    and name == _LOCK
                    and self._plan_of(name) == self._task_shard.plan
                ):
                    left = patience_s
                    continue
                left -= _POLL_S
                if left <= 0:
                    raise self._locked(name) from error

    def _refuse_shares(self) -> None:
        """Refuse to work beside shares of another plan; clear away what dead ones left."""
        for path in sorted(self._folder.glob(f"{_SHARE}*")):
            if path.suffix or (self._task_shard and path.name == self._task_shard.name):
                continue
            lock = FileLock(path)
            try:
                lock.acquire(timeout=0)
            except Timeout as error:
                if self._task_shard is None or self._plan_of(path.name) != self._task_shard.plan:
                    raise self._locked(path.name) from error
            else:
                # While it is held, so that nobody takes what is going; the lock itself goes last.
                self._who(path.name).unlink(missing_ok=True)
                path.unlink(missing_ok=True)
                lock.release()

    def _who(self, name: str) -> Path:
        return self._folder / f"{name}.json"

    def _say_who(self, name: str) -> None:
        command = Path(sys.argv[0]).name + " " + " ".join(sys.argv[1:2])
        if self._task_shard:
            command += f", share {self._task_shard.number} of {self._task_shard.count}"
        who = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "command": command,
            "plan": self._task_shard.plan if self._task_shard else None,
        }
        self._who(name).write_text(json.dumps(who))

    def _read_who(self, name: str) -> dict[str, object]:
        try:
            found = json.loads(self._who(name).read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _plan_of(self, name: str) -> object:
        return self._read_who(name).get("plan")

    def _locked(self, name: str) -> LockedError:
        who = self._read_who(name)
        holder = "another process"
        if {"pid", "host", "command"} <= set(who):
            holder = f"process {who['pid']} on {who['host']} ({who['command']})"
        return LockedError(
            f"{self._folder} is in use by {holder}; wait for it, or give another --run-dir"
        )


@contextmanager
def _writable(folder: Path) -> Iterator[None]:
    """Say what is wrong where the directory cannot be written.

    Raises:
        ArtifactError: It cannot.
    """
    try:
        yield
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise ArtifactError(
            f"cannot write to the run directory {folder} ({error.strerror}); "
            "give another --run-dir or fix its permissions"
        ) from error
    except OSError as error:
        # Some name the file by its absolute path.
        file, place = Path(str(error.filename or "")).absolute(), folder.absolute()
        if not file.is_relative_to(place):
            raise
        named = folder / file.relative_to(place)
        raise ArtifactError(
            f"cannot write {named} ({error.strerror}); give another --run-dir"
        ) from error

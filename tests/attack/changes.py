"""What `changes.c` counts and does: compile it, and tell it when to kill, to fail, to turn back."""

import errno
import mmap
import shutil
import struct
import subprocess
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

WRITE, OPEN, MKDIR, RENAME, REMOVE, SYNC = 1, 2, 4, 8, 16, 32
# What fails where no byte fits any more, where a disk is broken, where nothing may be written.
OPERATIONS = {
    errno.ENOSPC: WRITE | OPEN | MKDIR,
    errno.EDQUOT: WRITE | OPEN | MKDIR,
    errno.EIO: WRITE | SYNC,
    errno.EROFS: WRITE | OPEN | MKDIR | RENAME | REMOVE,
}
_STATE = struct.Struct("8q1024s1024s")


@dataclass(frozen=True)
class Plan:
    """What happens to one command.

    Attributes:
        root: The folder whose changes count.
        kill_at: The change before which the process that makes it is killed; 0 for none.
        is_torn: Half of that change is done if it is a write.
        error: The errno of every change from `error_from` on; 0 for none.
        error_from: The first change that fails.
        clock_from: The change from which the clock is wrong; 0 for never.
        clock_offset: By how many seconds it is wrong.
        after_s: When to kill it, whatever it does; None for never.
        trace: A file that gets a line for each change.
    """

    root: Path
    kill_at: int = 0
    is_torn: bool = False
    error: int = 0
    error_from: int = 0
    clock_from: int = 0
    clock_offset: int = 0
    after_s: float | None = None
    trace: Path | None = None

    def packed(self) -> bytes:
        """The state that `changes.c` reads, at its beginning."""
        numbers = (self.kill_at, self.is_torn, self.error, self.error_from)
        operations = OPERATIONS.get(self.error, 0)
        clock = (self.clock_from, self.clock_offset)
        places = (str(self.root).encode(), str(self.trace or "").encode())
        return _STATE.pack(0, *numbers, operations, *clock, *places)


class State:
    """The file that every process of a command maps."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(bytes(_STATE.size))
        with path.open("r+b") as handle:
            self._mapped = mmap.mmap(handle.fileno(), _STATE.size)

    def set(self, plan: Plan | None) -> None:
        """Begin to count anew; None to stop."""
        self._mapped[:] = plan.packed() if plan else bytes(_STATE.size)

    @property
    def count(self) -> int:
        """Changes since then."""
        return int(_STATE.unpack(self._mapped[:])[0])


@cache
def library(folder: Path) -> Path:
    """Compile `changes.c` into a folder; skips where there is no compiler."""
    compiler, built = shutil.which("cc"), folder / "changes.so"
    if compiler is None:
        pytest.skip("no C compiler (cc) for tests/attack/changes.c")
    source = Path(__file__).with_name("changes.c")
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", built, source, "-ldl"], check=True)
    return built


def read_trace(path: Path) -> list[tuple[str, str]]:
    """(what, path below the root) of each change, in order."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [(line.split(" ", 2)[1], line.split(" ", 2)[2]) for line in lines]


def kinds(trace: list[tuple[str, str]]) -> Counter[str]:
    """How many changes of each kind."""
    return Counter(what for what, _ in trace)

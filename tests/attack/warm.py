"""Commands in children of one warm process: a command costs its work, not the import of torch.

As a program it is the warm process: it imports what commands import, starts no thread, and forks a
child for each line that it reads. `WarmCommands` is the other end.
"""

import atexit
import gc
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

# Threads of BLAS in the commands: OPENBLAS_NUM_THREADS would start them in the warm process, which
# may have one thread alone where it forks.
BLAS_THREADS = "STX_BLAS_THREADS"
HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        code: Its exit code; negative: the signal that killed it.
        count: Changes of files that it made.
        seconds: How long it took.
        orphans: Processes that it started and that outlived it by seconds.
        stdout: What it printed.
        stderr: What it complained of.
    """

    code: int
    count: int
    seconds: float
    orphans: int
    stdout: str
    stderr: str

    @property
    def is_killed(self) -> bool:
        """Whether SIGKILL ended it."""
        return self.code == -signal.SIGKILL


class WarmCommands:
    """A warm process, and the state that its commands map."""

    def __init__(self, folder: Path, **env: str) -> None:
        from changes import State, library

        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._state = folder, State(folder / "state")
        single = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
        names = [name for name in os.environ if name != "PYTHONHASHSEED"]
        environment = {
            **{name: os.environ[name] for name in names},
            **dict.fromkeys(single, "1"),
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_OFFLINE": "1",
            "LD_PRELOAD": str(library(folder)),
            "STX_CHANGES": str(self._state.path),
            "PYTHONPATH": os.pathsep.join([str(HERE.parent.parent), str(HERE.parent), str(HERE)]),
            **env,
        }
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def run(
        self,
        argv: Sequence[str | Path],
        plan: Any,
        cwd: Path | None = None,
        env: dict[str, str] | None = None,
        vanishes: bool = False,
    ) -> Ended:
        """Run `stx-mine ARGV` as a `Plan` says.

        Args:
            argv: What stands after `stx-mine`.
            plan: What happens to it.
            cwd: Where it runs; None for the root of the plan.
            env: What its environment has besides.
            vanishes: Where it runs is made for it, and removed before it begins.
        """
        out, err = self._folder / "stdout", self._folder / "stderr"
        asked = {
            "argv": list(map(str, argv)),
            "cwd": str(cwd or plan.root),
            "env": env or {},
            "out": str(out),
            "err": str(err),
            "after_s": plan.after_s,
            "vanishes": vanishes,
        }
        assert self._process.stdin and self._process.stdout
        self._state.set(plan)
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        count = self._state.count
        self._state.set(None)
        assert line, "the warm process died"
        return Ended(
            **json.loads(line), count=count, stdout=out.read_text(), stderr=err.read_text()
        )

    def close(self) -> None:
        """End the warm process."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


@contextmanager
def warm_commands(folder: Path, **env: str) -> Iterator[WarmCommands]:
    """A warm process for a block; `env` is what its environment has besides."""
    warm = WarmCommands(folder, **env)
    try:
        yield warm
    finally:
        warm.close()


def _import_all() -> None:
    from importlib import import_module

    from stx_mine import cli, pipeline  # noqa: F401
    from stx_mine.commands import COMMANDS

    cli.quiet()
    for command in COMMANDS.values():
        import_module(f"stx_mine.stages.{command.entry.partition(':')[0]}")
    for name in ("bm25s", "faiss", "pyarrow.parquet", "pyarrow.dataset", "fsspec", "wordllama"):
        import_module(name)


def _command(asked: dict[str, Any]) -> None:
    """What the child does, and ends by."""
    os.setsid()
    for number, path in ((1, asked["out"]), (2, asked["err"])):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    cwd = Path(asked["cwd"])
    if asked["vanishes"]:
        cwd.mkdir()
    os.chdir(cwd)
    if asked["vanishes"]:
        cwd.rmdir()
    os.environ.update(asked["env"])
    if BLAS_THREADS in os.environ:
        threadpool_limits(int(os.environ[BLAS_THREADS]), user_api="blas")
    sys.argv = ["stx-mine", *asked["argv"]]
    from stx_mine.cli import main

    code: int | str | None = 0
    try:
        main()
    except SystemExit as left:
        code = left.code
    except BaseException:
        traceback.print_exc()
        code = 1
    # What the interpreter does at its end, without the second that it takes to free all modules.
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def _wait(child: int, after_s: float | None) -> tuple[int, int]:
    """The exit code of a child, and how many processes of it are left after a while."""
    descriptor = os.pidfd_open(child)
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    if after_s is not None and not poll.poll(after_s * 1_000):
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os.close(descriptor)
    for _ in range(50):
        if not (left := _of_session(child)):
            break
        time.sleep(0.1)
    for one in left:
        os.kill(one, signal.SIGKILL)
    return os.waitstatus_to_exitcode(status), len(left)


def _of_session(session: int) -> list[int]:
    """The processes of a session that are alive."""
    found = []
    for path in Path("/proc").iterdir():
        try:
            fields = (path / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if path.name.isdigit() and fields[3] == str(session) and fields[0] not in "ZX":
            found.append(int(path.name))
    return found


def _serve() -> None:
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    _import_all()
    threads = [(one / "comm").read_text().strip() for one in Path("/proc/self/task").iterdir()]
    # That of Arrow's allocator, which knows of forks.
    assert len([one for one in threads if one != "jemalloc_bg_thd"]) == 1, threads
    gc.freeze()
    for line in sys.stdin:
        asked, started = json.loads(line), time.monotonic()
        child = os.fork()
        if child == 0:
            replies.close()
            return _command(asked)
        code, orphans = _wait(child, asked["after_s"])
        seconds = time.monotonic() - started
        replies.write(json.dumps({"code": code, "orphans": orphans, "seconds": seconds}) + "\n")
        replies.flush()
    return None


if __name__ == "__main__":
    _serve()

"""A measurement in a process of its own, so that its peak memory is its own.

The peak is `VmHWM` of the process: it counts pages of mapped files while they are resident, and
starts at zero with the program (`ru_maxrss` would start at what the parent held). Memory that no
file backs is `RssAnon`, of which the system keeps no peak: a thread samples it.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)
_SAMPLE_SECONDS = 0.02


def run_fresh(module: str, arguments: Sequence[str], num_threads: int) -> dict[str, float]:
    """Run `python -m module arguments` and return the JSON object of its last line.

    Args:
        module: Prints one JSON object as its last line.
        arguments: Its command line.
        num_threads: Threads that OpenMP, BLAS and numba may use in it.

    Raises:
        RuntimeError: It failed; the message ends with what it wrote to stderr.
    """
    environment = dict(os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(num_threads)))
    result: dict[str, float] = json.loads(
        output_of([sys.executable, "-m", module, *arguments], environment).splitlines()[-1]
    )
    return result


def output_of(command: Sequence[str], environment: Mapping[str, str]) -> str:
    """What a command writes to stdout.

    Raises:
        RuntimeError: It failed; the message ends with what it wrote to stderr.
    """
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} exited {done.returncode}:\n{done.stderr[-4_000:]}")
    return done.stdout


class PeakMemory:
    """Peak memory of this process, once the block has ended.

    Attributes:
        rss_mb: Peak resident memory since the program started, mapped files included, in 10^6 B.
        anonymous_mb: Peak of the samples of memory that no file backs, in 10^6 B.
    """

    rss_mb: float
    anonymous_mb: float = 0.0

    def __enter__(self) -> "PeakMemory":
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()
        self.rss_mb = status_mb("VmHWM")

    def _sample(self) -> None:
        while True:
            self.anonymous_mb = max(self.anonymous_mb, status_mb("RssAnon"))
            if self._ended.wait(_SAMPLE_SECONDS):
                return


def status_mb(field: str, process: int | str = "self") -> float:
    """A field of memory of a process as the system tells it, in 10^6 bytes.

    Raises:
        OSError: The process has ended, or this is no Linux.
    """
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        name, value = line.split(":", 1)
        if name == field:
            return int(value.split()[0]) * 1_024 / 1e6
    raise OSError(f"expected a line {field} in /proc/{process}/status; run this on Linux")

"""What a command is at, on stderr: a line that changes on a terminal, elsewhere one now and then.

Whatever takes a while is a `Step`, opened anywhere below the command; what is shown is the
innermost that is open, behind the outermost. Nothing is shown where nobody asked by `display`.
"""

import os
import resource
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

# Before anything is shown, between changes of the line on a terminal, and between lines elsewhere.
DELAY_S, CHANGE_S, LINE_S = 2.0, 0.5, 30.0
_COMPILING = "compiling, first run only"
_UNITS = ((1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "kB"))
_STATM = Path("/proc/self/statm")
Counted = TypeVar("Counted")


@dataclass(eq=False)
class Step:
    """A part of a command that takes a while.

    Attributes:
        label: What is done, as "reading pairs.csv".
        total: How many units there are; None where nobody knows.
        unit: What is counted, in the plural; "bytes" are shown as such.
        done: Units done since it began.
        note: More to show, as "loss 0.71".
        began: When, in seconds of the monotonic clock.
    """

    label: str
    total: int | None = None
    unit: str = ""
    done: int = 0
    note: str = ""
    began: float = field(default_factory=time.monotonic)

    def advance(self, by: int = 1) -> None:
        """Count more units as done."""
        self.done += by

    def count(self) -> str:
        """Label and count."""
        if self.total is None and not self.done:
            return self.label
        of = "" if self.total is None else f" of {_amount(self.total, self.unit)}"
        unit = f" {self.unit}" if self.unit and self.unit != "bytes" else ""
        return f"{self.label} {_amount(self.done, self.unit)}{of}{unit}"

    def words(self, now: float) -> str:
        """Label, count, rate, time left and note.

        Args:
            now: The time.
        """
        seconds, parts = max(now - self.began, 1e-9), [self.count()]
        if self.done:
            rate = self.done / seconds
            if rate >= 1:
                parts.append(f"{_amount(round(rate), self.unit)}/s")
            if self.total is not None and self.total > self.done:
                parts.append(f"{duration((self.total - self.done) / rate)} left")
        else:
            parts.append(duration(seconds))
        if self.note:
            parts.append(self.note)
        return ", ".join(parts)


class Display:
    """Shows the innermost open step from a thread of its own."""

    def __init__(self, title: str, verbose: bool) -> None:
        """Name what is shown.

        Args:
            title: The command.
            verbose: Whether steps are listed as they end.
        """
        self.title, self.verbose = title, verbose
        self._began, self._has_begun = time.monotonic(), False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._show, name="progress", daemon=True)

    def begin(self) -> None:
        """Start to show."""
        self._thread.start()

    def end(self) -> None:
        """Leave the terminal as it was."""
        self._ended.set()
        self._thread.join()

    def ended(self, step: Step) -> None:
        """A step has ended."""
        self._has_begun = True
        if self.verbose:
            seconds = time.monotonic() - step.began
            say(f"{self.title}: {step.count()} in {seconds:.1f} s{_memory()}")

    def line(self) -> str:
        """What the command is at."""
        now, steps = time.monotonic(), tuple(_open)
        beside = "working" if self._has_begun else "starting"
        at = [one.words(now) for one in steps[-1:]] or [f"{beside}, {duration(now - self._began)}"]
        if len(steps) > 1:
            at.insert(0, steps[0].count())
        if compiling := tuple(_compilations):
            at[-1] = f"{_COMPILING}, {duration(now - compiling[0])}"
        return f"{self.title}: {'; '.join(at)}{_memory()}"

    def _show(self) -> None:
        if self._ended.wait(DELAY_S):
            return
        _watch_compiler()
        if is_terminal():
            # A terminal that does not know its size would be shown nothing.
            from tqdm import tqdm

            known = os.get_terminal_size(sys.stderr.fileno()).columns > 0
            size = {"dynamic_ncols": True} if known else {"ncols": 80, "nrows": 24}
            with tqdm(bar_format="{desc}", leave=False, disable=False, **size) as bar:
                while True:
                    bar.set_description_str(self.line())
                    if self._ended.wait(CHANGE_S):
                        return
                    _watch_compiler()
        while not self._ended.wait(LINE_S):
            say(self.line())


_open: list[Step] = []
_compilations: list[float] = []
_displayed: Display | None = None
_is_watched = False


@contextmanager
def display(title: str, verbose: bool = False) -> Iterator[None]:
    """Show what is done inside the block; inside another such block, as a part of that one.

    Args:
        title: The command.
        verbose: Whether steps are listed as they end, with their seconds.
    """
    global _displayed
    if _displayed is not None:
        yield
        return
    _displayed = Display(title, verbose)
    _displayed.begin()
    try:
        yield
    finally:
        _displayed.end()
        _displayed = None


@contextmanager
def step(label: str, total: int | None = None, unit: str = "") -> Iterator[Step]:
    """A part of a command that takes a while, for as long as the block runs.

    Args:
        label: What is done, as "reading pairs.csv".
        total: How many units there are; None where nobody knows.
        unit: What is counted, in the plural; "bytes" are shown as such.
    """
    begun = Step(label, total, unit)
    _open.append(begun)
    try:
        yield begun
    finally:
        _open.remove(begun)
        if _displayed is not None:
            _displayed.ended(begun)


def each(items: Iterable[Counted], label: str, total: int | None, unit: str) -> Iterator[Counted]:
    """Yield items, as a step that counts them as they are asked for.

    Args:
        items: The items.
        label: What is done.
        total: How many there are; None where nobody knows.
        unit: What they are, in the plural.
    """
    with step(label, total, unit) as counted:
        for item in items:
            yield item
            counted.advance()


def say(text: str) -> None:
    """Write a line to stderr, above the one that changes."""
    from tqdm import tqdm

    tqdm.write(text, file=sys.stderr)


def is_terminal() -> bool:
    """Whether stderr is a terminal that can change a line."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def peak_memory() -> int:
    """The most memory that this process has held so far, in bytes."""
    # Linux counts in units of 1,024 bytes, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1_024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def duration(seconds: float) -> str:
    """Seconds in the unit that a person would take."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7_200 else f"{seconds / 3_600:.1f} h"


def _amount(number: int, unit: str) -> str:
    if unit == "bytes":
        for size, name in _UNITS:
            if number >= size:
                return f"{number / size:.1f} {name}"
    return f"{number:,}"


def _memory() -> str:
    """Memory that this process holds; nothing where the machine does not tell."""
    try:
        pages = int(_STATM.read_text().split()[1])
    except OSError:
        return ""
    return f", {_amount(pages * os.sysconf('SC_PAGE_SIZE'), 'bytes')}"


def _watch_compiler() -> None:
    """Have Numba tell when it compiles, which takes seconds and is kept for later runs."""
    global _is_watched
    # An import would wait for that of another thread, and nothing would be shown meanwhile.
    event: Any = sys.modules.get("numba.core.event")
    if _is_watched or not hasattr(event, "register"):
        return

    class Compilations(event.Listener):  # type: ignore[misc]
        def on_start(self, _: object) -> None:
            _compilations.append(time.monotonic())

        def on_end(self, _: object) -> None:
            # What began before anybody watched ends too.
            if _compilations:
                _compilations.pop()

    event.register("numba:compile", Compilations())
    _is_watched = True

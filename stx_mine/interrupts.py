"""Signals that end the program: in order where that is quick, and at once where it is not.

The first SIGINT, SIGTERM or SIGHUP raises `Interrupted` in the main thread, which lets go of locks,
processes and temporary files on its way out. A thread watches: where the main thread is not
through after a second, since it is deep in a library, or where a second signal comes, the thread
ends the processes and the program. Either way nothing is lost: what has its final name is whole.
"""

import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
_PATIENCE_S = 1.0
# What shells add to the number of the signal that ended a program.
_EXIT_CODE = 128


class Interrupted(KeyboardInterrupt):
    """A signal asks the program to end."""


class Watch:
    """Watches for signals, from `begin` on.

    Attributes:
        number: Of the signal that came first; 0 before one does.
        words: What is said of it: its name -> one line. May be changed at any time.
    """

    def __init__(self, words: Callable[[str], str]) -> None:
        self.number, self.words = 0, words
        self._is_said = threading.Lock()
        self._before: dict[int, Any] = {}
        self._fd_before = self._reader = self._writer = -1

    @property
    def exit_code(self) -> int:
        """What the program ends with after the signal."""
        return _EXIT_CODE + self.number

    def begin(self) -> None:
        """Take over the signals, but for those that whoever started the program has ignored."""
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._fd_before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._raise)
        os.register_at_fork(after_in_child=self._forget)
        threading.Thread(target=self._wait, name="signals", daemon=True).start()

    def end(self) -> None:
        """Give the signals back, unless one came: then the program has a second to end."""
        if self.number or self._writer < 0:
            return
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._fd_before)
        os.close(self._writer)
        self._writer = -1

    def say(self) -> None:
        """Say what the signal means, once."""
        if self._is_said.acquire(blocking=False):
            name = signal.Signals(self.number).name
            # Not through sys.stderr, which the main thread may hold. A terminal may be gone.
            with suppress(OSError):
                os.write(2, f"stx-mine: {self.words(name)}\n".encode())

    def leave(self) -> NoReturn:
        """End the program now: what Python clears away at its end may take seconds."""
        self.say()
        _end_processes()
        os._exit(self.exit_code)

    def _raise(self, number: int, frame: FrameType | None) -> None:
        if not self.number:
            self.number = number
            # What other threads and callbacks of libraries meet while the program ends is no news.
            sys.unraisablehook, threading.excepthook = _ignore, _ignore
            raise Interrupted

    def _wait(self) -> None:
        """End the program a second after the first signal, or at the second one."""
        reader = self._reader
        while number := next(iter(os.read(reader, 1)), 0):
            if number in self._before:
                # What the main thread does not get to do.
                select.select([reader], [], [], _PATIENCE_S)
                self.number = self.number or number
                self.leave()
        os.close(reader)

    def _forget(self) -> None:
        """In a process that was forked: its signals are its own."""
        if self._writer >= 0:
            signal.set_wakeup_fd(-1)
            for number in self._before:
                signal.signal(number, signal.SIG_DFL)


def is_signal(error: BaseException) -> bool:
    """Whether an error is a signal's, and not one that some code raised by itself."""
    if _watch is None:
        return isinstance(error, KeyboardInterrupt)
    return isinstance(error, Interrupted)


@contextmanager
def watched(words: Callable[[str], str]) -> Iterator[Watch]:
    """Watch for signals inside the block; where that is done already, with these words.

    Args:
        words: What is said of a signal: its name -> one line.
    """
    global _watch
    if _watch is not None or threading.current_thread() is not threading.main_thread():
        watch = _watch or Watch(words)
        watch.words = words
        yield watch
        return
    _watch = Watch(words)
    _watch.begin()
    try:
        yield _watch
    finally:
        _watch.end()
        _watch = None


_watch: Watch | None = None


def _ignore(_: object) -> None:
    """Takes an error that nobody is to see."""


def _end_processes() -> None:
    """Kill the processes that Python started here; those of Ray end with this one."""
    library = sys.modules.get("multiprocessing")
    for process in library.active_children() if library else ():
        process.kill()

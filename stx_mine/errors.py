"""Exceptions that tell a user what was expected, what was found and what to do.

Every message is one line, but for the list of a `ViolationError`. The CLI prints it to stderr and
leaves with `exit_code`.
"""

import errno
import re
from collections.abc import Iterable
from difflib import get_close_matches

from stx_mine.masking import escaped, masked

# What errors of torch say where memory or a device is wanting, and not a program at fault.
_OF_A_DEVICE = re.compile(
    "out of memory|not enough memory|can't allocate memory|cuda error|nvidia driver|cublas|cudnn"
    "|nccl|hip error|start new thread",
    re.IGNORECASE,
)
_MOST_SHOWN = 120
# What libraries in Rust say where a file cannot be written: it is of no class of its own.
_OF_RUST = re.compile(r"\(os error (\d+)\)")
_FREE_DISK = "free some, then run the same command again: finished files stay"
_WAYS_OUT = {
    errno.ENOSPC: _FREE_DISK,
    errno.EDQUOT: _FREE_DISK,
    errno.EFBIG: "raise the limit (`ulimit -f`), then run the same command again",
    errno.EMFILE: "raise the limit (`ulimit -n`), then run the same command again",
    errno.ENFILE: "raise the limit (`ulimit -n`), then run the same command again",
    errno.EROFS: "give a path on a disk that can be written, as with --run-dir",
    errno.EACCES: "fix its permissions, or give another path",
    errno.EPERM: "fix its permissions, or give another path",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "give a path of which no part is a file",
    errno.EISDIR: "give a file",
}


class StxMineError(Exception):
    """A mistake that the user can fix; the base of all exceptions of this package."""

    exit_code = 2

    def __str__(self) -> str:
        """The message: one line, without credentials."""
        return escaped(masked(super().__str__()))


class ConfigError(StxMineError):
    """A setting is out of range, misspelt or contradicts another one."""


class InputError(StxMineError):
    """An input file is missing, empty, or holds something else than was expected."""


class ModelError(StxMineError):
    """A model cannot be found or loaded."""


class ArtifactError(StxMineError):
    """An artifact of the run directory is missing, stale, or planned with other settings."""


class DamagedError(ArtifactError):
    """A file of an artifact is not as it was written."""


class TrainingError(StxMineError):
    """A training made its model worse, or no model at all; nothing was published."""


class LockedError(StxMineError):
    """Another command is at work in the same run directory."""


class TaskError(StxMineError):
    """A task failed again and again; files of others stay."""


class MachineError(StxMineError):
    """The disk, the memory, a device or a permission was in the way; what is finished stays."""


class TaskShardsLeftError(StxMineError):
    """No mistake: the share of this call is done, the tasks of others are not."""

    exit_code = 0


class ViolationError(StxMineError):
    """`verify` found batches that break an invariant."""

    exit_code = 1

    def __str__(self) -> str:
        """The message: a line for each violation, without credentials."""
        return "\n".join(escaped(masked(line)) for line in str(self.args[0]).split("\n"))


def one_line(error: BaseException | str) -> str:
    """The message of an error of a library, without line breaks; what nests too deep says so."""
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    return " ".join(str(error).split())


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The known word that is most like one, as a question in brackets; empty where none is."""
    close = get_close_matches(word, list(known), 1)
    return f" (did you mean {close[0]}?)" if close else ""


def shortened(value: object) -> str:
    """What was found, as Python writes it, not longer than a message bears."""
    whole = repr(value)
    return whole if len(whole) <= _MOST_SHOWN else f"{whole[:_MOST_SHOWN]} ..."


def of_the_machine(error: BaseException) -> MachineError | None:
    """An error that the program is not at fault for, in words for a person.

    Args:
        error: Of Python, or of a library.

    Returns:
        What to raise instead; None where it may be a mistake of the program.
    """
    if found := _OF_RUST.search(str(error)):
        error = OSError(int(found[1]), one_line(error))
    if isinstance(error, OSError):
        names = [str(name) for name in (error.filename, error.filename2) if name is not None]
        reason = (error.strerror or one_line(error))[:300] or type(error).__name__
        where = f"cannot read or write {' or '.join(names)}" if names else type(error).__name__
        way_out = _WAYS_OUT.get(error.errno or 0, "mend that, then run the same command again")
        return MachineError(f"{where} ({reason}); {way_out}")
    is_of_a_device = isinstance(error, RuntimeError) and _OF_A_DEVICE.search(str(error))
    if isinstance(error, MemoryError) or is_of_a_device:
        return MachineError(
            f"memory or a device failed ({one_line(error)[:300] or type(error).__name__}); free "
            "it, or give smaller blocks or batches, then run the same command again: finished "
            "files stay"
        )
    return None

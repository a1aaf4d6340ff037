"""Exceptions that tell a user what was expected, what was found and what to do.

Every message is one line, but for the list of a `ViolationError`. The CLI prints it to stderr and
leaves with `exit_code`.
"""

from stx_mine.masking import escaped, masked


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


class TaskShardsLeftError(StxMineError):
    """No mistake: the share of this call is done, the tasks of others are not."""

    exit_code = 0


class ViolationError(StxMineError):
    """`verify` found batches that break an invariant."""

    exit_code = 1

    def __str__(self) -> str:
        """The message: a line for each violation, without credentials."""
        return "\n".join(escaped(masked(line)) for line in str(self.args[0]).split("\n"))


def one_line(error: BaseException) -> str:
    """The message of an error of a library, without line breaks."""
    return " ".join(str(error).split())

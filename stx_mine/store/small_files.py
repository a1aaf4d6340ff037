"""Small files of a person or a stranger: plain files only, and bounded; what lies there else."""

import stat
from pathlib import Path

_KINDS = (
    (stat.S_ISREG, "a file"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def found_at(path: Path) -> str:
    """What lies at a path, behind links; in words where it cannot be looked at."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return "a link to nothing" if path.is_symlink() else "nothing"
    except OSError as error:
        # No part of a path may be a file; links may go round.
        return f"nothing ({error.strerror})"
    return next((words for test, words in _KINDS if test(mode)), "something else")


def read_small(path: Path, most_bytes: int) -> str:
    """The text of a small file.

    Raises:
        OSError: It cannot be read, or is no plain file: reading that may never end.
        ValueError: It is larger, or no UTF-8.
    """
    if (found := found_at(path)) != "a file":
        raise OSError(f"found {found}")
    with path.open("rb") as handle:
        content = handle.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise ValueError(f"it is longer than {most_bytes:,} bytes")
    return content.decode()

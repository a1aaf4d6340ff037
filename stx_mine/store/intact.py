"""Whether files are as they were written: there, of their size, and with their checksum.

Sizes are looked at whenever a file is opened. A checksum is computed once on a machine, and again
where that is asked for, or where the file was touched since.
"""

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from stat import S_ISREG
from typing import Any, NamedTuple

from stx_mine import progress
from stx_mine.store.checked import CheckedFiles
from stx_mine.store.files import checksum

# Reading waits for disks; hashing lets other threads run.
_AT_ONCE = 4


class Damage(NamedTuple):
    """A file that is not as it was written.

    Attributes:
        file: Its path below the folder.
        problem: What was expected, and what was found.
    """

    file: str
    problem: str


def size_problem(path: Path, num_bytes: int) -> str:
    """What is wrong with the size of a file, or with its being one; empty where nothing is."""
    expected = f"expected {num_bytes:,} bytes, found "
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return f"{expected}no such file"
    except OSError as error:
        return f"{expected}what cannot be opened ({error.strerror})"
    if not S_ISREG(status.st_mode):
        return f"{expected}something else than a file"
    return "" if status.st_size == num_bytes else f"{expected}{status.st_size:,}"


def file_entry(folder: Path, name: str) -> dict[str, Any]:
    """What a manifest says of a file: its path below the folder, bytes and checksum."""
    path = folder / name
    return {"file": name, "bytes": path.stat().st_size, "xxh3_128": checksum(path)}


def find_damage(folder: Path, entries: Iterable[dict[str, Any]], full: bool) -> list[Damage]:
    """The files of a folder that are not as they were written, in the order of the entries.

    Args:
        folder: The folder.
        entries: `file`, `bytes` and `xxh3_128` of each, as a manifest lists them.
        full: Compute every checksum; else those that this machine has not found right before.
    """
    found, left = dict[str, str](), list[dict[str, Any]]()
    known = CheckedFiles(folder)
    for one in entries:
        path = folder / one["file"]
        if problem := size_problem(path, one["bytes"]):
            found[one["file"]] = problem
        elif full or not known.holds(one["file"], path.stat(), one["xxh3_128"]):
            left.append(one)
    if left:
        total = sum(one["bytes"] for one in left)
        label = f"checksums of {folder.name}/"
        with (
            ThreadPoolExecutor(_AT_ONCE) as threads,
            progress.step(label, total, "bytes") as counted,
        ):
            problems = threads.map(partial(_checksum_problem, folder, known), left)
            for one, problem in zip(left, problems, strict=True):
                counted.advance(one["bytes"])
                if problem:
                    found[one["file"]] = problem
        known.write()
    return [Damage(name, problem) for name, problem in found.items()]


def remember(folder: Path, entries: Iterable[dict[str, Any]]) -> None:
    """Take down files whose checksums have just been computed, so that no command does it again."""
    known = CheckedFiles(folder)
    for one in entries:
        known.add(one["file"], (folder / one["file"]).stat(), one["xxh3_128"])
    known.write()


def _checksum_problem(folder: Path, known: CheckedFiles, entry: dict[str, Any]) -> str:
    path, expected = folder / entry["file"], entry["xxh3_128"]
    try:
        before = path.stat()
        found = checksum(path)
    except OSError as error:
        return f"expected the checksum {expected}, found what cannot be read ({error.strerror})"
    if found != expected:
        return f"expected the checksum {expected}, found {found}"
    if _touched(before, path.stat()):
        return "expected a file at rest, found one that was written to meanwhile"
    known.add(entry["file"], before, expected)
    return ""


def _touched(before: os.stat_result, after: os.stat_result) -> bool:
    return (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns)

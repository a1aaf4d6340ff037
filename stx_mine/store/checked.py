"""Which files of a folder were found whole on this machine, so that no command reads them twice.

What is known of a folder stands in one small file of the user's cache, never in the folder: a copy
on another machine, or at another place, is checked anew. A file that was touched since is too.
"""

import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import xxhash

_FOLDER, _MOST_FOLDERS = "STX_MINE_CACHE", 2_000
# Within this time a second change may leave all times of a file as they are.
_YOUNG_NS = 50_000_000


class CheckedFiles:
    """The files of one folder that were found whole."""

    def __init__(self, folder: Path) -> None:
        """Read what is known of a folder; nothing where that cannot be read."""
        self._folder = str(folder.resolve())
        name = xxhash.xxh3_128_hexdigest(self._folder.encode(errors="surrogateescape"))
        cache = _cache()
        # Where a user has no home, nothing is remembered.
        self._path = cache / "checked" / f"{name}.json" if cache else None
        self._known: dict[str, Any] = _read(self._path, self._folder) if self._path else {}
        self._is_new = False

    def holds(self, name: str, status: os.stat_result, expected: str) -> bool:
        """Whether a file had this checksum, and was not touched since."""
        return bool(self._known.get(name) == _state(status, expected))

    def add(self, name: str, status: os.stat_result, expected: str) -> None:
        """Remember a file that has its checksum, unless it is too young to tell a later change."""
        state, youngest = _state(status, expected), time.time_ns() - _YOUNG_NS
        if self._known.get(name) != state and status.st_ctime_ns < youngest:
            self._known[name], self._is_new = state, True

    def write(self) -> None:
        """Leave what is known for later commands; where that is not possible, they check again."""
        if not self._is_new or self._path is None:
            return
        own = self._path.with_name(f"{uuid4().hex}.new")
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            own.write_text(json.dumps({"folder": self._folder, "files": self._known}), "utf-8")
            own.replace(self._path)
            self._is_new = False
            _keep_latest(self._path.parent)


def _cache() -> Path | None:
    """The folder of what this machine remembers; None where there is no place for it."""
    if named := os.environ.get(_FOLDER):
        return Path(named)
    if home := os.environ.get("XDG_CACHE_HOME"):
        return Path(home) / "stx-mine"
    try:
        return Path.home() / ".cache" / "stx-mine"
    except RuntimeError:
        return None


def _state(status: os.stat_result, expected: str) -> list[Any]:
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, expected]


def _read(path: Path, folder: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(content, dict) or content.get("folder") != folder:
        return {}
    files = content.get("files")
    return files if isinstance(files, dict) else {}


def _keep_latest(folder: Path) -> None:
    """Forget what was written first where it has become much; it is only checked again."""
    paths = list(folder.iterdir())
    if len(paths) > _MOST_FOLDERS:
        by_age = sorted(paths, key=lambda path: path.stat().st_mtime_ns)
        for path in by_age[: len(paths) // 2]:
            path.unlink(missing_ok=True)

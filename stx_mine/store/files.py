"""Atomic files: what has its final name is whole."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from stx_mine.errors import ArtifactError, one_line
from stx_mine.store.small_files import found_at

_CHUNK_BYTES = 1 << 22
# What libraries say, in errors of their own, where the disk is at fault.
_NOT_WRITTEN = re.compile(
    "no space left|input/output error|read-only file system|quota|write error|PytorchStreamWriter"
    "|unexpected pos|could not open|iostream error",
    re.IGNORECASE,
)


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Give a temporary path; sync it and rename it to `path` if the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    yield temporary
    with temporary.open("rb") as handle:
        os.fsync(handle.fileno())
    temporary.replace(path)
    sync_directory(path.parent)


@contextmanager
def written_by_library(path: Path, *kinds: type[Exception]) -> Iterator[None]:
    """Say it where a library cannot write, which raises errors of its own then.

    Args:
        path: The file or folder that it writes.
        kinds: What it raises besides RuntimeError.

    Raises:
        ArtifactError: It cannot.
    """
    theirs: tuple[type[Exception], ...] = (RuntimeError, *kinds)
    try:
        yield
    except theirs as error:
        if not _NOT_WRITTEN.search(str(error)):
            raise
        raise ArtifactError(
            f"cannot write {path} ({one_line(error)}); see to the disk, then run the same command "
            "again: finished files stay"
        ) from error


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file atomically, keys in the given order."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")


def read_json(path: Path, cure: str = "") -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: The file.
        cure: What the error tells to do.

    Raises:
        ArtifactError: The file is no JSON object.
    """
    cure = cure or (
        f"if {path.parent} is a folder of stx-mine, delete it and run its command again"
    )
    try:
        if path.exists() and (found := found_at(path)) != "a file":
            raise ValueError(found)
        content = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ArtifactError(
            f"expected JSON in {path}, found something else ({one_line(error)}); {cure}"
        ) from error
    if not isinstance(content, dict):
        raise ArtifactError(
            f"expected a JSON object in {path}, found {type(content).__name__}; {cure}"
        )
    return content


def json_or_empty(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is none, or none that can be read."""
    try:
        return read_json(path)
    except (OSError, ArtifactError):
        return {}


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write a NumPy array atomically, without pickle."""
    with atomic(path) as temporary, temporary.open("wb") as handle:
        np.save(handle, array, allow_pickle=False)


def read_array(path: Path) -> NDArray[Any]:
    """Map a NumPy array into memory, read-only."""
    array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


@dataclass(frozen=True)
class StoredArray:
    """A NumPy file, mapped only while some of its rows are held.

    A map that stays counts as resident memory, page by page, as far as it was ever read.

    Attributes:
        path: The file.
        shape: Of the array.
    """

    path: Path
    shape: tuple[int, ...]

    @classmethod
    def open(cls, path: Path) -> "StoredArray":
        """Read the header of a NumPy file."""
        return cls(path, read_array(path).shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | NDArray[np.integer[Any]]) -> NDArray[Any]:
        """Some rows, read-only; mapped for as long as they are held."""
        return read_array(self.path)[rows]


def write_table(path: Path, table: pa.Table) -> None:
    """Write an Arrow IPC file atomically, uncompressed so that it maps into memory."""
    with atomic(path) as temporary, pa.OSFile(str(temporary), "wb") as sink:
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)


def read_table(path: Path) -> pa.Table:
    """Map an Arrow IPC file into memory; its columns are read when they are used."""
    with pa.memory_map(str(path), "rb") as source:
        return pa.ipc.open_file(source).read_all()


def checksum(path: Path) -> str:
    """The xxh3-128 digest of a file's bytes, in hex."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as handle:
        while block := handle.read(_CHUNK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def add_directory(staging: Path, target: Path) -> None:
    """Give a finished folder its final name, unless another process was faster with the same."""
    try:
        staging.replace(target)
    except OSError:
        # A folder that holds files is not replaced.
        if not target.is_dir():
            raise
        shutil.rmtree(staging)
    sync_directory(target.parent)


def sync_directory(directory: Path) -> None:
    """Have the names of a directory on disk."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

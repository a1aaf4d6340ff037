"""A cache of vectors by content, shared by runs: a text that was embedded once is read back.

    DIR/SPACE/space.json            what decides the vectors: model, prompts, length, precision
    DIR/SPACE/segment-DIGEST/       keys.npy (16 bytes each, rising) and vectors.npy, row by row;
                                    files.json: size and checksum of both

A space holds vectors that may stand for one another; a key is the digest of role, prompt and text.
Segments are only ever added, each whole under its final name or not there, so that any number of
runs may read and write at once: at worst two of them embed the same text. A segment that is not as
it was written is removed when the space is opened, and its texts are embedded anew.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from stx_mine.errors import ArtifactError
from stx_mine.store.artifact import digest_of
from stx_mine.store.files import (
    StoredArray,
    add_directory,
    json_or_empty,
    read_json,
    write_array,
    write_json,
)
from stx_mine.store.intact import file_entry, find_damage

_SPACE, _KEYS, _VECTORS, _SEGMENT = "space.json", "keys.npy", "vectors.npy", "segment-"
_FILES = "files.json"
# What is being written, until it has its final name.
_ADDING = "adding-"


def spaces_of(directory: str | Path) -> list[dict[str, Any]]:
    """What decides the vectors of each space of a cache; none of those that cannot be read."""
    return [json_or_empty(one) for one in sorted(Path(directory).glob(f"*/{_SPACE}"))]


@dataclass(frozen=True)
class VectorCache:
    """The segments that were there when it was opened.

    Attributes:
        folder: Of the space.
        prefixes: uint64 (keys,) rising: the first half of every key of every segment.
        segments: int32 (keys,) number of the segment that has it.
        rows: int32 (keys,) its row there.
        keys: The keys of each segment, uint64 (rows, 2).
        vectors: The vectors of each segment, (rows, dim).
        num_damaged: Segments that were damaged, and removed.
    """

    folder: Path
    prefixes: NDArray[np.uint64]
    segments: NDArray[np.int32]
    rows: NDArray[np.int32]
    keys: tuple[StoredArray, ...]
    vectors: tuple[StoredArray, ...]
    num_damaged: int = 0

    @classmethod
    def open(cls, directory: str | Path, space: dict[str, Any]) -> "VectorCache":
        """Open one space of a cache, or make it.

        Args:
            directory: The cache.
            space: All that decides a vector, but for role, prompt and text; JSON-ready.

        Raises:
            ArtifactError: The directory cannot be written.
        """
        folder = Path(directory) / digest_of(space)
        try:
            if not (folder / _SPACE).exists():
                folder.mkdir(parents=True, exist_ok=True)
                # Others may open it at the same time.
                with _staged(folder) as staging:
                    write_json(staging / _SPACE, space)
                    (staging / _SPACE).replace(folder / _SPACE)
                    staging.rmdir()
            _clear_dead(folder)
        except OSError as error:
            raise ArtifactError(
                f"cannot write to the embedding cache {directory} ({error.strerror}); give another "
                "--embedding-cache or fix its permissions"
            ) from error
        segments = [_open_segment(one) for one in sorted(folder.glob(f"{_SEGMENT}*"))]
        found = [one for one in segments if one is not None]
        num_damaged = len(segments) - len(found)
        keys, vectors = (tuple(one[part] for one in found) for part in (0, 1))
        prefixes = [np.array(key[:][:, 0]) for key in keys]
        sizes = [len(prefix) for prefix in prefixes]
        joined = np.concatenate([np.empty(0, np.uint64), *prefixes])
        order = np.argsort(joined, kind="stable")
        numbers = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
        rows = np.concatenate(
            [np.empty(0, np.int32), *(np.arange(n, dtype=np.int32) for n in sizes)]
        )
        of_keys = joined[order], numbers[order], rows[order]
        return cls(folder, *of_keys, keys, vectors, num_damaged)

    def __len__(self) -> int:
        return len(self.prefixes)

    def find(
        self, keys_N2: NDArray[np.uint64], dim: int
    ) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """Look keys up.

        Args:
            keys_N2: uint64 (N, 2), of `text_keys`.
            dim: Dimensions of a vector.

        Returns:
            Bool (N,) which of them are here, and the vectors of those, float32 (found, dim).
        """
        places = np.searchsorted(self.prefixes, keys_N2[:, 0])
        places = np.minimum(places, max(0, len(self) - 1))
        there = np.zeros(len(keys_N2), bool)
        if len(self):
            there = self.prefixes[places] == keys_N2[:, 0]
        vectors = np.empty((len(keys_N2), dim), np.float32)
        for number in np.unique(self.segments[places[there]]):
            here = np.flatnonzero(there)
            here = here[self.segments[places[here]] == number]
            rows = self.rows[places[here]]
            # Two texts may share half a key; the second is embedded again, which costs time only.
            same = (self.keys[number][rows] == keys_N2[here]).all(axis=1)
            there[here[~same]] = False
            vectors[here[same]] = self.vectors[number][rows[same]]
        return there, vectors[there]

    def add(self, keys_N2: NDArray[np.uint64], vectors: NDArray[Any]) -> None:
        """Publish a segment; whoever opens the cache from now on finds it.

        Args:
            keys_N2: uint64 (N, 2), of `text_keys`; distinct.
            vectors: (N, dim), float16 or float32, aligned.
        """
        if not len(keys_N2):
            return
        order = np.lexsort((keys_N2[:, 1], keys_N2[:, 0]))
        name = _SEGMENT + xxhash.xxh3_128_hexdigest(keys_N2[order].tobytes())
        with _staged(self.folder) as staging:
            write_array(staging / _KEYS, keys_N2[order])
            write_array(staging / _VECTORS, vectors[order])
            entries = [file_entry(staging, one) for one in (_KEYS, _VECTORS)]
            write_json(staging / _FILES, {"files": entries})
            add_directory(staging, self.folder / name)


def text_keys(texts: pa.ChunkedArray, role: str, prompt: str | None) -> NDArray[np.uint64]:
    """uint64 (N, 2): the xxh3-128 digest of role, prompt and text.

    The text as it is embedded counts, not its normalised form; no prompt, None, is another one
    than an empty one.
    """
    before = xxhash.xxh3_128(json.dumps([role, prompt]).encode() + b"\0")
    raw = []
    for text in texts.cast(pa.large_binary()).to_pylist():
        digest = before.copy()
        digest.update(text)
        raw.append(digest.digest())
    return np.frombuffer(b"".join(raw), ">u8").astype(np.uint64).reshape(-1, 2)


@contextmanager
def _held(folder: Path, operation: int) -> Iterator[bool]:
    """Lock a folder for as long as the block, or the process, lives; whether that was possible."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, operation)
            is_held = True
        except OSError:
            is_held = False
        yield is_held
    finally:
        os.close(descriptor)


@contextmanager
def _staged(folder: Path) -> Iterator[Path]:
    """A folder of a space to write in, held until the block ends.

    Where a file system knows no locks, what a killed run leaves stays there, unread.
    """
    staging = folder / f"{_ADDING}{uuid4().hex}"
    with ExitStack() as held:
        # Nobody clears what is there and not held yet.
        with _held(folder, fcntl.LOCK_SH):
            staging.mkdir()
            held.enter_context(_held(staging, fcntl.LOCK_EX))
        yield staging


def _clear_dead(folder: Path) -> None:
    """Remove what killed runs were writing; living ones hold theirs."""
    with _held(folder, fcntl.LOCK_EX | fcntl.LOCK_NB) as is_alone:
        for path in folder.glob(f"{_ADDING}*") if is_alone else ():
            with suppress(FileNotFoundError), _held(path, fcntl.LOCK_EX | fcntl.LOCK_NB) as is_dead:
                if is_dead:
                    shutil.rmtree(path, ignore_errors=True)


def _open_segment(folder: Path) -> tuple[StoredArray, StoredArray] | None:
    """The keys and the vectors of a segment; None where it was damaged, and is removed."""
    try:
        entries = read_json(folder / _FILES)["files"]
        is_whole = [one["file"] for one in entries] == [_KEYS, _VECTORS]
        if is_whole and not find_damage(folder, entries, full=False):
            keys, vectors = (StoredArray.open(folder / name) for name in (_KEYS, _VECTORS))
            if len(keys) == len(vectors):
                return keys, vectors
    except (OSError, ValueError, LookupError, TypeError, ArtifactError):
        is_whole = False
    shutil.rmtree(folder, ignore_errors=True)
    return None

"""Embedding shards: NumPy files, read as one array in blocks."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from stx_mine.core.similarity import Similarity
from stx_mine.store.artifact import Manifest

_BLOCK = 16_384


def shard_names(role: str, num_texts: int, shard_size: int) -> list[str]:
    """File names of the shards of one role, in order."""
    count = max(1, -(-num_texts // shard_size))
    return [f"{role}-{i:05d}-of-{count:05d}.npy" for i in range(count)]


class VectorShard(Protocol):
    """A NumPy array, or something that gives its rows like one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(shard size, dim)."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> NDArray[Any]: ...


@dataclass(frozen=True)
class Vectors:
    """The stored vectors of one role.

    Attributes:
        shards: Arrays (shard size, dim); all but the last of equal length.
        similarity: How the model compares vectors.
    """

    shards: tuple[VectorShard, ...]
    similarity: Similarity

    def __post_init__(self) -> None:
        # A plain word, as manifests and people have it, will do.
        object.__setattr__(self, "similarity", Similarity(self.similarity))

    @classmethod
    def open(cls, manifest: Manifest, role: str) -> "Vectors":
        """Find the shards of a finished `embeddings/`; `role` is queries or passages.

        Raises:
            ArtifactError: One is damaged.
        """
        shards = tuple(manifest.stored_array(name) for name in manifest.names(role))
        return cls(shards, manifest.extra["contract"]["similarity"])

    def __len__(self) -> int:
        return sum(len(shard) for shard in self.shards)

    @property
    def dim(self) -> int:
        """Dimensions of a vector."""
        return int(self.shards[0].shape[1])

    def rows(self, start: int, stop: int) -> NDArray[np.float32]:
        """Copy of the half-open range of rows, float32, of unit length where cosine is used."""
        size = len(self.shards[0])
        block = np.empty((max(0, min(stop, len(self)) - start), self.dim), np.float32)
        for number in range(start // size, -(-stop // size)):
            first = number * size
            part = self.shards[number][max(start - first, 0) : stop - first]
            place = max(first - start, 0)
            block[place : place + len(part)] = part
        return self.similarity.prepare(block)

    def take(self, ids: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
        """Copy of the rows of the given ids, float32, of unit length where cosine is used."""
        size = len(self.shards[0])
        out = np.empty((len(ids), self.dim), np.float32)
        shard_ids = np.asarray(ids) // size
        for number in np.unique(shard_ids):
            here = np.flatnonzero(shard_ids == number)
            out[here] = self.shards[number][np.asarray(ids)[here] - number * size]
        return self.similarity.prepare(out)

    @cached_property
    def mean(self) -> NDArray[np.float32]:
        """float32 (dim,): the mean of all rows."""
        total = np.zeros(self.dim, np.float64)
        for _, block in self.blocks(_BLOCK):
            total += block.sum(axis=0, dtype=np.float64)
        return np.asarray(total / max(1, len(self)), np.float32)

    def blocks(self, size: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield (first id, rows) of consecutive blocks."""
        for start in range(0, len(self), size):
            yield start, self.rows(start, min(start + size, len(self)))

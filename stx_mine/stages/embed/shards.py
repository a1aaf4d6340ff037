"""Shards of vectors: which texts each holds, and how one is checked and written."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stx_mine.core.similarity import LONGEST, lengths, unit_rows
from stx_mine.engine.tasks import Worker
from stx_mine.errors import ConfigError, InputError
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.embed.counts import ShardCounts
from stx_mine.store.artifact import read_manifest
from stx_mine.store.files import write_array, write_json
from stx_mine.store.texts import TextStore
from stx_mine.store.vectors import shard_names


def shards_of(store: TextStore, size: int) -> dict[str, tuple[str, int]]:
    """Role (queries or passages) and first id of each shard, by its name."""
    numbers = {"queries": store.num_queries, "passages": store.num_passages}
    return {
        name: (role, number * size)
        for role, texts in numbers.items()
        for number, name in enumerate(shard_names(role, texts, size))
    }


@dataclass(frozen=True)
class VectorWriter(Worker):
    """Makes the vectors of a shard of texts.

    Attributes:
        config: The config; local paths in it are absolute.
        texts: Folder of the texts.
        folder: Folder of the shards.
    """

    config: EmbedConfig
    texts: Path
    folder: Path

    @cached_property
    def store(self) -> TextStore:
        """The texts."""
        return TextStore.open(read_manifest(self.texts))

    @cached_property
    def shards(self) -> dict[str, tuple[str, int]]:
        """Role and first id of each shard, by its name."""
        return shards_of(self.store, self.config.shard_size)

    @abstractmethod
    def contract(self) -> dict[str, Any]:
        """What decides the vectors, except for the prompts of sources; JSON-ready."""

    def check_dimensions(self, dim: int, of: str) -> None:
        """Check that vectors have dimensions, and enough to be truncated as asked.

        Raises:
            InputError: They have none.
            ConfigError: `truncate_dim` is larger.
        """
        if dim < 1:
            raise InputError(
                f"expected at least one dimension of {of}, found none; fix what makes them"
            )
        asked = self.config.truncate_dim
        if asked is not None and asked > dim:
            raise ConfigError(
                f"--truncate-dim must be at most the {dim} dimensions of {of}, found {asked}; "
                "give fewer, or leave it out"
            )

    def stored(
        self, vectors: NDArray[np.float32], named: Callable[[int], str], cure: str
    ) -> NDArray[Any]:
        """Vectors as they are stored.

        Args:
            vectors: float32 (rows, dim), of this shard.
            named: Row number -> what the error calls that row.
            cure: What the error tells to do about vectors that are not finite.

        Raises:
            InputError: A vector is not finite, or too long for its scores to be.
        """
        kept: NDArray[Any] = unit_rows(vectors) if self.config.normalize else vectors
        # What is too large for float16 becomes infinite, and is refused.
        with np.errstate(over="ignore"):
            kept = kept.astype(self.config.dtype)
        bad = np.flatnonzero(~np.isfinite(kept).all(axis=1))
        if len(bad):
            raise InputError(
                f"{named(int(bad[0]))} is not finite, and {len(bad)} in this shard; {cure}"
            )
        long = np.flatnonzero(lengths(kept) > LONGEST)
        if len(long):
            raise InputError(
                f"{named(int(long[0]))} is longer than {LONGEST:.0e}, and {len(long)} in this "
                f"shard: sums of its products leave float32; scale the vectors, or give "
                "--normalize"
            )
        return kept

    def write(self, name: str, vectors: NDArray[Any], counts: ShardCounts) -> None:
        """Write a shard and its counts."""
        zero = np.flatnonzero(~vectors.any(axis=1)) + self.shards[name][1]
        # First, so that a shard that is there has its counts.
        counts = replace(counts, zero_vectors=zero.tolist())
        write_json(ShardCounts.path(self.folder, name), asdict(counts))
        write_array(self.folder / name, vectors)

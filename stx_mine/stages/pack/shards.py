"""The packing task: gather the texts of a shard's batches and write it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stx_mine.engine.tasks import Worker
from stx_mine.stages.pack.builder import Packer
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.core.assign import Assignment
from stx_mine.stages.pack.packings import batches_of_shards
from stx_mine.stages.pack.shard_files import write_shard
from stx_mine.store.artifact import Manifest, require
from stx_mine.store.files import read_array, write_array
from stx_mine.store.groups import TextGroups
from stx_mine.store.negatives import with_judged
from stx_mine.store.run_dir import RunDir
from stx_mine.store.texts import TextStore

_ASSIGNMENT = "assignment-{}.npy"


@dataclass(frozen=True)
class ShardWriter(Worker):
    """Binds the negatives of a shard's batches, gathers their texts and writes them.

    Attributes:
        config: The config.
        k: Negatives a row.
        run: The run directory.
        folder: Folder of the batches, which holds the assignments too while they are written.
        key: Key of the artifact.
    """

    config: PackConfig
    k: int
    run: Path
    folder: Path
    key: str

    @cached_property
    def packer(self) -> Packer:
        """Builds batches; which rows may meet is settled by now."""
        run = RunDir(self.run)
        config = replace(self.config, cluster=None, order="random")
        negatives, embeddings = require(run, "negatives"), require(run, "embeddings")
        judgements = scores_of_judge(config, run)
        store = with_judged(TextStore.open(require(run, "texts")), negatives)
        groups = TextGroups.open(require(run, "groups"))
        return Packer.open(config, self.k, store, groups, negatives, embeddings, judgements)

    def using(self, packer: Packer) -> "ShardWriter":
        """Itself, with the packer that this process has opened already."""
        vars(self)["packer"] = packer
        return self

    @cached_property
    def shards(self) -> dict[str, tuple[int, NDArray[np.int64], int]]:
        """Path of each shard -> number of its packing, rows of its batches, its first batch."""
        none = np.empty(0, np.int64)
        files = sorted(self.folder.glob(_ASSIGNMENT.format("*")))
        packings = [Assignment(read_array(file), none) for file in files]
        return batches_of_shards(self.config, packings)

    def __call__(self, path: str) -> None:
        """Write one shard."""
        config, store = self.config, self.packer.store
        packing, rows_PB, first = self.shards[path]
        seeds = [hash_seed(config.seed, packing, first + number) for number in range(len(rows_PB))]
        footer: dict[str, Any] = {
            "batch_size": config.batch_size,
            "k": self.k,
            "policy": config.policy,
            "layout": config.layout,
            "seed": config.seed,
            "epoch": packing,
            "first_batch": first,
            "key": self.key,
        }
        if config.judge is not None:
            footer["judge"] = config.judge
        if store.sources is not None:
            footer["sources"] = [source.to_json() for source in store.sources.sources]
        rows = self.packer.table(rows_PB, packing, seeds)
        if config.layout == "ids":
            write_shard(self.folder / path, rows, footer)
        else:
            write_shard(self.folder / path, rows, footer, self.packer.with_texts)


def scores_of_judge(config: PackConfig, run: RunDir) -> Manifest | None:
    """The judgements whose scores are stored; None where none are.

    Raises:
        ArtifactError: There are none of this name, or they are damaged.
    """
    return None if config.judge is None else require(run, "judgements", config.judge)


def write_assignments(folder: Path, packings: Sequence[Assignment]) -> None:
    """Leave the rows of each batch where tasks find them."""
    for number, one in enumerate(packings):
        path = folder / _ASSIGNMENT.format(f"{number:05d}")
        if not path.exists():
            write_array(path, one.rows_PB)


def read_assignments(folder: Path, num_packings: int) -> list[Assignment]:
    """What `write_assignments` left; nothing where it did not end."""
    paths = [folder / _ASSIGNMENT.format(f"{number:05d}") for number in range(num_packings)]
    if not all(path.exists() for path in paths):
        return []
    return [Assignment(read_array(path), np.empty(0, np.int64)) for path in paths]


def hash_seed(seed: int, packing: int, batch: int) -> int:
    """A seed of its own for each batch of each packing."""
    return int(np.random.SeedSequence([seed, packing, batch]).generate_state(1)[0])

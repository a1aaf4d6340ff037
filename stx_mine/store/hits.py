"""Hits on disk: Arrow files of list columns, a file per block of queries.

`hits/dense/` grows in layers: a layer holds, for some queries, their top K of one depth, whole.
A query is read from the shallowest layer that is deep enough, cut to what was asked for, so that
what a reader sees never depends on which deeper layers are there.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntFlag
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stx_mine.core.ragged import Ragged, offsets_of
from stx_mine.errors import DamagedError
from stx_mine.store.artifact import Manifest
from stx_mine.store.kinds import KINDS
from stx_mine.store.manifest import read_sound_table


class HitSource(IntFlag):
    """Who proposed a hit; several may have."""

    DENSE = 1
    BM25 = 2
    CANDIDATES = 4
    KNOWN = 8

    @property
    def folder(self) -> str:
        """Its folder below `hits/`."""
        return str(self.name).lower()


def block_names(stem: str, num_blocks: int) -> list[str]:
    """File names of `num_blocks` blocks, in order."""
    return [f"{stem}-{i:05d}-of-{num_blocks:05d}.arrow" for i in range(num_blocks)]


@dataclass(frozen=True)
class LayerFile:
    """A file of one layer of `hits/dense/`.

    Attributes:
        layer: Number of the layer.
        block: Number of the block of queries.
        num_blocks: Blocks of queries in all.
        part: Number of the part of the corpus that was searched.
        num_parts: Parts of the corpus in all; 1 for the file that holds the hits of all.
    """

    layer: int
    block: int
    num_blocks: int
    part: int = 0
    num_parts: int = 1

    @property
    def stem(self) -> str:
        """What the names of all files of the layer begin with."""
        return f"layer-{self.layer:03d}"

    @property
    def plan(self) -> str:
        """Name of the layer's list of searches: int64 (2, M), query ids and hits wanted."""
        return f"{self.stem}-queries.npy"

    @property
    def name(self) -> str:
        """Name of the file."""
        part = f"-part-{self.part:03d}-of-{self.num_parts:03d}" if self.num_parts > 1 else ""
        return f"{self.stem}-{self.block:05d}-of-{self.num_blocks:05d}{part}.arrow"

    def in_parts(self, num_parts: int) -> list["LayerFile"]:
        """The files of the parts that this one is merged from."""
        return [replace(self, part=part, num_parts=num_parts) for part in range(num_parts)]

    @classmethod
    def parse(cls, name: str) -> "LayerFile":
        """Back from `name`."""
        numbers = [int(word) for word in name.removesuffix(".arrow").split("-") if word.isdigit()]
        return cls(*numbers)


@dataclass(frozen=True)
class HitBlock:
    """The hits of some queries.

    Attributes:
        query_ids: int64 (R,), rising.
        hits: (R,) passage ids, best first by score, ties by id.
        scores: float32, aligned with `hits.values`.
        sources: uint8 `HitSource` bits, aligned with `hits.values`.
    """

    query_ids: NDArray[np.int64]
    hits: Ragged
    scores: NDArray[np.float32]
    sources: NDArray[np.uint8]

    @classmethod
    def without_hits(cls, query_ids: NDArray[np.int64]) -> "HitBlock":
        """Queries of which nothing was searched."""
        none = Ragged(np.zeros(len(query_ids) + 1, np.int64), np.empty(0, np.int64))
        return cls(query_ids, none, np.empty(0, np.float32), np.empty(0, np.uint8))

    def table(self) -> pa.Table:
        """The block as an Arrow table `query_id`, `passage_ids`, `scores`."""
        offsets = pa.array(self.hits.offsets, pa.int64())
        ids = pa.LargeListArray.from_arrays(offsets, pa.array(self.hits.values, pa.int32()))
        scores = pa.LargeListArray.from_arrays(offsets, pa.array(self.scores, pa.float32()))
        return pa.table({"query_id": self.query_ids, "passage_ids": ids, "scores": scores})

    @classmethod
    def read(cls, manifest: Manifest, name: str, source: HitSource) -> "HitBlock":
        """Map one file of hits.

        Raises:
            ArtifactError: It is damaged.
        """
        return manifest.read(name, lambda path: cls.load(path, source))

    @classmethod
    def load(cls, path: Path, source: HitSource) -> "HitBlock":
        """Map one file of hits, of an artifact that need not be finished.

        Raises:
            ValueError: It holds something else.
        """
        table = read_sound_table(path).combine_chunks()
        query_ids = table.column("query_id").to_numpy()
        if not len(query_ids):
            return concatenate([])
        ids, scores = (table.column(name).chunk(0) for name in ("passage_ids", "scores"))
        hits = Ragged(ids.offsets.to_numpy(), ids.values.to_numpy().astype(np.int64))
        sources = np.full(len(hits.values), source, np.uint8)
        return cls(query_ids, hits, scores.values.to_numpy(), sources)

    def take(self, rows: NDArray[np.int64], longest: NDArray[np.int64] | None = None) -> "HitBlock":
        """Some rows, each cut to its `longest` first hits."""
        whole = len(rows) == len(self.query_ids) and bool((rows == np.arange(len(rows))).all())
        if whole and (longest is None or bool((self.hits.lengths() <= longest).all())):
            return self
        hits, places = self.hits.take(rows, longest)
        return HitBlock(self.query_ids[rows], hits, self.scores[places], self.sources[places])

    def refuse_beyond(self, num_passages: int) -> None:
        """Refuse ids that stand for no passage; compiled code would follow them anywhere.

        Raises:
            DamagedError: There are some.
        """
        lowest, highest = self.hits.values.min(initial=0), self.hits.values.max(initial=-1)
        if lowest < 0 or highest >= num_passages:
            raise DamagedError(
                f"expected ids of {num_passages:,} passages in hits/, found "
                f"{lowest if lowest < 0 else highest}; run `{KINDS['hits'].maker} --overwrite`"
            )

    def of(self, query_ids: NDArray[np.int64]) -> "HitBlock":
        """The rows of queries that the block has, in the given order."""
        return self.take(np.searchsorted(self.query_ids, query_ids))


def concatenate(blocks: Sequence[HitBlock]) -> HitBlock:
    """Blocks of different queries as one, queries rising."""
    if len(blocks) == 1:
        return blocks[0]
    lengths = [block.hits.lengths() for block in blocks]
    offsets = offsets_of(np.concatenate([[], *lengths]))
    whole = HitBlock(
        np.concatenate([np.empty(0, np.int64), *(block.query_ids for block in blocks)]),
        Ragged(offsets, np.concatenate([np.empty(0, np.int64), *(b.hits.values for b in blocks)])),
        np.concatenate([np.empty(0, np.float32), *(block.scores for block in blocks)]),
        np.concatenate([np.empty(0, np.uint8), *(block.sources for block in blocks)]),
    )
    return whole.take(np.argsort(whole.query_ids, kind="stable"))


def merge_sources(blocks: Sequence[HitBlock]) -> HitBlock:
    """Hits of several sources for the same queries: one a passage, best first, sources joined."""
    if len(blocks) == 1:
        return blocks[0]
    query_ids = blocks[0].query_ids
    rows = np.concatenate(
        [np.repeat(np.arange(len(query_ids)), block.hits.lengths()) for block in blocks]
    )
    ids = np.concatenate([block.hits.values for block in blocks])
    scores = np.concatenate([block.scores for block in blocks])
    sources = np.concatenate([block.sources for block in blocks])
    order = np.lexsort((ids, -scores, rows))
    rows, ids, scores, sources = rows[order], ids[order], scores[order], sources[order]
    # The score is the same from every source, so that copies of a hit are neighbours.
    new = np.ones(len(ids), bool)
    new[1:] = (rows[1:] != rows[:-1]) | (ids[1:] != ids[:-1])
    starts = np.flatnonzero(new)
    joined = np.bitwise_or.reduceat(sources, starts) if len(starts) else sources
    counts = np.bincount(rows[new], minlength=len(query_ids))
    offsets = offsets_of(counts)
    return HitBlock(query_ids, Ragged(offsets, ids[new]), scores[new], joined)


@dataclass(frozen=True)
class HitLayers:
    """Reader of the dense hits of a run.

    Attributes:
        manifest: Of `hits/dense/`, finished or with some layers so far.
    """

    manifest: Manifest

    @cached_property
    def layers(self) -> list[dict[str, object]]:
        """`depth` and `files` (block number -> file) of each layer, shallowest first."""
        found: list[dict[str, object]] = self.manifest.extra["layers"]
        return sorted(found, key=lambda layer: int(str(layer["depth"])))

    def read(
        self, block: int, query_ids: NDArray[np.int64], depth: int, wanted: NDArray[np.int64]
    ) -> tuple[HitBlock, NDArray[np.int64]]:
        """The hits of queries of a block at a depth.

        Args:
            block: Number of the block.
            query_ids: int64 (R,), rising.
            depth: Layers shallower than this do not count.
            wanted: int64 (R,) hits of each query to return, at most. A layer that was asked for
                fewer of a query, when fewer were forbidden to it, does not count for that query.

        Returns:
            The hits that are there, and the queries that no layer is deep enough for.
        """
        found, left = [], np.arange(len(query_ids))
        for layer in self.layers:
            name = dict(layer["files"]).get(str(block))  # type: ignore[call-overload]
            if int(str(layer["depth"])) < depth or name is None or not len(left):
                continue
            whole = HitBlock.read(self.manifest, name, HitSource.DENSE)
            rows = np.searchsorted(whole.query_ids, query_ids[left])
            rows = np.minimum(rows, len(whole.query_ids) - 1)
            here = whole.query_ids[rows] == query_ids[left]
            here &= self._asked_for(name, whole)[rows] >= wanted[left]
            rows = rows[here]
            found.append(whole.take(rows, wanted[left[here]]))
            left = left[~here]
        return concatenate(found), query_ids[left]

    def read_at(
        self,
        block: int,
        query_ids: NDArray[np.int64],
        depths: NDArray[np.int64],
        wanted: NDArray[np.int64],
    ) -> HitBlock:
        """The hits of queries of a block, each at a depth of its own; all of them are there.

        Args:
            block: Number of the block.
            query_ids: int64 (R,), rising.
            depths: int64 (R,).
            wanted: int64 (R,) hits of each query to return, at most.
        """
        parts = []
        for depth in np.unique(depths):
            rows = depths == depth
            hits, missing = self.read(block, query_ids[rows], int(depth), wanted[rows])
            assert not len(missing), "no layer is deep enough; search before reading"
            parts.append(hits)
        return concatenate(parts)

    def _asked_for(self, name: str, block: HitBlock) -> NDArray[np.int64]:
        """int64: the hits that the layer of a file was asked for, of each query of the block.

        The search of an index may have found fewer.
        """
        plan = LayerFile.parse(name).plan
        if not self.manifest.has(plan):
            return block.hits.lengths()
        searches_2M = self.manifest.array(plan)
        places = np.searchsorted(searches_2M[0], block.query_ids)
        return np.array(searches_2M[1, places], np.int64)


def read_hits(manifest: Manifest, block: int, source: HitSource) -> HitBlock:
    """The hits of a block that one source proposed."""
    return HitBlock.read(manifest, manifest.names()[block], source)

"""The search tasks: a block of queries past the corpus or a part of it, and merging the parts."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stx_mine.core.ragged import Ragged, offsets_of
from stx_mine.engine.tasks import Worker
from stx_mine.search.exact import ExactSearcher, Searcher
from stx_mine.search.faiss_index import FaissSearcher
from stx_mine.stages.index.stage import INDEX
from stx_mine.stages.mine.config import MineConfig
from stx_mine.store.artifact import read_manifest
from stx_mine.store.files import read_array, write_table
from stx_mine.store.hits import HitBlock, HitSource, LayerFile, merge_sources
from stx_mine.store.vectors import Vectors

# Queries of one block are searched together while their depths differ by less than this factor.
_DEPTH_STEP = 1.5


@dataclass(frozen=True)
class BlockSearcher(Worker):
    """Searches what the plan of a layer lists for a block, and writes one file of hits.

    Attributes:
        config: The config.
        embeddings: Folder of the embeddings.
        index: Folder of the index to search; None for exact search.
        folder: Folder of the hits.
    """

    config: MineConfig
    embeddings: Path
    index: Path | None
    folder: Path

    @property
    def wants_gpu(self) -> bool:
        """Where the search is exact, unless another device is named."""
        return self.index is None and (self.config.device or "cuda").startswith("cuda")

    @cached_property
    def queries(self) -> Vectors:
        """Vectors of the queries."""
        return Vectors.open(read_manifest(self.embeddings), "queries")

    @cached_property
    def passages(self) -> Vectors:
        """Vectors of the passages."""
        return Vectors.open(read_manifest(self.embeddings), "passages")

    def _searcher(self, part: int, num_parts: int) -> Searcher:
        """What finds the hits in a part of the corpus; the last one stays, for it may hold much."""
        if (part, num_parts) not in self._latest:
            self._latest.clear()
            self._latest[part, num_parts] = self._open(part, num_parts)
        return self._latest[part, num_parts]

    @cached_property
    def _latest(self) -> dict[tuple[int, int], Searcher]:
        return {}

    def _open(self, part: int, num_parts: int) -> Searcher:
        if self.index is None:
            total = len(self.passages)
            return ExactSearcher(
                self.passages,
                self.config.passage_block,
                self.config.device,
                start=part * total // num_parts,
                stop=(part + 1) * total // num_parts,
            )
        index = read_manifest(self.index)
        extra = index.extra
        return index.read(
            INDEX,
            lambda path: FaissSearcher.open(
                path, self.passages, extra["nprobe"], extra["refine_factor"]
            ),
        )

    def __call__(self, name: str) -> None:
        """Search one block for one layer."""
        file = LayerFile.parse(name)
        query_ids, wanted = read_searches(self.folder, file, self.config.query_block)
        found = self.search(query_ids, wanted, file.part, file.num_parts)
        write_table(self.folder / name, found.table())

    def search(
        self,
        query_ids: NDArray[np.int64],
        wanted: NDArray[np.int64],
        part: int = 0,
        num_parts: int = 1,
    ) -> HitBlock:
        """Search each query to its own depth; deep ones do not deepen the others.

        Args:
            query_ids: int64 (Q,), rising.
            wanted: int64 (Q,) hits of each, at most.
            part: Which part of the corpus is searched.
            num_parts: Parts of the corpus.
        """
        searcher = self._searcher(part, num_parts)
        lengths = np.zeros(len(query_ids), np.int64)
        parts = []
        left = np.argsort(wanted, kind="stable")
        while len(left):
            limit = int(wanted[left[0]] * _DEPTH_STEP)
            now, left = left[wanted[left] <= limit], left[wanted[left] > limit]
            vectors = self.queries.take(query_ids[now])
            found = searcher.search(vectors, int(wanted[now].max()))
            ranks = np.arange(found.ids_QK.shape[1])
            kept_QK = (ranks < wanted[now][:, None]) & (found.ids_QK >= 0)
            lengths[now] = kept_QK.sum(1)
            parts.append((now, found, kept_QK))
        offsets = offsets_of(lengths)
        ids, scores = np.empty(offsets[-1], np.int64), np.empty(offsets[-1], np.float32)
        for now, found, kept_QK in parts:
            rows, ranks = np.nonzero(kept_QK)  # padding stands last
            places = offsets[now][rows] + ranks
            ids[places], scores[places] = found.ids_QK[kept_QK], found.scores_QK[kept_QK]
        sources = np.full(len(ids), HitSource.DENSE, np.uint8)
        return HitBlock(query_ids, Ragged(offsets, ids), scores, sources)


@dataclass(frozen=True)
class PartMerger(Worker):
    """Merges the hits of the parts of the corpus: the best of all are the best of the parts' best.

    Attributes:
        folder: Folder of the hits.
        query_block: Queries of a block.
        num_parts: Parts of the corpus.
    """

    folder: Path
    query_block: int
    num_parts: int

    def __call__(self, name: str) -> None:
        """Merge the parts of one block."""
        file = LayerFile.parse(name)
        _, wanted = read_searches(self.folder, file, self.query_block)
        parts = [self.folder / part.name for part in file.in_parts(self.num_parts)]
        merged = merge_sources([HitBlock.load(path, HitSource.DENSE) for path in parts])
        write_table(self.folder / name, merged.take(np.arange(len(wanted)), wanted).table())


def read_searches(folder: Path, file: LayerFile, query_block: int) -> NDArray[np.int64]:
    """int64 (2, Q): the queries of a block that a layer lists, and the hits wanted of each."""
    searches_2M = read_array(folder / file.plan)
    first = file.block * query_block
    edges = np.searchsorted(searches_2M[0], [first, first + query_block])
    return np.array(searches_2M[:, edges[0] : edges[1]])

"""The search task: the queries of a block past the corpus, or past a part of it."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stx_mine.artifacts.artifact import read_manifest
from stx_mine.artifacts.files import read_array, write_table
from stx_mine.artifacts.hits import HitBlock, LayerFile, Source
from stx_mine.artifacts.vectors import Vectors
from stx_mine.config import MineConfig
from stx_mine.engine.tasks import Worker
from stx_mine.ragged import Ragged, offsets_of
from stx_mine.search.exact import ExactSearcher, Searcher
from stx_mine.search.faiss_index import FaissSearcher
from stx_mine.stages.index import INDEX

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

    @cached_property
    def searcher(self) -> Searcher:
        """What finds the hits."""
        if self.index is None:
            return ExactSearcher(self.passages, self.config.passage_block, self.config.device)
        extra = read_manifest(self.index).extra
        return FaissSearcher.open(
            self.index / INDEX, self.passages, extra["nprobe"], extra["refine_factor"]
        )

    def __call__(self, name: str) -> None:
        """Search one block for one layer."""
        file = LayerFile.parse(name)
        searches_2M = read_array(self.folder / file.plan)
        first = file.block * self.config.query_block
        edges = np.searchsorted(searches_2M[0], [first, first + self.config.query_block])
        query_ids, wanted = np.array(searches_2M[:, edges[0] : edges[1]])
        write_table(self.folder / name, self._search(query_ids, wanted).table())

    def _search(self, query_ids: NDArray[np.int64], wanted: NDArray[np.int64]) -> HitBlock:
        """Search each query to its own depth; deep ones do not deepen the others."""
        lengths = np.zeros(len(query_ids), np.int64)
        parts = []
        left = np.argsort(wanted, kind="stable")
        while len(left):
            limit = int(wanted[left[0]] * _DEPTH_STEP)
            now, left = left[wanted[left] <= limit], left[wanted[left] > limit]
            vectors = self.queries.take(query_ids[now])
            found = self.searcher.search(vectors, int(wanted[now].max()))
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
        sources = np.full(len(ids), Source.DENSE, np.uint8)
        return HitBlock(query_ids, Ragged(offsets, ids), scores, sources)

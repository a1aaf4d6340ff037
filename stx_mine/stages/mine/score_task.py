"""The scoring task: what another search than the dense one proposes for a block of queries."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stx_mine.core.ragged import Ragged, offsets_of, ragged_sets
from stx_mine.engine.tasks import Worker
from stx_mine.search.score import score_hits
from stx_mine.search.stream import best_first
from stx_mine.stages.mine.bm25 import Bm25Searcher
from stx_mine.stages.mine.candidates import CandidateFile, Candidates
from stx_mine.stages.mine.config import MineConfig
from stx_mine.store.artifact import read_manifest
from stx_mine.store.files import write_table
from stx_mine.store.groups import TextGroups
from stx_mine.store.hits import HitBlock, HitSource, block_names
from stx_mine.store.texts import NEGATIVES, TextStore, pair_ids
from stx_mine.store.vectors import Vectors


@dataclass(frozen=True)
class HitScorer(Worker):
    """Scores what a source proposes for a block, and writes one file of hits.

    Attributes:
        config: The config; its candidates are named by an absolute path.
        source: Who proposes.
        texts: Folder of the texts.
        embeddings: Folder of the embeddings.
        folder: Folder of the hits.
    """

    config: MineConfig
    source: HitSource
    texts: Path
    embeddings: Path
    folder: Path

    @cached_property
    def store(self) -> TextStore:
        """The texts."""
        return TextStore.open(read_manifest(self.texts))

    @cached_property
    def queries(self) -> Vectors:
        """Vectors of the queries."""
        return Vectors.open(read_manifest(self.embeddings), "queries")

    @cached_property
    def passages(self) -> Vectors:
        """Vectors of the passages."""
        return Vectors.open(read_manifest(self.embeddings), "passages")

    @property
    def names(self) -> list[str]:
        """The files to make, one a block of queries."""
        return block_names("hits", -(-len(self.queries) // self.config.query_block))

    def __call__(self, name: str) -> None:
        """Score one block."""
        first = self.names.index(name) * self.config.query_block
        query_ids = np.arange(first, min(first + self.config.query_block, len(self.queries)))
        ids_QK = self._propose(query_ids)
        distinct, rows = np.unique(np.maximum(ids_QK, 0), return_inverse=True)
        scores_QK = score_hits(
            self.queries.take(query_ids),
            self.passages.take(distinct),
            np.where(ids_QK < 0, -1, rows.reshape(ids_QK.shape)),
            self.queries.similarity,
        )
        ids_QK, scores_QK = best_first(ids_QK, scores_QK)
        real = ids_QK >= 0
        offsets = offsets_of(real.sum(1))
        sources = np.empty(int(offsets[-1]), np.uint8)  # named by the folder, not stored
        block = HitBlock(query_ids, Ragged(offsets, ids_QK[real]), scores_QK[real], sources)
        write_table(self.folder / name, block.table())

    def _propose(self, query_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64 (Q, K) passage ids; -1 pads."""
        if self.source == HitSource.BM25:
            texts = self.store.queries.column("text").take(query_ids).to_pylist()
            deepest = self.config.depth + int(self._num_forbidden[query_ids].max())
            return self._bm25.search(texts, min(deepest, len(self.passages)))
        part, _ = self.listed.take(query_ids)
        return part.padded(int(part.lengths().max(initial=0)))

    @cached_property
    def _bm25(self) -> Bm25Searcher:
        return Bm25Searcher.build(text.as_py() for text in self.store.passages.column("text"))

    @cached_property
    def _num_forbidden(self) -> NDArray[np.int64]:
        # By the texts alone: hits do not depend on `groups/`, which may join more of them.
        groups = TextGroups.of_texts(self.store)
        return groups.num_forbidden_passages(groups.forbidden(self.store))

    @cached_property
    def listed(self) -> Ragged:
        """(num queries,) distinct passages that a file, or the input, lists for each query."""
        if self.source == HitSource.CANDIDATES:
            query_ids, passage_ids = self.candidates.query_ids, self.candidates.passage_ids
        else:
            sizes = len(self.queries), len(self.passages)
            query_ids, passage_ids = pair_ids(read_manifest(self.texts), NEGATIVES, *sizes)
        return ragged_sets(query_ids, passage_ids, len(self.queries))

    @cached_property
    def candidates(self) -> Candidates:
        """What the file of candidates names."""
        assert self.config.candidates is not None
        return CandidateFile.open(self.config.candidates).candidates(self.store)

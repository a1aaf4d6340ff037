"""The dense hits of a run: layers in `hits/dense/`, searched where they are missing."""

from dataclasses import asdict
from functools import cached_property
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from stx_mine.artifacts.artifact import MANIFEST, Artifact, Manifest, require
from stx_mine.artifacts.files import read_json, write_json, write_table
from stx_mine.artifacts.hits import HitBlock, HitLayers, Source
from stx_mine.artifacts.run_dir import RunDir
from stx_mine.artifacts.vectors import Vectors
from stx_mine.config import MineConfig, key_fields
from stx_mine.engine.local import run_tasks
from stx_mine.ragged import Ragged, offsets_of
from stx_mine.search.exact import ExactSearcher, Searcher
from stx_mine.search.faiss_index import FaissSearcher
from stx_mine.stages.index import INDEX

# Queries of one block are searched together while their depths differ by less than this factor.
_DEPTH_STEP = 1.5


class DenseHits:
    """Reads the hits of queries at a depth, and searches for what no layer holds yet."""

    def __init__(
        self, config: MineConfig, run: RunDir, embeddings: Manifest, forbidden: Ragged
    ) -> None:
        """Open or begin `hits/dense/`.

        Raises:
            ArtifactError: Hits of other embeddings or another search are in the way.
        """
        self.config, self.forbidden = config, forbidden
        self.queries = Vectors.open(embeddings, "queries")
        self.passages = Vectors.open(embeddings, "passages")
        self.index = _index(config, run)
        inputs = {"embeddings": embeddings.digest}
        if self.index:
            inputs["index"] = self.index.digest
        self.artifact = Artifact(
            run,
            "hits",
            subfolder="dense",
            fields={**key_fields(config, "hits"), "search": "faiss" if self.index else "exact"},
            inputs=inputs,
            overwrite=config.overwrite,
            grows=True,
        )
        self.num_blocks = -(-len(self.queries) // config.query_block)
        self.num_searched = 0
        if not self.artifact.done:
            self.artifact.begin([])
            self._publish([])

    @property
    def how(self) -> str:
        """A few words on what was searched."""
        how = f"FAISS, recall {self.index.counts['recall']:.3f}" if self.index else "exact search"
        return how if self.num_searched else f"{how}, hits reused"

    def block_queries(self, block: int) -> NDArray[np.int64]:
        """Ids of the queries of a block."""
        first = block * self.config.query_block
        return np.arange(first, min(first + self.config.query_block, len(self.queries)))

    def wanted(self, query_ids: NDArray[np.int64], depth: int) -> NDArray[np.int64]:
        """Hits that leave `depth` candidates beyond what is forbidden to each query."""
        return np.minimum(depth + self.forbidden.lengths()[query_ids], len(self.passages))

    def read(self, block: int, query_ids: NDArray[np.int64], depth: int) -> HitBlock:
        """The hits of some queries of a block, at a depth that `ensure` was called with."""
        found, missing = self._layers.read(block, query_ids, depth, self.wanted(query_ids, depth))
        assert not len(missing), "ensure the depth before reading it"
        return found

    def ensure(self, query_ids: NDArray[np.int64], depth: int) -> None:
        """Search what no layer holds: one task, one file for each block that lacks queries.

        Args:
            query_ids: int64, rising.
            depth: Candidates wanted beyond what is forbidden to each query.
        """
        missing = {}
        for block in range(self.num_blocks):
            edges = np.searchsorted(query_ids, self.block_queries(block)[[0, -1]] + [0, 1])
            wanted = query_ids[edges[0] : edges[1]]
            _, lacking = self._layers.read(block, wanted, depth, np.zeros(len(wanted), np.int64))
            if len(lacking):
                missing[block] = lacking
        if missing:
            self._add_layer(depth, missing)

    def _add_layer(self, depth: int, missing: dict[int, NDArray[np.int64]]) -> None:
        layers = self.artifact.result.extra["layers"]
        stem = f"layer-{len(layers):03d}"
        names = {block: f"{stem}-{block:05d}-of-{self.num_blocks:05d}.arrow" for block in missing}
        self._plan_layer(stem, depth, missing)

        def search(block: int) -> None:
            write_table(
                self.artifact.folder / names[block], self._search(missing[block], depth).table()
            )

        pending = set(self.artifact.pending(list(names.values())))
        run_tasks([block for block in missing if names[block] in pending], search, "search")
        self.num_searched += sum(len(one) for one in missing.values())
        files = {str(block): name for block, name in names.items()}
        self._publish([*layers, {"depth": depth, "files": files}])

    def _plan_layer(self, stem: str, depth: int, missing: dict[int, NDArray[np.int64]]) -> None:
        """Say what the layer will hold; files of another plan, of a killed run, are no good."""
        digest = xxhash.xxh3_128(np.concatenate(list(missing.values())).tobytes())
        plan = {"depth": depth, "queries": digest.hexdigest()}
        path = self.artifact.folder / f"{stem}.json"
        if path.exists() and read_json(path) != plan:
            for stale in self.artifact.folder.glob(f"{stem}-*"):
                stale.unlink()
        write_json(path, plan)

    def _publish(self, layers: list[dict[str, Any]]) -> None:
        files = [name for layer in layers for name in layer["files"].values()]
        counts = {
            "queries": len(self.queries),
            "layers": len(layers),
            "depth": max((layer["depth"] for layer in layers), default=0),
        }
        self.artifact.finish(
            files, config=asdict(self.config), counts=counts, extra={"layers": layers}
        )

    @property
    def _layers(self) -> HitLayers:
        return HitLayers(self.artifact.result)

    @cached_property
    def _searcher(self) -> Searcher:
        if self.index:
            return FaissSearcher.open(
                self.index.folder / INDEX,
                self.passages,
                self.index.extra["nprobe"],
                self.index.extra["refine_factor"],
            )
        return ExactSearcher(self.passages, self.config.passage_block, self.config.device)

    def _search(self, query_ids: NDArray[np.int64], depth: int) -> HitBlock:
        """Search each query to its own depth; deep ones do not deepen the others."""
        wanted = self.wanted(query_ids, depth)
        lengths = np.zeros(len(query_ids), np.int64)
        parts = []
        left = np.argsort(wanted, kind="stable")
        while len(left):
            limit = int(wanted[left[0]] * _DEPTH_STEP)
            now, left = left[wanted[left] <= limit], left[wanted[left] > limit]
            vectors = self.queries.take(query_ids[now])
            found = self._searcher.search(vectors, int(wanted[now].max()))
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


def _index(config: MineConfig, run: RunDir) -> Manifest | None:
    """The index to search, if any."""
    if config.search == "exact":
        return None
    if config.search == "auto" and not (run.folder("index") / MANIFEST).exists():
        return None
    return require(run, "index")

"""The dense hits of a run: layers in `hits/dense/`, searched where they are missing."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from stx_mine.engine.run import make_files
from stx_mine.errors import ArtifactError, ConfigError
from stx_mine.settings import key_fields
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.search_task import BlockSearcher, PartMerger
from stx_mine.store.artifact import MANIFEST, Artifact, Manifest, require
from stx_mine.store.files import read_json, write_array, write_json
from stx_mine.store.hits import HitBlock, HitLayers, LayerFile
from stx_mine.store.lock import TaskShard
from stx_mine.store.manifest import is_begun
from stx_mine.store.run_dir import RunDir


class DenseHits:
    """Reads the hits of queries at a depth, and searches for what no layer holds yet."""

    def __init__(
        self,
        config: MineConfig,
        run: RunDir,
        embeddings: Manifest,
        num_forbidden: NDArray[np.int64],
        task_shard: TaskShard | None = None,
    ) -> None:
        """Open or begin `hits/dense/`.

        Args:
            config: The config.
            run: The run directory.
            embeddings: The vectors.
            num_forbidden: int64 (num queries,) passages that are no candidates of each query.
            task_shard: Which share of the tasks is done here.

        Raises:
            ArtifactError: Hits of other embeddings or another search are in the way.
        """
        self.config, self.run, self._task_shard = config, run, task_shard
        self.num_forbidden = num_forbidden
        self.index = _index(config, run)
        inputs = {"embeddings": embeddings.digest}
        if self.index:
            inputs["index"] = self.index.digest
        self.num_searched = 0
        with run.exclusive():
            self.artifact = self._open(inputs)
            self._worker = BlockSearcher(
                config,
                embeddings.folder.absolute(),
                self.index.folder.absolute() if self.index else None,
                self.artifact.folder.absolute(),
            )
            self._num_queries = len(self._worker.queries)
            self._num_passages = len(self._worker.passages)
            self._num_blocks = -(-self._num_queries // config.query_block)
            if not self.artifact.done:
                self.artifact.begin([])
                self._publish([])

    def _open(self, inputs: dict[str, str]) -> Artifact:
        """The artifact, which hits of another search may be in the way of."""
        fields = {**key_fields(self.config, "hits"), "search": "faiss" if self.index else "exact"}
        try:
            return Artifact(
                self.run,
                "hits",
                self.config,
                subfolder="dense",
                fields=fields,
                inputs=inputs,
                overwrite=self.config.overwrite,
                grows=True,
            )
        except ArtifactError as error:
            path = self.run.folder("hits", "dense") / MANIFEST
            before = read_json(path) if self.index and path.exists() else {}
            exact = before.get("fields") == {**fields, "search": "exact"}
            if not exact or before.get("inputs") != {"embeddings": inputs["embeddings"]}:
                raise
            raise ArtifactError(
                f"{error}; or --search exact, which goes on with these hits, without the index"
            ) from error

    @property
    def is_empty(self) -> bool:
        """Whether nothing was searched yet: of new hits, and of those that are made anew."""
        return not self._layers.layers

    @property
    def how(self) -> str:
        """A few words on what was searched."""
        how = f"FAISS, recall {self.index.counts['recall']:.3f}" if self.index else "exact search"
        return how if self.num_searched else f"{how}, hits reused"

    def wanted(
        self, query_ids: NDArray[np.int64], depth: int | NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Hits that leave `depth` candidates beyond what is forbidden to each query."""
        return np.minimum(depth + self.num_forbidden[query_ids], self._num_passages)

    def read_at(
        self, block: int, query_ids: NDArray[np.int64], depths: NDArray[np.int64]
    ) -> HitBlock:
        """The hits of queries of a block, each at a depth that `ensure` was called with."""
        return self._layers.read_at(block, query_ids, depths, self.wanted(query_ids, depths))

    def ensure(self, query_ids: NDArray[np.int64], depth: int) -> None:
        """Search what no layer holds: one task, one file for each block that lacks queries.

        Args:
            query_ids: int64, rising.
            depth: Candidates wanted beyond what is forbidden to each query.

        Raises:
            SharesLeftError: This call did its share, and others are at it.
        """
        with self.run.exclusive():
            self.artifact.reload()
            files = self._plan_missing(query_ids, depth)
        if not files:
            return
        names = [file.name for file in files.values()]
        if self.config.corpus_parts == 1:
            make_files(
                self.artifact, names, self._worker, self.config, "searching", self._task_shard
            )
        elif self.artifact.pending(names):
            self._search_parts(list(files.values()))
        with self.run.exclusive():
            self.artifact.reload()
            if self.config.corpus_parts > 1:
                make_files(self.artifact, names, self._merger, self.config, "merging parts")
            # Before the layer is published: afterwards a killed run would leave them for good.
            for part in self.artifact.folder.glob("*-part-*"):
                part.unlink()
            layers = self.artifact.result.extra["layers"]
            # Another share may have ended at the same time.
            if len(layers) == files[min(files)].layer:
                named = {str(block): file.name for block, file in files.items()}
                self._publish([*layers, {"depth": depth, "files": named}])
        self.num_searched += len(query_ids)

    def _search_parts(self, files: Sequence[LayerFile]) -> None:
        """Every block of queries past one part of the corpus, then past the next.

        So that a device keeps a part for many tasks.
        """
        by_block = [file.in_parts(self.config.corpus_parts) for file in files]
        names = [part.name for parts in zip(*by_block, strict=True) for part in parts]
        make_files(self.artifact, names, self._worker, self.config, "searching", self._task_shard)

    @property
    def _merger(self) -> PartMerger:
        config = self.config
        folder = self.artifact.folder.absolute()
        return PartMerger(folder, config.query_block, config.corpus_parts)

    def _plan_missing(self, query_ids: NDArray[np.int64], depth: int) -> dict[int, LayerFile]:
        """Plan a layer of what no layer holds; the file of each block that it has queries of."""
        missing = {}
        for block in range(self._num_blocks):
            first = block * self.config.query_block
            edges = np.searchsorted(query_ids, [first, first + self.config.query_block])
            wanted = query_ids[edges[0] : edges[1]]
            hits = self.wanted(wanted, depth)
            _, lacking = self._layers.read(block, wanted, depth, hits)
            if len(lacking):
                missing[block] = lacking
        number = len(self.artifact.result.extra["layers"])
        files = {block: LayerFile(number, block, self._num_blocks) for block in missing}
        if files:
            self._plan_layer(files[min(files)], depth, np.concatenate(list(missing.values())))
        return files

    def _plan_layer(self, file: LayerFile, depth: int, query_ids: NDArray[np.int64]) -> None:
        """Say what the layer will hold; files of another plan, of a killed run, are no good."""
        searches_2M = np.stack([query_ids, self.wanted(query_ids, depth)])
        plan = {"depth": depth, "searches": xxhash.xxh3_128_hexdigest(searches_2M.tobytes())}
        path = self.artifact.folder / f"{file.stem}.json"
        if path.exists() and read_json(path) != plan:
            for stale in self.artifact.folder.glob(f"{file.stem}-*"):
                stale.unlink()
        write_json(path, plan)
        if not (self.artifact.folder / file.plan).exists():
            write_array(self.artifact.folder / file.plan, searches_2M)

    def _publish(self, layers: list[dict[str, Any]]) -> None:
        named = [LayerFile.parse(name) for layer in layers for name in layer["files"].values()]
        files = [name for one in named for name in (one.name, one.plan)]
        files = list(dict.fromkeys(files))
        counts = {
            "queries": self._num_queries,
            "layers": len(layers),
            "depth": max((layer["depth"] for layer in layers), default=0),
        }
        # Hits of another search stay until there are some of this one.
        is_whole = bool(layers)
        self.artifact.finish(files, counts=counts, extra={"layers": layers}, is_whole=is_whole)
        folder = self.artifact.folder.absolute()
        if folder != self._worker.folder:
            self._worker = replace(self._worker, folder=folder)

    @property
    def _layers(self) -> HitLayers:
        return HitLayers(self.artifact.result)


def _index(config: MineConfig, run: RunDir) -> Manifest | None:
    """The index to search, if any."""
    if config.search == "exact":
        return None
    if config.search == "auto" and not is_begun(run, "index"):
        return None
    if config.corpus_parts > 1:
        raise ConfigError(
            f"--corpus-parts {config.corpus_parts} divides exact search, found an index to search; "
            "give --search exact, or leave --corpus-parts out"
        )
    return require(run, "index")

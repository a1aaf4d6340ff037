"""Hits that other searches than the dense one propose, with their dense scores."""

from collections.abc import Callable
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from stx_mine.artifacts.artifact import Artifact, Manifest
from stx_mine.artifacts.candidates import CandidateFile
from stx_mine.artifacts.files import read_table, write_table
from stx_mine.artifacts.hits import HitBlock, Source, block_names
from stx_mine.artifacts.run_dir import RunDir
from stx_mine.artifacts.texts import NEGATIVES, TextStore
from stx_mine.config import MineConfig, key_fields
from stx_mine.engine.local import run_tasks
from stx_mine.ragged import Ragged, offsets_of, ragged_sets
from stx_mine.search.bm25 import Bm25Searcher
from stx_mine.search.exact import best_first
from stx_mine.search.score import score_hits
from stx_mine.stages.dense_hits import DenseHits

# The candidates of some queries: int64 (Q, K) passage ids; -1 pads.
Proposer = Callable[[NDArray[np.int64]], NDArray[np.int64]]


def bm25_hits(
    config: MineConfig, run: RunDir, store: TextStore, embeddings: Manifest, dense: DenseHits
) -> Manifest:
    """Search the passages by their words, once.

    Raises:
        ConfigError: The library is not installed.
    """
    artifact = Artifact(
        run,
        "hits",
        subfolder="bm25",
        fields={**key_fields(config, "hits"), "depth": config.depth},
        inputs={"embeddings": embeddings.digest},
        overwrite=True,
    )
    if artifact.manifest:
        return artifact.manifest
    passages = store.passages.column("text")
    searcher = Bm25Searcher.build(text.as_py() for text in passages)

    def propose(query_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        texts = store.queries.column("text").take(query_ids).to_pylist()
        return searcher.search(texts, int(dense.wanted(query_ids, config.depth).max()))

    return _write(artifact, config, dense, propose, {})


def candidate_hits(
    config: MineConfig, run: RunDir, store: TextStore, embeddings: Manifest, dense: DenseHits
) -> Manifest:
    """Read the candidates of another retriever.

    Raises:
        InputError: The file is missing, malformed or of other texts.
    """
    assert config.candidates is not None
    file = CandidateFile.open(config.candidates)
    artifact = Artifact(
        run,
        "hits",
        subfolder="candidates",
        fields={**key_fields(config, "hits"), "content": file.digest()},
        inputs={"embeddings": embeddings.digest},
        overwrite=True,
    )
    if artifact.manifest:
        return artifact.manifest
    query_ids, passage_ids, num_unknown = file.pairs(store)
    listed = ragged_sets(query_ids, passage_ids, store.num_queries)
    return _write(artifact, config, dense, _lister(listed), {"lines_unknown": num_unknown})


def known_hits(
    config: MineConfig, run: RunDir, texts: Manifest, embeddings: Manifest, dense: DenseHits
) -> Manifest:
    """The known negatives that came with the pairs, as candidates like all others."""
    artifact = Artifact(
        run,
        "hits",
        subfolder="known",
        fields=key_fields(config, "hits"),
        inputs={"texts": texts.digest, "embeddings": embeddings.digest},
        overwrite=True,
    )
    if artifact.manifest:
        return artifact.manifest
    table = read_table(texts.folder / NEGATIVES)
    query_ids, passage_ids = (table.column(name).to_numpy() for name in table.column_names)
    listed = ragged_sets(query_ids, passage_ids, len(dense.queries))
    return _write(artifact, config, dense, _lister(listed), {})


def _lister(listed: Ragged) -> Proposer:
    """Propose what a list names for each query."""

    def propose(query_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        part, _ = listed.take(query_ids)
        return part.padded(int(part.lengths().max(initial=0)))

    return propose


def _write(
    artifact: Artifact,
    config: MineConfig,
    dense: DenseHits,
    propose: Proposer,
    counts: dict[str, int],
) -> Manifest:
    names = block_names("hits", dense.num_blocks)
    artifact.begin(names)

    def work(name: str) -> None:
        query_ids = dense.block_queries(names.index(name))
        ids_QK = propose(query_ids)
        distinct, rows = np.unique(np.maximum(ids_QK, 0), return_inverse=True)
        scores_QK = score_hits(
            dense.queries.take(query_ids),
            dense.passages.take(distinct),
            np.where(ids_QK < 0, -1, rows.reshape(ids_QK.shape)),
            dense.queries.similarity,
        )
        ids_QK, scores_QK = best_first(ids_QK, scores_QK)
        real = ids_QK >= 0
        offsets = offsets_of(real.sum(1))
        sources = np.empty(int(offsets[-1]), np.uint8)  # named by the folder, not stored
        block = HitBlock(query_ids, Ragged(offsets, ids_QK[real]), scores_QK[real], sources)
        write_table(artifact.folder / name, block.table())

    run_tasks(artifact.pending(names), work, artifact.target.name)
    return artifact.finish(
        names, config=asdict(config), counts={"queries": len(dense.queries), **counts}
    )


def read_source(manifest: Manifest, block: int, source: Source) -> HitBlock:
    """The hits of a block that one source proposed."""
    return HitBlock.read(manifest, manifest.content["files"][block]["file"], source)

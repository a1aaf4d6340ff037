"""Index: a FAISS index of the passages, with its recall measured against exact search."""

import numpy as np

from stx_mine.errors import ConfigError
from stx_mine.search.exact import ExactSearcher
from stx_mine.search.faiss_index import FaissSearcher, build_index, recall, set_nprobe, write_index
from stx_mine.stages.index.config import IndexConfig
from stx_mine.stages.index.counts import IndexCounts
from stx_mine.stages.index.report import index_report
from stx_mine.store.artifact import Artifact, Manifest, require
from stx_mine.store.files import atomic, written_by_library
from stx_mine.store.run_dir import RunDir
from stx_mine.store.stage_report import StageReport
from stx_mine.store.vectors import Vectors

INDEX = "passages.faiss"


def run_index(config: IndexConfig) -> StageReport:
    """Build `index/` and measure recall on a sample of queries.

    Raises:
        ConfigError: The factory string does not work, or recall is below the minimum.
        ArtifactError: There are no embeddings, or another index is in the way.
    """
    run = RunDir(config.run_dir, config.check)
    with run.lock():
        embeddings = require(run, "embeddings")
        artifact = Artifact(
            run,
            "index",
            config,
            inputs={"embeddings": embeddings.digest},
            overwrite=config.overwrite,
        )
        skipped = artifact.done
        if not skipped:
            _build(artifact, config, embeddings)
        _refuse_low(IndexCounts.read(artifact.result).recall, config)
        return index_report(artifact, config, skipped)


def _build(artifact: Artifact, config: IndexConfig, embeddings: Manifest) -> None:
    passages = Vectors.open(embeddings, "passages")
    queries = Vectors.open(embeddings, "queries")
    index = build_index(config.factory, passages, config.seed)
    set_nprobe(index, config.nprobe)
    size = min(config.recall_queries, len(queries))
    sample = np.random.default_rng(config.seed).choice(len(queries), size, replace=False)
    vectors = queries.take(np.sort(sample))
    searcher = FaissSearcher(index, passages, config.refine_factor)
    hits = searcher.search(vectors, config.recall_depth)
    exact = ExactSearcher(passages).search(vectors, config.recall_depth)
    counts = IndexCounts(len(passages), recall(hits.ids_QK, exact.ids_QK), size)
    _refuse_low(counts.recall, config)
    artifact.begin([INDEX])
    with atomic(artifact.folder / INDEX) as path, written_by_library(path):
        write_index(index, path)
    extra = {"nprobe": config.nprobe, "refine_factor": config.refine_factor}
    artifact.finish([INDEX], counts=counts, extra=extra)


def _refuse_low(measured: float, config: IndexConfig) -> None:
    if measured < config.min_recall:
        raise ConfigError(
            f"recall@{config.recall_depth} of {config.factory} is {measured:.3f}, below "
            f"--min-recall {config.min_recall}; raise --refine-factor (now {config.refine_factor}) "
            f"or --nprobe (now {config.nprobe}), choose a finer factory, or search exactly (mine "
            "--search exact)"
        )

"""Hits that other searches than the dense one propose, with their dense scores."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from stx_mine.engine.run import make_files
from stx_mine.settings import key_fields
from stx_mine.stages.mine.candidates import CandidateFile
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.score_task import HitScorer
from stx_mine.store.artifact import Artifact, Manifest
from stx_mine.store.hits import HitBlock, HitSource
from stx_mine.store.lock import TaskShard
from stx_mine.store.run_dir import RunDir


def bm25_hits(
    config: MineConfig,
    run: RunDir,
    texts: Manifest,
    embeddings: Manifest,
    task_shard: TaskShard | None,
) -> Manifest:
    """Search the passages by their words, once.

    Raises:
        ConfigError: The library is not installed.
        SharesLeftError: This call did its share, and others are at it.
    """
    artifact = _open(config, run, "bm25", {"depth": config.depth}, embeddings)
    return artifact.manifest or _write(
        artifact, config, HitSource.BM25, texts, embeddings, task_shard
    )


def candidate_hits(
    config: MineConfig,
    run: RunDir,
    texts: Manifest,
    embeddings: Manifest,
    task_shard: TaskShard | None,
) -> Manifest:
    """Read the candidates of another retriever.

    Raises:
        InputError: The file is missing, malformed or of other texts.
        SharesLeftError: This call did its share, and others are at it.
    """
    assert config.candidates is not None
    content = CandidateFile.open(config.candidates).digest()
    artifact = _open(config, run, "candidates", {"content": content}, embeddings)
    return artifact.manifest or _write(
        artifact, config, HitSource.CANDIDATES, texts, embeddings, task_shard
    )


def known_hits(
    config: MineConfig,
    run: RunDir,
    texts: Manifest,
    embeddings: Manifest,
    task_shard: TaskShard | None,
) -> Manifest:
    """The known negatives that came with the pairs, as candidates like all others.

    Raises:
        SharesLeftError: This call did its share, and others are at it.
    """
    artifact = _open(config, run, "known", {}, embeddings, texts)
    return artifact.manifest or _write(
        artifact, config, HitSource.KNOWN, texts, embeddings, task_shard
    )


def _open(
    config: MineConfig,
    run: RunDir,
    subfolder: str,
    fields: dict[str, Any],
    embeddings: Manifest,
    texts: Manifest | None = None,
) -> Artifact:
    return Artifact(
        run,
        "hits",
        config,
        subfolder=subfolder,
        fields={**key_fields(config, "hits"), **fields},
        inputs={
            **({"texts": texts.digest} if texts else {}),
            "embeddings": embeddings.digest,
        },
        overwrite=True,
    )


def _write(
    artifact: Artifact,
    config: MineConfig,
    source: HitSource,
    texts: Manifest,
    embeddings: Manifest,
    task_shard: TaskShard | None,
) -> Manifest:
    folders = [one.absolute() for one in (texts.folder, embeddings.folder, artifact.folder)]
    path = config.candidates and str(Path(config.candidates).absolute())
    worker = HitScorer(replace(config, candidates=path), source, *folders)
    counts = {"queries": len(worker.queries)}
    if source == HitSource.CANDIDATES:
        counts["lines_unknown"] = worker.num_unknown
    artifact.begin(worker.names)
    make_files(artifact, worker.names, worker, config, artifact.target.name, task_shard)
    return artifact.finish(worker.names, counts=counts)


def read_hits(manifest: Manifest, block: int, source: HitSource) -> HitBlock:
    """The hits of a block that one source proposed."""
    return HitBlock.read(manifest, manifest.content["files"][block]["file"], source)

"""Hits that other searches than the dense one propose, with their dense scores."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from stx_mine.core.ragged import Ragged
from stx_mine.engine.run import make_files
from stx_mine.settings import key_fields
from stx_mine.stages.mine.candidates import CandidateFile, Candidates
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.counts import CandidateCounts
from stx_mine.stages.mine.score_task import HitScorer
from stx_mine.store.artifact import Artifact, Manifest
from stx_mine.store.hits import HitSource
from stx_mine.store.lock import TaskShard
from stx_mine.store.run_dir import RunDir


def other_hits(
    source: HitSource,
    config: MineConfig,
    run: RunDir,
    texts: Manifest,
    embeddings: Manifest,
    task_shard: TaskShard | None,
) -> Manifest:
    """What another search than the dense one proposes, scored once.

    Args:
        source: Words (BM25), another retriever (candidates), or the input (known negatives).
        config: The config.
        run: The run directory.
        texts: The texts.
        embeddings: The vectors that score the hits.
        task_shard: What this call does of the tasks; None for all.

    Raises:
        ConfigError: The library of BM25 is not installed.
        InputError: The file of candidates is missing, malformed or of other texts.
        TaskShardsLeftError: This call did its part, and others are at work.
    """
    fields, inputs = key_fields(config, "hits"), {"embeddings": embeddings.digest}
    if source == HitSource.BM25:
        fields["depth"] = config.depth
    elif source == HitSource.CANDIDATES:
        assert config.candidates is not None
        file = CandidateFile.open(config.candidates)
        fields |= {"content": file.digest(), "names": file.names}
    else:
        inputs = {"texts": texts.digest, **inputs}
    artifact = Artifact(
        run, "hits", config, subfolder=source.folder, fields=fields, inputs=inputs, overwrite=True
    )
    return artifact.manifest or _write(artifact, config, source, texts, embeddings, task_shard)


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
    counts: CandidateCounts | dict[str, Any] = {"queries": len(worker.queries)}
    extra = {}
    if source == HitSource.CANDIDATES:
        extra["unknown"] = worker.candidates.examples
        counts = candidate_counts(worker.candidates, worker.listed)
    artifact.begin(worker.names)
    make_files(
        artifact, worker.names, worker, config, f"scoring {artifact.target.name}", task_shard
    )
    return artifact.finish(worker.names, counts=counts, extra=extra)


def candidate_counts(found: Candidates, listed: Ragged) -> CandidateCounts:
    """Counts of a file of candidates.

    Args:
        found: What its lines name.
        listed: (num queries,) distinct candidates of each query.
    """
    unknown = found.num_unknown
    return CandidateCounts(
        queries=len(listed),
        queries_named=int((listed.lengths() > 0).sum()),
        candidates=len(listed.values),
        lines=found.num_lines,
        lines_unknown=sum(unknown.values()),
        unknown_queries=unknown["query"],
        unknown_passages=unknown["passage"],
    )

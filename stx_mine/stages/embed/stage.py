"""Embed: every distinct text once, in shards that map into memory."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from stx_mine.engine.run import make_files
from stx_mine.engine.task_shards import task_shard_of
from stx_mine.settings import key_fields
from stx_mine.stages.embed.choices import Choices
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.embed.counts import EmbedCounts, ShardCounts
from stx_mine.stages.embed.devices import devices_of
from stx_mine.stages.embed.fidelity import refuse_overlap
from stx_mine.stages.embed.given_task import GivenVectors
from stx_mine.stages.embed.model_task import ROLE_OF_SHARDS, ShardEmbedder
from stx_mine.stages.embed.report import embed_report
from stx_mine.stages.embed.shards import VectorWriter
from stx_mine.stages.embed.tuning import choose_tuning
from stx_mine.stages.ingest.stage import run_ingest
from stx_mine.store.artifact import Artifact, Manifest, require
from stx_mine.store.lock import TaskShard
from stx_mine.store.places import refuse_input_within, refuse_taken
from stx_mine.store.run_dir import RunDir
from stx_mine.store.sources import stored_sources
from stx_mine.store.stage_report import StageReport

_VECTORS = ("query_vectors", "passage_vectors")


def run_embed(config: EmbedConfig) -> StageReport:
    """Ingest where PAIRS or sources are given, then embed into `embeddings/`.

    Raises:
        ModelError: The model cannot be loaded, or half precision changes too much.
        ArtifactError: There are no texts, or other embeddings are in the way.
        InputError: The model gives vectors that are not finite, or given ones fit no texts.
        TaskShardsLeftError: This call finished its task shard, and others are not finished.
    """
    run, task_shard = RunDir(config.run_dir, config.check), task_shard_of(config)
    # Before anything is read.
    refuse_taken(run.folder("embeddings"))
    has_input = config.pairs is not None or config.sources is not None
    parts = (run_ingest(config),) if has_input else ()
    has_gpu = torch.cuda.is_available()
    with run.lock(task_shard, begins=run.is_round):
        texts = require(run, "texts")
        worker = _worker(config, run, texts, task_shard)
        here = worker
        if isinstance(worker, ShardEmbedder) and (config.engine == "ray" or worker.copies):
            # Others embed; the devices are theirs.
            here = replace(worker, devices=("cpu",))
        contract = here.contract()
        if sources := stored_sources(texts):
            contract["source_prompts"] = {source.name: source.prompts for source in sources}
        fields = {**key_fields(config, "embeddings"), "model": contract}
        artifact = Artifact(
            run,
            "embeddings",
            config,
            # The content of files of vectors stands in the contract.
            fields={name: value for name, value in fields.items() if name not in _VECTORS},
            inputs={"texts": texts.digest},
            overwrite=config.overwrite,
        )
        if artifact.done:
            extra = artifact.result.extra
            refuse_overlap(config, Choices.from_json(extra["tuning"], extra["fidelity"]))
            return embed_report(artifact, config, parts, texts, has_gpu, skipped=True)
        folder, is_here = artifact.folder.absolute(), here is worker
        worker = worker.in_folder(folder)
        here = worker if is_here else here.in_folder(folder)
        names = list(worker.shards)
        _begin(artifact, names, worker, here)
        if isinstance(here, ShardEmbedder):
            # Opened before others do, who would not say what is damaged.
            _ = here.cache
        make_files(artifact, names, worker, config, "embedding", task_shard)
        with run.exclusive():
            # Another task shard may have finished at the same time.
            if not artifact.reload():
                _finish(artifact, config, worker, here, contract)
        return embed_report(artifact, config, parts, texts, has_gpu, skipped=False)


def _worker(
    config: EmbedConfig, run: RunDir, texts: Manifest, task_shard: TaskShard | None
) -> VectorWriter:
    """What makes the shards; its paths are absolute, so that it may run in another process."""
    vectors = (config.query_vectors, config.passage_vectors)
    refuse_input_within(run.folder("embeddings"), vectors)
    config = replace(
        config,
        model=_absolute(config.model) if Path(config.model).is_dir() else config.model,
        embedding_cache=config.embedding_cache and _absolute(config.embedding_cache),
        query_vectors=config.query_vectors and _absolute(config.query_vectors),
        passage_vectors=config.passage_vectors and _absolute(config.passage_vectors),
    )
    folders = texts.folder.absolute(), run.folder("embeddings").absolute()
    if config.query_vectors is not None:
        return GivenVectors(config, *folders)
    return ShardEmbedder(config, *folders, Path.cwd(), devices=devices_of(config, task_shard))


def _absolute(path: str) -> str:
    return str(Path(path).absolute())


def _begin(
    artifact: Artifact,
    names: list[str],
    worker: VectorWriter,
    here: VectorWriter,
) -> None:
    """Write the plan, with how texts go through the model; one task shard chooses for all."""
    with artifact.run.exclusive():
        # Another task shard may have finished in the meantime.
        if artifact.reload():
            return
        if isinstance(worker, GivenVectors):
            rows = worker.match()
            artifact.begin(names, Choices(None, "given").to_json())
            _remove_uncounted(artifact.folder, names)
            worker.write_rows(rows)
            return
        assert isinstance(worker, ShardEmbedder)
        assert isinstance(here, ShardEmbedder)
        if artifact.choices:
            choices = Choices.of_plan(artifact.choices)
        else:
            choices = choose_tuning(worker, here, artifact.run.path)
        refuse_overlap(worker.config, choices)
        artifact.begin(names, choices.plan_json())
        _remove_uncounted(artifact.folder, names)


def _remove_uncounted(folder: Path, names: list[str]) -> None:
    """Remove shards without counts, which are those of an artifact that has lost its manifest."""
    for name in names:
        if not ShardCounts.path(folder, name).exists():
            (folder / name).unlink(missing_ok=True)


def _finish(
    artifact: Artifact,
    config: EmbedConfig,
    worker: VectorWriter,
    here: VectorWriter,
    contract: dict[str, Any],
) -> None:
    cache = here.cache if isinstance(here, ShardEmbedder) else None
    segments_damaged = cache.num_damaged if cache else 0
    names, choices = list(worker.shards), Choices.of_plan(artifact.choices or {})
    by_role = dict.fromkeys(ROLE_OF_SHARDS, ShardCounts())
    for name, (role, _) in worker.shards.items():
        by_role[role] += ShardCounts.read(artifact.folder, name)
    opened = here.opened if isinstance(here, ShardEmbedder) and not config.is_function else None
    extra = {
        "contract": contract,
        "model": config.model if opened else None,
        "reading": opened.recorded() if opened else None,
        "notes": opened.notes if opened else (),
        "miner": config.miner,
        "prompts": _own_prompts(config),
        "fidelity": choices.fidelity_json(),
        "tuning": choices.to_json(),
    }
    artifact.finish(names, counts=EmbedCounts.of(by_role, segments_damaged), extra=extra)


def _own_prompts(config: EmbedConfig) -> dict[str, str]:
    """Prompts that were asked for, by the names that models have for them."""
    asked = {"query": config.query_prompt, "document": config.passage_prompt}
    return {name: prompt for name, prompt in asked.items() if prompt is not None}

"""Embed: every distinct text once, in shards that map into memory."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from stx_mine.engine.run import make_files
from stx_mine.engine.task_shards import local_rank, task_shard_of
from stx_mine.errors import ConfigError
from stx_mine.settings import key_fields
from stx_mine.stages.embed.config import DEFAULT_MODEL, EmbedConfig
from stx_mine.stages.embed.given_task import GivenVectors
from stx_mine.stages.embed.model_task import ROLE_OF_SHARDS, ShardEmbedder
from stx_mine.stages.embed.shard_counts import ShardCounts
from stx_mine.stages.embed.shards import VectorWriter
from stx_mine.stages.embed.tuning import choose_tuning, described, refuse_overlap
from stx_mine.stages.ingest.stage import run_ingest
from stx_mine.store.artifact import Artifact, Manifest, require
from stx_mine.store.lock import TaskShard
from stx_mine.store.report import StageReport, make_report
from stx_mine.store.run_dir import RunDir
from stx_mine.store.sources import stored_sources

_VECTORS = ("query_vectors", "passage_vectors")


def run_embed(config: EmbedConfig) -> StageReport:
    """Ingest where PAIRS or sources are given, then embed into `embeddings/`.

    Raises:
        ModelError: The model cannot be loaded, or half precision changes too much.
        ArtifactError: There are no texts, or other embeddings are in the way.
        InputError: The model gives vectors that are not finite, or given ones fit no texts.
        SharesLeftError: This call did its share, and others are at it.
    """
    given = config.pairs is not None or config.sources is not None
    parts = (run_ingest(config),) if given else ()
    run, task_shard = RunDir(config.run_dir), task_shard_of(config)
    with run.lock(task_shard, begins=run.is_round):
        texts = require(run, "texts")
        worker = _worker(config, run, texts, task_shard)
        here = worker
        if isinstance(worker, ShardEmbedder) and (config.engine == "ray" or worker.copies):
            # Others embed; the devices are theirs.
            here = replace(worker, devices=("cpu",))
        contract = here.contract()
        if sources := stored_sources(texts):
            contract["source_prompts"] = {one.name: one.prompts for one in sources}
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
            refuse_overlap(config, artifact.result.extra["fidelity"])
            return _report(artifact, config, parts, skipped=True)
        names = list(worker.shards)
        _begin(artifact, names, worker, here)
        make_files(artifact, names, worker, config, "embed", task_shard)
        with run.exclusive():
            # Another share may have ended at the same time.
            if not artifact.reload():
                _finish(artifact, config, worker, contract)
        return _report(artifact, config, parts)


def _worker(
    config: EmbedConfig, run: RunDir, texts: Manifest, task_shard: TaskShard | None
) -> VectorWriter:
    """What makes the shards, with absolute paths: it may travel."""
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
    return ShardEmbedder(config, *folders, Path.cwd(), devices_of(config, task_shard))


def _absolute(path: str) -> str:
    return str(Path(path).absolute())


def devices_of(config: EmbedConfig, task_shard: TaskShard | None) -> tuple[str, ...]:
    """A device a process: those named, else all GPUs where there are several.

    Raises:
        ConfigError: A name is that of no device.
    """
    if config.device is not None:
        named = tuple(one.strip() for one in config.device.split(","))
        for one in named:
            _check_device(one)
        return named
    if config.backend == "openvino":
        return ("cpu",)
    if config.encoder is not None or config.engine == "ray":
        return ()
    gpus = tuple(f"cuda:{number}" for number in range(torch.cuda.device_count()))
    if task_shard is not None and gpus and (rank := local_rank()) is not None:
        return (gpus[rank % len(gpus)],)
    return gpus if len(gpus) > 1 else ()


def _check_device(name: str) -> None:
    """See that torch knows a name, before a process takes it and others do all the tasks."""
    try:
        torch.device(name)
    except RuntimeError as error:
        raise ConfigError(
            f"--device expects cpu, cuda, cuda:1, mps or the like, one or several joined by "
            f"commas, found {name!r}; name one that is here, or leave it out"
        ) from error


def _begin(
    artifact: Artifact,
    names: list[str],
    worker: VectorWriter,
    here: VectorWriter,
) -> None:
    """Write the plan, with how texts go through the model; one share chooses for all."""
    with artifact.run.exclusive():
        # Another share may have ended in the meantime.
        if artifact.reload():
            return
        if isinstance(worker, GivenVectors):
            rows = worker.match()
            artifact.begin(names, {"tuning": None, "reason": "given", "trials": []})
            worker.write_rows(rows)
            return
        assert isinstance(worker, ShardEmbedder)
        assert isinstance(here, ShardEmbedder)
        choices = artifact.choices or choose_tuning(worker, here, artifact.run.path)
        refuse_overlap(worker.config, choices["fidelity"])
        artifact.begin(names, choices)


def _finish(
    artifact: Artifact,
    config: EmbedConfig,
    worker: VectorWriter,
    contract: dict[str, Any],
) -> None:
    names, choices = list(worker.shards), dict(artifact.choices or {})
    counts = {
        "queries": len(worker.store.queries),
        "passages": len(worker.store.passages),
        **_shard_counts(artifact, worker.shards),
    }
    extra = {
        "contract": contract,
        "model": None if config.encoder or config.query_vectors else config.model,
        "miner": _named(config),
        "prompts": _own_prompts(config),
        "fidelity": choices.pop("fidelity", None),
        "tuning": choices,
    }
    artifact.finish(names, counts=counts, extra=extra)
    for name in names:
        ShardCounts.path(artifact.folder, name).unlink(missing_ok=True)
    if isinstance(worker, GivenVectors):
        worker.remove_rows()


def _own_prompts(config: EmbedConfig) -> dict[str, str]:
    """Prompts that were asked for, by the names that models have for them."""
    asked = {"query": config.query_prompt, "document": config.passage_prompt}
    return {name: prompt for name, prompt in asked.items() if prompt is not None}


def _shard_counts(artifact: Artifact, shards: dict[str, tuple[str, int]]) -> dict[str, Any]:
    """What happened to the texts of all shards; ids of zero vectors by role."""
    by_role = dict.fromkeys(ROLE_OF_SHARDS, ShardCounts())
    for name, (role, _) in shards.items():
        by_role[role] += ShardCounts.read(artifact.folder, name)
    found = asdict(sum(by_role.values(), ShardCounts()))
    found["zero_vectors"] = {role: counts.zero_vectors for role, counts in by_role.items()}
    return {name: count for name, count in found.items() if name != "texts"}


def _named(config: EmbedConfig) -> str:
    """What embeds, for people."""
    if config.query_vectors is not None:
        return f"{config.query_vectors} and {config.passage_vectors}"
    return config.encoder or config.model


def _report(
    artifact: Artifact, config: EmbedConfig, parts: tuple[StageReport, ...], skipped: bool = False
) -> StageReport:
    counts, extra = artifact.result.counts, artifact.result.extra
    contract = extra["contract"]
    lines = [
        f"{counts['queries']:,} queries and {counts['passages']:,} passages embedded with "
        f"{_named(config)} ({contract['dim']} dimensions, {contract['similarity']})",
        *described(extra, counts),
    ]
    for name, prompts in contract.get("source_prompts", {}).items():
        named = ", ".join(
            f"{role} prompt {prompt!r}" for role, prompt in prompts.items() if prompt is not None
        )
        lines.append(f"source {name}: {named or 'the prompts of the model'}")
    if torch.cuda.is_available() and extra["model"] == DEFAULT_MODEL:
        lines.append(
            "a GPU is here: a transformer, for example --model BAAI/bge-small-en-v1.5, mines "
            "better negatives than the static default"
        )
    return make_report(artifact, lines, _warnings(counts), parts=parts, skipped=skipped)


def _warnings(counts: dict[str, Any]) -> list[str]:
    warnings = [
        f"{len(ids):,} {role} have a zero vector (ids {', '.join(map(str, ids[:5]))}"
        f"{' ...' if len(ids) > 5 else ''}): the model knows none of their words, they score 0"
        for role, ids in counts["zero_vectors"].items()
        if ids
    ]
    if counts["halvings"]:
        warnings.append(
            f"memory ran out and the tokens of a batch were halved {counts['halvings']} times; "
            "give a smaller --batch-tokens to begin with"
        )
    return warnings

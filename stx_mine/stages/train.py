"""Train: a model on the packed batches of the run, published into `model/`."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer
from torch import nn

from stx_mine.artifacts.artifact import Artifact, require
from stx_mine.artifacts.batches import CARD, Shard, list_packings
from stx_mine.artifacts.run_dir import RunDir
from stx_mine.artifacts.sources import SourceInfo, prompts_differ
from stx_mine.config import TrainConfig, key_fields
from stx_mine.errors import ConfigError
from stx_mine.models.encoder import SentenceTransformerEncoder
from stx_mine.models.load import is_static
from stx_mine.stages.packings import MIN_STEPS
from stx_mine.stages.report import StageReport, make_report
from stx_mine.train.learning_rate import default_learning_rate
from stx_mine.train.loss import PackedMNRLoss, PackedTripletLoss
from stx_mine.train.trainer import Schedule, count_parameters, train

# Tokens of a mini-batch: on a CPU more than a cache holds gains nothing (1,024 to 4,096 tie).
_CPU_TOKENS, _GPU_TOKENS = 2_048, 32_768
_CHECKPOINTS, _SAVING, _LOG = "checkpoints", "saving", "training_log.jsonl"


def run_train(config: TrainConfig) -> StageReport:
    """Train and write `model/`, which `SentenceTransformer` loads.

    Raises:
        ConfigError: The batches are of (text, label) rows.
        ModelError: The model cannot be loaded.
        ArtifactError: Batches are missing, or another model is in the way.
    """
    run = RunDir(config.run_dir)
    with run.lock():
        batches = require(run, "batches")
        if batches.fields["layout"] == "labels":
            raise ConfigError(
                f"{batches.folder}/ holds (text, label) batches, which --loss {config.loss} cannot "
                "read; run `stx-mine pack --layout inline --overwrite`, or train on them as "
                f"{batches.folder / CARD} says"
            )
        embedded = require(run.first_round, "embeddings")
        name = config.model or embedded.extra["model"]
        max_length = config.max_length or embedded.fields["max_length"]
        encoder = SentenceTransformerEncoder.load(name, config.device, max_length, 1)
        artifact = Artifact(
            run,
            "model",
            fields={**key_fields(config, "model"), "model": encoder.contract()},
            inputs={"batches": batches.digest},
            overwrite=config.overwrite,
        )
        if artifact.done:
            return _report(artifact, skipped=True)
        artifact.begin(["modules.json"])
        packings = list_packings(batches.folder)
        schedule, reason = _schedule(config, encoder.model, packings)
        loss = _loss(config, encoder.model)
        checkpoints = artifact.folder / _CHECKPOINTS
        log = train(encoder.model, loss, packings, schedule, checkpoints)
        _name_prompts(encoder.model, packings[0][0].sources)
        files = _publish(encoder.model, artifact.folder, log)
        counts = _counts(packings, schedule, log)
        extra = {"base_model": name, "learning_rate_reason": reason}
        artifact.finish(files, config=asdict(config), counts=counts, extra=extra)
        shutil.rmtree(checkpoints, ignore_errors=True)
        return _report(artifact)


def _schedule(
    config: TrainConfig, model: SentenceTransformer, packings: list[list[Shard]]
) -> tuple[Schedule, str]:
    size = packings[0][0].batch_size
    rate, reason = default_learning_rate(size, count_parameters(model), is_static(model))
    if config.learning_rate is not None:
        rate, reason = config.learning_rate, "as asked"
    schedule = Schedule(
        num_passes=config.epochs or len(packings),
        learning_rate=rate,
        warmup=config.warmup,
        seed=config.seed,
        checkpoint_steps=config.checkpoint_steps,
    )
    return schedule, reason


def _loss(config: TrainConfig, model: SentenceTransformer) -> nn.Module:
    tokens = config.batch_tokens or (_CPU_TOKENS if model.device.type == "cpu" else _GPU_TOKENS)
    if config.loss == "triplet":
        return PackedTripletLoss(model, config.triplet_margin, tokens)
    return PackedMNRLoss(model, config.temperature, config.chunk_rows, tokens)


def _name_prompts(model: SentenceTransformer, sources: Sequence[SourceInfo]) -> None:
    """Leave the prompts of the sources in the model: its own where they agree, else by name."""
    agree = not prompts_differ(sources)
    for one in sources:
        for role, name in (("query", "query"), ("passage", "document")):
            prompt = one.prompts[role]
            if prompt is not None:
                model.prompts[name if agree else f"{one.name}-{name}"] = prompt


def _publish(model: SentenceTransformer, folder: Path, log: list[dict[str, Any]]) -> list[str]:
    """Save beside, then move every file into its place."""
    saving = folder / _SAVING
    shutil.rmtree(saving, ignore_errors=True)
    model.save_pretrained(str(saving))
    lines = "".join(json.dumps(entry) + "\n" for entry in log)
    (saving / _LOG).write_text(lines, "utf-8")
    files = sorted(
        path.relative_to(saving).as_posix() for path in saving.rglob("*") if path.is_file()
    )
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (saving / name).replace(folder / name)
    shutil.rmtree(saving)
    return files


def _counts(
    packings: list[list[Shard]], schedule: Schedule, log: list[dict[str, Any]]
) -> dict[str, Any]:
    size = packings[0][0].batch_size
    batches = sum(shard.num_batches for shard in packings[0])
    losses = [entry["loss"] for entry in log if "loss" in entry]
    seconds = next((entry["train_runtime"] for entry in log if "train_runtime" in entry), 0.0)
    return {
        "steps": batches * schedule.num_passes,
        "packings": len(packings),
        "passes": schedule.num_passes,
        "batch_size": size,
        "rows_seen": batches * schedule.num_passes * size,
        "learning_rate": schedule.learning_rate,
        "first_loss": losses[0] if losses else None,
        "last_loss": losses[-1] if losses else None,
        "seconds": seconds,
    }


def _report(artifact: Artifact, skipped: bool = False) -> StageReport:
    manifest = artifact.result
    counts, extra = manifest.counts, manifest.extra
    lines = [
        f"{counts['steps']:,} steps of {counts['batch_size']:,} rows over {counts['passes']} "
        f"passes through {counts['packings']} packings, {counts['seconds']:.0f} s",
        f"learning rate {counts['learning_rate']:.3g} ({extra['learning_rate_reason']})",
        f"training loss {counts['first_loss']:.4f} -> {counts['last_loss']:.4f}; no evaluation "
        "data in training, so no early stopping: judge with `stx-mine evaluate`",
        f'load it with SentenceTransformer("{manifest.folder}")',
    ]
    warnings = []
    if counts["steps"] < MIN_STEPS:
        warnings.append(
            f"{counts['steps']} steps are few; a smaller `pack --batch-size` or `--epochs "
            f"{-(-MIN_STEPS * counts['passes'] // counts['steps'])}` would make {MIN_STEPS} or more"
        )
    return make_report(artifact, lines, warnings, skipped=skipped)

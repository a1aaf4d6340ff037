"""Train: a model on the packed batches of the run, published into `model/`."""

import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer

from stx_mine.errors import ConfigError
from stx_mine.models.encoder import SentenceTransformerEncoder, weights_digest
from stx_mine.settings import key_fields
from stx_mine.stages.evaluate.model_card import write_card
from stx_mine.stages.pack.packings import MIN_STEPS
from stx_mine.stages.train.callbacks import check_reporters
from stx_mine.stages.train.choice import (
    check_batches,
    check_model,
    loss_counts,
    make_collator,
    make_loss,
)
from stx_mine.stages.train.config import TrainConfig
from stx_mine.stages.train.evaluation_sets import open_evaluation_sets, read_evaluation_sets
from stx_mine.stages.train.held_back import HeldBack, hold_back
from stx_mine.stages.train.lora import add_lora, merge_lora
from stx_mine.stages.train.processes import Processes, joined
from stx_mine.stages.train.schedule import Schedule
from stx_mine.stages.train.trainer import Trained, check_num_processes, count_steps, train
from stx_mine.stages.train.trainer_options import (
    refuse_arguments,
    refuse_launcher,
    refuse_shapes,
    user_arguments,
)
from stx_mine.stages.train.training import (
    choose_rate,
    diagnose_run,
    how_evaluated,
    kept_best,
    make_looks,
    make_schedule,
    warn_of_evaluation,
)
from stx_mine.store.artifact import MANIFEST, Artifact, Manifest, read_manifest, require
from stx_mine.store.batches import list_packings
from stx_mine.store.report import StageReport, make_report
from stx_mine.store.run_dir import RunDir
from stx_mine.store.sources import SourceInfo, prompts_differ
from stx_mine.store.training_log import TRAINING_LOG, read_log

_CHECKPOINTS, _SAVING = "checkpoints", "saving"


def run_train(config: TrainConfig) -> StageReport:
    """Train and write `model/`, which `SentenceTransformer` loads.

    Under torchrun or `accelerate launch` every process calls it; the first holds the lock and
    writes, and all return the same report.

    Raises:
        ConfigError: The loss cannot read the batches or use the model; the processes cannot share
            a batch equally, or lack GPUs.
        ModelError: The model cannot be loaded.
        ArtifactError: Batches are missing, or another model is in the way.
    """
    refuse_launcher(config.precision)
    options = user_arguments(
        config.trainer_option, config.precision, config.gradient_checkpointing, config.compile
    )
    with joined(config.device) as processes, ExitStack() as held:
        run = RunDir(config.run_dir)
        with processes.first_goes_ahead():
            if processes.is_first:
                held.enter_context(run.lock())
            student, guide, artifact = _open(config, run, processes)
            refuse_arguments(options, student.model.device.type == "cpu")
            refuse_shapes(student.model, config.gradient_checkpointing, config.pad_to)
            if config.lora_rank is not None and not artifact.done:
                alpha = config.lora_alpha or 2 * config.lora_rank
                add_lora(student.model, config.lora_rank, alpha, config.seed)
        if artifact.done:
            if processes.is_first:
                write_card(run)
            return _report(artifact, skipped=True)
        kept = hold_back(
            list_packings(run.folder("batches")), config.validation_share, processes.size
        )
        packings = kept.packings
        loss = make_loss(config, student.model, guide)
        collator = make_collator(config, student.model, packings, guide)
        choices = artifact.choices or choose_rate(
            config, student.model, loss, packings, collator, processes, options
        )
        with processes.first_goes_ahead():
            if processes.is_first:
                artifact.begin(["modules.json"], choices)
        schedule = make_schedule(config, packings, choices["learning_rate"])
        sets = read_evaluation_sets(config) if processes.is_first else []
        looks = make_looks(config, student.model, kept, schedule, artifact.folder, sets, processes)
        checkpoints = artifact.folder / _CHECKPOINTS
        trained = train(
            student.model,
            loss,
            packings,
            collator,
            schedule,
            checkpoints,
            processes.size,
            looks,
            options,
        )
        with processes.first_goes_ahead():
            if processes.is_first:
                if config.lora_rank is not None:
                    merge_lora(student.model)
                _name_prompts(student.model, packings[0][0].sources)
                files = [*_publish(student.model, artifact.folder), TRAINING_LOG]
                log = read_log(artifact.folder / TRAINING_LOG)
                counts = _counts(kept, schedule, trained, log, processes.size) | loss_counts(loss)
                extra = {
                    "base_model": student.name,
                    "weights": weights_digest(student.model),
                    "learning_rate_reason": choices["learning_rate_reason"],
                    "evaluation": kept_best(log, trained.best_step),
                    "diagnoses": diagnose_run(run, log, config.kind.labels, sets),
                }
                artifact.finish(sorted(files), counts=counts, extra=extra)
                write_card(run)
                shutil.rmtree(checkpoints, ignore_errors=True)
            else:
                artifact.manifest = read_manifest(artifact.folder)
        return _report(artifact)


def _open(
    config: TrainConfig, run: RunDir, processes: Processes
) -> tuple[SentenceTransformerEncoder, SentenceTransformer | None, Artifact]:
    """The model to train, its guide and the artifact to make; reads only: every process may."""
    check_reporters(config.report_to)
    batches = require(run, "batches")
    check_batches(config, list_packings(batches.folder)[0][0], batches.content["config"])
    check_num_processes(processes.size, int(batches.fields["batch_size"]))
    evaluation = open_evaluation_sets(config)
    name, max_length, prompts = _base_model(config, run, batches)
    student = SentenceTransformerEncoder.load(name, processes.device, max_length, 1)
    # Prompts that `embed` was given are those of the run, in training and in the model it leaves.
    student.model.prompts.update(prompts)
    check_model(config, student.model, processes.size)
    fields, guide = {**key_fields(config, "model"), "model": student.contract()}, None
    fields["evaluation_content"] = [one.fingerprint() for one in evaluation.values()]
    if config.guide is not None:
        guiding = SentenceTransformerEncoder.load(config.guide, str(student.model.device), None, 1)
        fields["guide"], guide = guiding.contract(), guiding.model.requires_grad_(False)
    artifact = Artifact(
        run,
        "model",
        config,
        fields=fields,
        inputs={"batches": batches.digest},
        overwrite=config.overwrite,
    )
    return student, guide, artifact


def _base_model(
    config: TrainConfig, run: RunDir, batches: Manifest
) -> tuple[str, int | None, dict[str, str]]:
    """Name of the model to train, its length limit, and the prompts that `embed` was given.

    Raises:
        ConfigError: (text, label) batches of a file are all there is, and no model is named.
        ArtifactError: There are no embeddings.
    """
    first = run.first_round
    if (
        batches.fields["layout"] == "labels"
        and not (first.folder("embeddings") / MANIFEST).exists()
    ):
        if config.model is None:
            raise ConfigError(
                f"expected --model, found none and no model that embedded {first.path}/; give "
                "--model package:wordllama or another"
            )
        return config.model, config.max_length, {}
    embedded = require(first, "embeddings")
    name = config.model or embedded.extra["model"]
    length = config.max_length or embedded.fields["max_length"]
    return name, length, embedded.extra["prompts"]


def _name_prompts(model: SentenceTransformer, sources: Sequence[SourceInfo]) -> None:
    """Leave the prompts of the sources in the model: its own where they agree, else by name."""
    agree = not prompts_differ(sources)
    for one in sources:
        for role, name in (("query", "query"), ("passage", "document")):
            prompt = one.prompts[role]
            if prompt is not None:
                model.prompts[name if agree else f"{one.name}-{name}"] = prompt


def _publish(model: SentenceTransformer, folder: Path) -> list[str]:
    """Save beside, then move every file into its place."""
    saving = folder / _SAVING
    shutil.rmtree(saving, ignore_errors=True)
    # The library's card would describe numbers of rows.
    model.save_pretrained(str(saving), create_model_card=False)
    files = sorted(
        path.relative_to(saving).as_posix() for path in saving.rglob("*") if path.is_file()
    )
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (saving / name).replace(folder / name)
    shutil.rmtree(saving)
    return files


def _counts(
    kept: HeldBack,
    schedule: Schedule,
    trained: Trained,
    log: list[dict[str, Any]],
    num_processes: int,
) -> dict[str, Any]:
    losses = [one["loss"] for one in log if "loss" in one]
    return {
        "steps": trained.steps,
        "steps_planned": count_steps(kept.packings, schedule.num_passes),
        "packings": len(kept.packings),
        "passes": schedule.num_passes,
        "batch_size": kept.packings[0][0].batch_size,
        "processes": num_processes,
        "rows_seen": kept.rows_of_steps(trained.steps, schedule.num_passes, schedule.seed),
        "rows_held_back": kept.num_rows,
        "learning_rate": schedule.learning_rate,
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "seconds": log[-1]["seconds"],
    }


def _report(artifact: Artifact, skipped: bool = False) -> StageReport:
    manifest = artifact.result
    counts, extra = manifest.counts, manifest.extra
    lines = [
        f"{counts['steps']:,} steps of {counts['batch_size']:,} rows over {counts['passes']} "
        f"passes through {counts['packings']} packings, {counts['seconds']:.0f} s, processes: "
        f"{counts['processes']}",
        f"learning rate {counts['learning_rate']:.3g} ({extra['learning_rate_reason']})",
        f"training loss {counts['first_loss']:.4f} -> {counts['last_loss']:.4f}"
        f"{how_evaluated(extra['evaluation'], counts)}",
        f"how it went is in {manifest.folder / TRAINING_LOG}",
        f'load it with SentenceTransformer("{manifest.folder}")',
    ]
    if "masked_by_guide" in counts:
        lines.append(
            f"the guide masked {counts['masked_by_guide']:.2%} of all (row, passage) of the batches"
        )
    warnings = []
    if counts["steps"] < MIN_STEPS:
        warnings.append(
            f"{counts['steps']} steps are few; a smaller `pack --batch-size` or `--epochs "
            f"{-(-MIN_STEPS * counts['passes'] // counts['steps'])}` would make {MIN_STEPS} or more"
        )
    warnings += [*warn_of_evaluation(extra["evaluation"]), *extra["diagnoses"]]
    return make_report(artifact, lines, warnings, skipped=skipped)

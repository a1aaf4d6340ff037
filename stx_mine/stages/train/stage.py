"""Train: a model on the packed batches of the run, published into `model/`."""

from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

from sentence_transformers import SentenceTransformer

from stx_mine.errors import TrainingError
from stx_mine.models.adapter import has_adapter
from stx_mine.models.encoder import SentenceTransformerEncoder, weights_digest
from stx_mine.settings import key_fields
from stx_mine.stages.evaluate.model_card import write_card
from stx_mine.stages.train.callbacks import check_reporters
from stx_mine.stages.train.checkpoints import remove_incomplete
from stx_mine.stages.train.choice import check_batches, make_collator, make_loss, masked_shares
from stx_mine.stages.train.config import TrainConfig
from stx_mine.stages.train.counts import TrainCounts
from stx_mine.stages.train.diagnose import diagnose_run
from stx_mine.stages.train.evaluation_sets import (
    SetsOfTraining,
    evaluation_fields,
    read_training_sets,
    sets_in_training,
)
from stx_mine.stages.train.evaluations import BestEvaluation, EvaluationPlan
from stx_mine.stages.train.held_back import hold_back
from stx_mine.stages.train.lora import merge_adapters
from stx_mine.stages.train.losses.weighted_sum import faint_terms
from stx_mine.stages.train.merged_base import merge_with_base
from stx_mine.stages.train.model_files import CHECKPOINTS, publish_model, remove_checkpoints
from stx_mine.stages.train.outcome import finish_weights, refuse_outcome
from stx_mine.stages.train.processes import Processes, joined
from stx_mine.stages.train.report import train_report
from stx_mine.stages.train.run_choices import RunChoices, choose_for_run
from stx_mine.stages.train.schedule import Schedule
from stx_mine.stages.train.student import add_adapters, load_student
from stx_mine.stages.train.trainer import Trained, check_num_processes, train
from stx_mine.stages.train.trainer_options import (
    precision_arguments,
    refuse_arguments,
    refuse_launcher,
    refuse_shapes,
    user_arguments,
)
from stx_mine.store.artifact import Artifact, require
from stx_mine.store.batches import list_packings
from stx_mine.store.run_dir import RunDir
from stx_mine.store.stage_report import StageReport
from stx_mine.store.training_log import TRAINING_LOG, read_log


def run_train(config: TrainConfig) -> StageReport:
    """Train and write `model/`, which `SentenceTransformer` loads.

    Under torchrun or `accelerate launch` every process calls it; the first holds the lock and
    writes, and all return the same report.

    Raises:
        ConfigError: The loss cannot read the batches or use the model; the processes cannot share
            a batch equally, or lack GPUs.
        ModelError: The model cannot be loaded.
        TrainingError: Its loss rose or is not finite, or its weights are not; nothing is published.
        ArtifactError: Batches are missing, or another model is in the way.
    """
    refuse_launcher(config.precision)
    options = user_arguments(config.trainer_option, config.gradient_checkpointing, config.compile)
    with joined(config.device) as processes, ExitStack() as held:
        run = RunDir(config.run_dir, config.check)
        with processes.first_goes_ahead():
            if processes.is_first:
                held.enter_context(run.lock())
            student, guide, artifact = _open(config, run, processes)
            asked = options | precision_arguments(config.precision)
            refuse_arguments(asked, student.model.device.type == "cpu")
            refuse_shapes(student.model, config.gradient_checkpointing, config.pad_to)
            if not artifact.done:
                student = add_adapters(config, student)
        if artifact.done:
            if processes.is_first:
                # A call that was killed may not have come so far.
                write_card(run)
            return train_report(artifact, skipped=True)
        removed = _train(config, run, student, guide, artifact, processes, options)
        return train_report(artifact, removed=removed)


def _train(
    config: TrainConfig,
    run: RunDir,
    student: SentenceTransformerEncoder,
    guide: SentenceTransformer | None,
    artifact: Artifact,
    processes: Processes,
    options: dict[str, Any],
) -> list[str]:
    """Train the student, finish the artifact; names of earlier checkpoints that were not whole."""
    kept = hold_back(list_packings(run.folder("batches")), config.validation_share, processes.size)
    packings, model, removed = kept.packings, student.model, list[str]()
    loss = make_loss(config, model, guide, packings[0][0].judge is not None)
    collator = make_collator(config, model, packings, guide)
    choices = (
        RunChoices(**artifact.choices)
        if artifact.choices
        else choose_for_run(config, model, loss, packings, collator, processes, options)
    )
    options = options | precision_arguments(choices.precision)
    with processes.first_goes_ahead():
        if processes.is_first:
            artifact.begin(["modules.json"], asdict(choices))
            removed += remove_incomplete(artifact.folder / CHECKPOINTS)
    schedule = Schedule.of(config, packings, choices.learning_rate)
    held_out = read_training_sets(config, run) if processes.is_first else SetsOfTraining()
    log = artifact.folder / TRAINING_LOG
    plan = EvaluationPlan.of(config, model, kept, schedule, log, held_out.watched, processes)
    checkpoints = artifact.folder / CHECKPOINTS
    try:
        trained = train(
            model, loss, packings, collator, schedule, checkpoints, processes.size, plan, options
        )
        with processes.first_goes_ahead():
            if not processes.is_first:
                artifact.reload()
                return removed
            files, extra = _publish(config, run, student, artifact, trained, choices, held_out)
            steps, masked = trained.steps, masked_shares(loss)
            counts = TrainCounts.of_run(
                kept, schedule, steps, read_log(log), processes.size, masked
            )
            artifact.finish(files, counts=counts, extra=extra)
            write_card(run)
    except TrainingError:
        # From weights that training harmed no later call shall continue.
        remove_checkpoints(artifact.folder)
        raise
    return removed


def _publish(
    config: TrainConfig,
    run: RunDir,
    student: SentenceTransformerEncoder,
    artifact: Artifact,
    trained: Trained,
    choices: RunChoices,
    held_out: SetsOfTraining,
) -> tuple[list[str], dict[str, Any]]:
    """Write the files of a model that training did not harm: their names, and `extra`."""
    model, lines = student.model, read_log(artifact.folder / TRAINING_LOG)
    sets = held_out.watched
    best = BestEvaluation.of_log(lines, trained.best_step)
    warnings = refuse_outcome(lines, best, choices.learning_rate)
    if has_adapter(model):
        merge_adapters(model)
    shard = list_packings(run.folder("batches"))[0][0]
    merged = merge_with_base(config, run, student, artifact, shard.sources, held_out)
    finish_weights(model, config.save_dtype)
    warnings += faint_terms(config, shard)
    files = [*publish_model(model, artifact.folder, shard.sources), TRAINING_LOG]
    return sorted(files), {
        "base_model": student.name,
        "reading": student.recorded,
        "notes": student.notes,
        "weights": weights_digest(model),
        **asdict(choices),
        "evaluation": None if best is None else asdict(best),
        "merged_with_base": None if merged is None else asdict(merged),
        "evaluation_sets": {one.name: one.counts.to_json() for one in sets},
        "evaluation_read": {one.name: one.read for one in sets},
        "seen_in_training": sets_in_training(run, sets),
        "diagnoses": warnings + diagnose_run(run, lines, config.kind.labels, sets),
    }


def _open(
    config: TrainConfig, run: RunDir, processes: Processes
) -> tuple[SentenceTransformerEncoder, SentenceTransformer | None, Artifact]:
    """The model to train, its guide and the artifact to make; reads only: every process may."""
    check_reporters(config.report_to)
    batches = require(run, "batches")
    check_batches(config, list_packings(batches.folder)[0][0], batches.content["config"])
    check_num_processes(processes.size, int(batches.fields["batch_size"]))
    of_sets = evaluation_fields(config, run)
    student = load_student(config, run, batches, processes)
    fields, guide = {**key_fields(config, "model"), "model": student.contract()}, None
    fields |= of_sets
    if config.guide is not None:
        guiding = SentenceTransformerEncoder.load(
            config.guide, str(student.model.device), None, 1, config.reading.of_another()
        )
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

"""Packing of the layout `labels`: (text, label) rows for losses over labels."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stx_mine.core.ragged import Ragged
from stx_mine.engine.local import run_tasks
from stx_mine.errors import ConfigError
from stx_mine.inputs.files import InputFile
from stx_mine.settings import key_fields
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.core.assign import Assignment
from stx_mine.stages.pack.labels.advice import smaller_batch, too_large
from stx_mine.stages.pack.labels.card import label_card
from stx_mine.stages.pack.labels.core.batches import assign_labels, largest_batch, most_batches
from stx_mine.stages.pack.labels.counts import LabelCounts
from stx_mine.stages.pack.labels.report import labels_dry_run_report, labels_report
from stx_mine.stages.pack.labels.source import LabelSource
from stx_mine.stages.pack.packings import (
    MIN_EPOCH_STEPS,
    assign_packings,
    batches_of_shards,
    left_out_last,
)
from stx_mine.stages.pack.shard_files import write_positives, write_shard
from stx_mine.store.artifact import Artifact, require
from stx_mine.store.batches import POSITIVES
from stx_mine.store.dataset_card import DATASET_CARD
from stx_mine.store.files import checksum
from stx_mine.store.groups import TextGroups
from stx_mine.store.labels import LABELS, write_labels
from stx_mine.store.manifest import refuse_damaged
from stx_mine.store.run_dir import RunDir
from stx_mine.store.stage_report import StageReport
from stx_mine.store.texts import TextStore


def pack_labels(config: PackConfig, run: RunDir) -> StageReport:
    """Write `batches/` in the layout `labels`, or on a dry run only say what it would hold.

    Raises:
        InputError: The file of labels is missing or malformed, or no two labels have two texts.
        ConfigError: No batch of this size can be filled.
        ArtifactError: Texts are missing, or other batches are in the way.
    """
    with run.lock(begins=config.labeled is not None):
        fields = key_fields(config, "batches")
        inputs = {}
        if config.labeled is None:
            inputs = {name: require(run, name).digest for name in ("texts", "groups")}
        else:
            refuse_damaged(config.labeled)
            # A file is known by its content, wherever it lies.
            fields["labeled"] = checksum(InputFile.open(Path(config.labeled))[0].path)
        if config.dry_run:
            source = _open(config, run)
            counts = _counts(config, source, _assign(config, source))
            folder = str(run.folder("batches"))
            return labels_dry_run_report(config, counts, source.example, folder)
        artifact = Artifact(
            run, "batches", config, fields=fields, inputs=inputs, overwrite=config.overwrite
        )
        if artifact.done:
            return labels_report(artifact, config, skipped=True)
        source = _open(config, run)
        _write(artifact, config, source, _assign(config, source))
        return labels_report(artifact, config)


def _open(config: PackConfig, run: RunDir) -> LabelSource:
    if config.labeled is not None:
        return LabelSource.of_file(config)
    store, groups = TextStore.open(require(run, "texts")), TextGroups.open(require(run, "groups"))
    return LabelSource.of_pairs(store, groups)


def _assign(config: PackConfig, source: LabelSource) -> list[Assignment]:
    """Assign every packing.

    Raises:
        ConfigError: Not one batch can be filled.
    """
    size, each, sizes = config.batch_size, config.texts_per_label, source.labels.texts.lengths()
    if most_batches(sizes, size, each) == 0:
        raise ConfigError(too_large(config, sizes))

    def assign(earlier: Sequence[Assignment]) -> Assignment:
        rng = np.random.default_rng([config.seed, len(earlier)])
        return assign_labels(source.labels, size, each, left_out_last(earlier), rng)

    packings = assign_packings(assign, config.packings)
    if not len(packings[0].rows_PB):
        raise ConfigError(
            f"no batch of {size:,} rows can be filled: labels that share a text or are joined by a "
            f"pair keep apart, and groups of 2 to {each} texts must add up to a batch; "
            f"{smaller_batch(config, source.labels)}"
        )
    return packings


def _write(
    artifact: Artifact, config: PackConfig, source: LabelSource, packings: list[Assignment]
) -> None:
    tasks = batches_of_shards(config, packings)
    files = [*tasks, LABELS, POSITIVES]
    counts = _counts(config, source, packings)
    artifact.begin([*files, DATASET_CARD], {"packings": counts.packings, "batches": counts.batches})

    def write(path: str) -> None:
        packing, rows_PB, first = tasks[path]
        footer = {
            "batch_size": config.batch_size,
            "texts_per_label": config.texts_per_label,
            "layout": config.layout,
            "seed": config.seed,
            "epoch": packing,
            "first_batch": first,
            "key": artifact.plan["key"],
        }
        write_shard(artifact.folder / path, source.table(rows_PB.ravel()), footer)

    run_tasks(artifact.pending(list(tasks)), write, "writing shards")
    write_labels(artifact.folder / LABELS, source.names, source.labels.texts)
    near = Ragged(np.zeros(len(source.positives) + 1, np.int64), np.empty(0, np.int64))
    write_positives(artifact.folder / POSITIVES, source.anchor_ids, source.positives, near)
    card = label_card(config, counts)
    artifact.finish(files, counts=counts, extra={"example": source.example}, card=card)


def _counts(config: PackConfig, source: LabelSource, packings: list[Assignment]) -> LabelCounts:
    size, sizes = config.batch_size, source.labels.texts.lengths()
    num_batches, rows = len(packings[0].rows_PB), len(source.labels.texts.values)
    too_many = int(np.maximum(sizes - num_batches * config.texts_per_label, 0).sum())
    others = rows - num_batches * size - too_many
    return LabelCounts(
        **source.counts,
        labels=len(sizes),
        texts=len(np.unique(source.labels.texts.values)),
        texts_a_label=[int(sizes.min()), int(np.median(sizes)), int(sizes.max())],
        rows_packed=num_batches * size,
        rows_left_out={
            "label_too_large": too_many,
            "no_whole_batch": others % size,
            "batches_not_filled": others - others % size,
        },
        batches=num_batches,
        batches_bound=most_batches(sizes, size, config.texts_per_label),
        batch_size_of_enough_steps=largest_batch(sizes, MIN_EPOCH_STEPS, config.texts_per_label),
        packings=len(packings),
        steps=num_batches * len(packings),
        labels_of_first_batch=len(np.unique(source.labels.of_rows[packings[0].rows_PB[0]])),
    )

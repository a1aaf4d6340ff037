"""Packing of the layout `labels`: (text, label) rows for losses over labels."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stx_mine.core.ragged import Ragged
from stx_mine.engine.local import run_tasks
from stx_mine.errors import ConfigError
from stx_mine.inputs.readers import ColumnFile
from stx_mine.settings import key_fields
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.core.assign import Assignment
from stx_mine.stages.pack.labels.core.batches import assign_labels, largest_batch, most_batches
from stx_mine.stages.pack.labels.core.labels import Labels
from stx_mine.stages.pack.labels.source import LabelSource
from stx_mine.stages.pack.packings import (
    MIN_EPOCH_STEPS,
    assign_packings,
    batches_of_shards,
    left_out_last,
)
from stx_mine.store.artifact import Artifact, require
from stx_mine.store.batches import CARD, POSITIVES, write_positives, write_shard
from stx_mine.store.files import atomic, checksum
from stx_mine.store.groups import TextGroups
from stx_mine.store.labels import LABELS, label_card, write_labels
from stx_mine.store.report import StageReport, listed, make_report, percent
from stx_mine.store.run_dir import RunDir
from stx_mine.store.texts import TextStore


def pack_labels(config: PackConfig, run: RunDir) -> StageReport:
    """Write `batches/` in the layout `labels`, or on a dry run only say what it would hold.

    Raises:
        InputError: The file of labels is missing or malformed, or has no label with two texts.
        ConfigError: No batch of this size can be filled.
        ArtifactError: Texts are missing, or other batches are in the way.
    """
    with run.lock(begins=config.labeled is not None):
        fields = key_fields(config, "batches")
        inputs = {}
        if config.labeled is None:
            inputs = {name: require(run, name).digest for name in ("texts", "groups")}
        else:
            # A file is known by its content, wherever it lies.
            fields["labeled"] = checksum(ColumnFile.open(config.labeled).path)
        if config.dry_run:
            source = _open(config, run)
            counts = _counts(config, source, _assign(config, source))
            lines, warnings = _sentences(config, counts, source.example)
            folder = str(run.folder("batches"))
            return StageReport(
                "pack --dry-run, nothing written",
                counts,
                tuple(lines),
                tuple(warnings),
                folder=folder,
            )
        artifact = Artifact(
            run, "batches", config, fields=fields, inputs=inputs, overwrite=config.overwrite
        )
        if artifact.done:
            return _report(artifact, config, skipped=True)
        source = _open(config, run)
        _write(artifact, config, source, _assign(config, source))
        return _report(artifact, config)


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
        raise ConfigError(_too_large(config, sizes))

    def assign(earlier: Sequence[Assignment]) -> Assignment:
        rng = np.random.default_rng([config.seed, len(earlier)])
        return assign_labels(source.labels, size, each, left_out_last(earlier), rng)

    packings = assign_packings(assign, config.packings)
    if not len(packings[0].rows_PB):
        raise ConfigError(
            f"no batch of {size:,} rows can be filled: labels that share a text or are joined by a "
            f"pair keep apart, and groups of 2 to {each} texts must add up to a batch; "
            f"{_smaller(config, source.labels)}"
        )
    return packings


def _too_large(config: PackConfig, sizes: NDArray[np.int64]) -> str:
    size, each, rows = config.batch_size, config.texts_per_label, int(sizes.sum())
    fits = largest_batch(sizes, MIN_EPOCH_STEPS, each) or largest_batch(sizes, 1, each)
    advice = f"give --batch-size {fits}" if fits else "give a smaller --texts-per-label"
    if size > rows:
        return (
            f"--batch-size {size:,} is larger than the {rows:,} labelled rows there are; {advice}"
        )
    wider = [m for m in range(each, size + 1) if size % m == 0 and most_batches(sizes, size, m)]
    also = f", or --texts-per-label {wider[0]}" if wider else ""
    return (
        f"a batch of {size:,} rows with at most {each} texts a label needs {size // each:,} labels "
        f"with so many, there are {len(sizes):,} labels; {advice}{also}"
    )


def _smaller(config: PackConfig, labels: Labels) -> str:
    """Advice: a smaller batch size of which a batch fills."""
    each, none = config.texts_per_label, np.empty(0, np.int64)
    halves = [config.batch_size >> power for power in range(1, config.batch_size.bit_length())]
    for smaller in (config.batch_size - each, *halves):
        size = smaller // each * each
        rng = np.random.default_rng([config.seed, 0])
        if size and len(assign_labels(labels, size, each, none, rng).rows_PB):
            return f"give --batch-size {size}"
    return "give another --texts-per-label"


def _write(
    artifact: Artifact, config: PackConfig, source: LabelSource, packings: list[Assignment]
) -> None:
    tasks = batches_of_shards(config, packings)
    files = [*tasks, LABELS, POSITIVES, CARD]
    counts = _counts(config, source, packings)
    artifact.begin(files, {"packings": counts["packings"], "batches": counts["batches"]})

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

    run_tasks(artifact.pending(list(tasks)), write, "pack")
    write_labels(artifact.folder / LABELS, source.names, source.labels.texts)
    near = Ragged(np.zeros(len(source.positives) + 1, np.int64), np.empty(0, np.int64))
    write_positives(artifact.folder / POSITIVES, source.anchor_ids, source.positives, near)
    card = label_card(
        {
            "batch_size": config.batch_size,
            "texts_per_label": config.texts_per_label,
            "seed": config.seed,
            "packings": counts["packings"],
            "batches": counts["batches"],
            "rows": counts["rows_kept"],
            "labels": counts["labels"],
            "source": Path(config.labeled).name
            if config.labeled
            else "queries with the same positives, and those positives",
        }
    )
    with atomic(artifact.folder / CARD) as path:
        path.write_text(card, "utf-8")
    artifact.finish(files, counts=counts, extra={"example": source.example})


def _counts(config: PackConfig, source: LabelSource, packings: list[Assignment]) -> dict[str, Any]:
    size, sizes = config.batch_size, source.labels.texts.lengths()
    num_batches, rows = len(packings[0].rows_PB), len(source.labels.texts.values)
    too_many = int(np.maximum(sizes - num_batches * config.texts_per_label, 0).sum())
    others = rows - num_batches * size - too_many
    return {
        **source.counts,
        "labels": len(sizes),
        "texts": len(np.unique(source.labels.texts.values)),
        "texts_a_label": [int(sizes.min()), int(np.median(sizes)), int(sizes.max())],
        "rows_packed": num_batches * size,
        "rows_left_out": {
            "label_too_large": too_many,
            "no_whole_batch": others % size,
            "batches_not_filled": others - others % size,
        },
        "batches": num_batches,
        "batches_bound": most_batches(sizes, size, config.texts_per_label),
        "batch_size_of_enough_steps": largest_batch(sizes, MIN_EPOCH_STEPS, config.texts_per_label),
        "packings": len(packings),
        "steps": num_batches * len(packings),
        "labels_of_first_batch": len(np.unique(source.labels.of_rows[packings[0].rows_PB[0]])),
    }


def _report(artifact: Artifact, config: PackConfig, skipped: bool = False) -> StageReport:
    manifest = artifact.result
    lines, warnings = _sentences(config, manifest.counts, manifest.extra["example"])
    return make_report(artifact, lines, warnings, skipped=skipped)


def _sentences(
    config: PackConfig, counts: dict[str, Any], example: str
) -> tuple[list[str], list[str]]:
    """What to say of a packing: its lines, and its warnings."""
    size, batches, rows = config.batch_size, counts["batches"], counts["rows_kept"]
    least, median, most = counts["texts_a_label"]
    if config.labeled is None:
        came = (
            f"{counts['pairs']:,} pairs: queries with the same positives, and those positives, are "
            f"a label: {counts['labels']:,} labels, {rows:,} rows of {counts['texts']:,} texts"
        )
    else:
        came = (
            f"rows: {counts['rows_in']:,} read, {percent(rows, counts['rows_in'])} kept under "
            f"{counts['labels']:,} labels, dropped: {listed(counts['rows_dropped']) or 'none'}"
        )
    left_out = counts["rows_left_out"]
    lines = [
        came,
        f"labels have {least:,} to {most:,} texts, the median one {median:,}",
        f"{batches:,} batches of {size:,} rows in each of {counts['packings']} packings, at most "
        f"{config.texts_per_label} texts a label: {counts['steps']:,} optimizer steps in all",
        f"{percent(counts['rows_packed'], rows)} of {rows:,} rows are in each packing, "
        f"{sum(left_out.values()):,} left out of one come first in the next "
        f"({listed(left_out) or 'none'})",
        f"the first batch holds {counts['labels_of_first_batch']:,} labels",
    ]
    return lines, [*_warnings(config, counts, example)]


def _warnings(config: PackConfig, counts: dict[str, Any], example: str) -> Iterator[str]:
    left_out, size = counts["rows_left_out"], config.batch_size
    if counts["contradictory_texts"]:
        yield (
            f"{counts['contradictory_texts']:,} texts stand under several labels and were dropped "
            f"under all of them, {example} for one; mend or remove them"
        )
    if counts["labels_dropped"]:
        yield (
            f"{counts['labels_dropped']:,} labels have fewer than two texts left and are not packed"
        )
    if left_out["label_too_large"] > size:
        yield (
            f"{left_out['label_too_large']:,} rows are of labels with more than "
            f"{config.texts_per_label} texts for each of {counts['batches']:,} batches; a smaller "
            "--batch-size or a larger --texts-per-label packs more of them"
        )
    if left_out["batches_not_filled"] > size:
        yield (
            f"{left_out['batches_not_filled'] // size:,} batches could not be filled from labels "
            "that share no text and that no pair joins; a smaller --batch-size fills more"
        )
    if counts["batches"] < MIN_EPOCH_STEPS:
        fits, steps = counts["batch_size_of_enough_steps"], counts["batches"]
        advice = f"; --batch-size {fits:,} would have {MIN_EPOCH_STEPS}" if fits else ""
        yield (f"an epoch has only {steps} optimizer step{'s' if steps > 1 else ''}{advice}")

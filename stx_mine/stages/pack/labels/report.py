"""The closing sentences of `pack --layout labels`."""

from collections.abc import Iterator

from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.labels.counts import LabelCounts
from stx_mine.stages.pack.packings import MIN_EPOCH_STEPS
from stx_mine.store.artifact import Artifact
from stx_mine.store.stage_report import StageReport, listed, make_report, percent


def labels_report(artifact: Artifact, config: PackConfig, skipped: bool = False) -> StageReport:
    """The report of finished batches."""
    manifest = artifact.result
    counts = LabelCounts.read(manifest)
    lines, warnings = _sentences(config, counts, manifest.extra["example"])
    return make_report(artifact, lines, warnings, skipped=skipped)


def labels_dry_run_report(
    config: PackConfig, counts: LabelCounts, example: str, folder: str
) -> StageReport:
    """What packing would give.

    Args:
        config: The config.
        counts: Of the packings that would be written.
        example: A text that stands under several labels; empty where there is none.
        folder: Where the batches would lie.
    """
    lines, warnings = _sentences(config, counts, example)
    return StageReport(
        "pack --dry-run, nothing written",
        counts.to_json(),
        tuple(lines),
        tuple(warnings),
        folder=folder,
    )


def _sentences(
    config: PackConfig, counts: LabelCounts, example: str
) -> tuple[list[str], list[str]]:
    """What to say of a packing: its lines, and its warnings."""
    size, batches, rows = config.batch_size, counts.batches, counts.rows_kept
    least, median, most = counts.texts_a_label
    if config.labeled is None:
        more = f" ({counts.pairs_dropped:,} dropped by dedup)" if counts.pairs_dropped else ""
        came = (
            f"{counts.pairs:,} pairs{more}: queries with the same positives, and those positives, "
            f"are a label: {counts.labels:,} labels, {rows:,} rows of {counts.texts:,} texts"
        )
    else:
        came = (
            f"rows: {counts.rows_in:,} read, {percent(rows, counts.rows_in)} kept under "
            f"{counts.labels:,} labels, dropped: {listed(counts.rows_dropped) or 'none'}"
        )
    left_out = counts.rows_left_out
    lines = [
        came,
        f"labels have {least:,} to {most:,} texts, the median one {median:,}",
        f"{batches:,} batches of {size:,} rows in each of {counts.packings} packings, at most "
        f"{config.texts_per_label} texts a label: {counts.steps:,} optimizer steps in all",
        f"{percent(counts.rows_packed, rows)} of {rows:,} rows are in each packing, "
        f"{sum(left_out.values()):,} left out of one come first in the next "
        f"({listed(left_out) or 'none'})",
        f"the first batch holds {counts.labels_of_first_batch:,} labels",
    ]
    return lines, [*_warnings(config, counts, example)]


def _warnings(config: PackConfig, counts: LabelCounts, example: str) -> Iterator[str]:
    left_out, size = counts.rows_left_out, config.batch_size
    if counts.contradictory_texts:
        yield (
            f"{counts.contradictory_texts:,} texts stand under several labels and were dropped "
            f"under all of them, {example} for one; fix or remove them"
        )
    if counts.labels_dropped:
        yield (
            f"{counts.labels_dropped:,} labels have fewer than two texts left and are not packed"
        )
    if left_out["label_too_large"] > size:
        yield (
            f"{left_out['label_too_large']:,} rows are of labels with more than "
            f"{config.texts_per_label} texts for each of {counts.batches:,} batches; a smaller "
            "--batch-size or a larger --texts-per-label packs more of them"
        )
    if left_out["batches_not_filled"] > size:
        yield (
            f"{left_out['batches_not_filled'] // size:,} batches could not be filled from labels "
            "that share no text and that no pair joins; a smaller --batch-size fills more"
        )
    if counts.batches < MIN_EPOCH_STEPS:
        fits, steps = counts.batch_size_of_enough_steps, counts.batches
        advice = f"; --batch-size {fits:,} would have {MIN_EPOCH_STEPS}" if fits else ""
        yield (f"an epoch has only {steps} optimizer step{'s' if steps > 1 else ''}{advice}")

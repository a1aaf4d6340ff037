"""The closing sentences of `pack`."""

from typing import Any

from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.counts import PackCounts, PackedSource, ScoredRows
from stx_mine.stages.pack.dry_run import DryRun
from stx_mine.stages.pack.hardness import BatchHardness
from stx_mine.stages.pack.packings import MIN_EPOCH_STEPS
from stx_mine.store.artifact import Artifact
from stx_mine.store.stage_report import StageReport, make_report, percent

_SHOWN_LETTERS = 60
# Fewer different scores than these are grades.
_FEW_SCORES = 12
# Strict is as good as merge from this part of its batches on; rarer repeats need no policy.
_NEARLY_ALL, _RARE = 0.99, 0.01


def pack_report(artifact: Artifact, config: PackConfig, skipped: bool = False) -> StageReport:
    """The report of finished batches."""
    counts = PackCounts.read(artifact.result)
    hardness = BatchHardness.read(artifact.result)
    size, batches, rows = config.batch_size, counts.batches, counts.rows_in
    lines = [
        f"{batches:,} batches of {size:,} rows in each of {counts.packings} packings, policy "
        f"{config.policy}: {counts.steps:,} optimizer steps in all",
        f"{percent(counts.rows_packed, rows)} of {rows:,} rows are in each packing, "
        f"{counts.rows_left_out:,} left out of one come first in the next",
        *(hardness.sentences if hardness else []),
        *([counts.composition] if counts.sources else []),
        *(_source_line(name, one) for name, one in counts.by_source.items()),
        *_scored_lines(config, counts.of_judge),
    ]
    warnings = [
        f"no row of source {name} is in a batch: its {one.rows_in:,} rows fill none of "
        f"{size:,}; give a smaller --batch-size or more pairs"
        for name, one in counts.by_source.items()
        if not one.rows_packed
    ]
    warnings += _few_scores(config, counts.of_judge)
    composed = counts.batches_composed
    if batches < composed:
        warnings.append(
            f"{composed - batches:,} of {composed:,} batches could not be filled without "
            f"repeats; at most {counts.batches_bound:,} can, bounded by "
            f"{counts.batches_bound_cause}; --policy merge fills them all"
        )
    if batches < MIN_EPOCH_STEPS:
        steps = "1 optimizer step" if batches == 1 else f"{batches} optimizer steps"
        warnings.append(
            f"an epoch has only {steps}; --batch-size {max(2, rows // MIN_EPOCH_STEPS):,} would "
            f"have {MIN_EPOCH_STEPS}"
        )
    return make_report(artifact, lines, warnings, skipped=skipped)


def _source_line(name: str, counts: PackedSource) -> str:
    least, most = counts.rows_a_batch
    left = ", ".join(f"{why} {n:,}" for why, n in counts.rows_left_out.items() if n)
    return (
        f"source {name}: {percent(counts.rows_packed, counts.rows_in)} of "
        f"{counts.rows_in:,} rows in {counts.batches:,} batches, "
        f"{least:,}{f' to {most:,}' if most > least else ''} rows each; left out: {left or 'none'}"
    )


def _scored_lines(config: PackConfig, scored: ScoredRows | None) -> list[str]:
    """What a judge has scores of, and how it would have more."""
    if scored is None:
        return []
    unscored = scored.rows_unscored
    rows = percent(scored.rows_scored, scored.rows_in)
    negatives = percent(scored.negatives_scored, scored.negatives_in)
    return [
        f"judge {config.judge} has scores of {rows} rows of the first packing with {negatives} of "
        "all negatives: margin-mse and kl learn from these alone",
        f"the others have no score of the positive ({unscored['no_positive']:,} rows) or of any "
        f"negative ({unscored['no_negative']:,}); `stx-mine judge --name {config.judge} --band "
        f"{scored.band:g}` with the same judge would score nine tenths of the negatives",
    ]


def _few_scores(config: PackConfig, scored: ScoredRows | None) -> list[str]:
    """A warning where scores are grades, whose logits say more than the judge did."""
    if scored is None or scored.different_scores >= _FEW_SCORES:
        return []
    return [
        f"judge {config.judge} gives {scored.different_scores} different scores: to kl the "
        "difference of 0 and 1 is certainty; distil with margin-mse, or with a "
        "--teacher-temperature of 5 or more"
    ]


def dry_run_report(found: DryRun, folder: str, min_steps: int = MIN_EPOCH_STEPS) -> StageReport:
    """What a packing would be, with one recommendation at the end.

    Args:
        found: The packings by policy.
        folder: Where the batches would lie.
        min_steps: Optimizer steps that an epoch should have.
    """
    size, rows = found.batch_size, found.rows
    counts: dict[str, Any] = {
        "rows": rows,
        "distinct_anchors": found.distinct_anchors,
        "distinct_positives": found.distinct_positives,
        "batches": found.batches,
        "strict_bound": found.bound.batches,
        "rows_that_meet_their_text": found.repeated,
        "logit_bytes": found.logit_bytes,
    }
    lines = [
        f"{rows:,} rows of {found.distinct_anchors:,} distinct anchors and "
        f"{found.distinct_positives:,} distinct positives; in a random batch of {size:,}, "
        f"{found.repeated['positive']:.1%} of the rows would share their positive with another "
        f"row, {found.repeated['anchor']:.1%} their anchor",
        *([found.sources] if found.sources else []),
        *(
            f"{policy}: {number:,} batches, as many optimizer steps an epoch, "
            f"{percent(rows - number * size, rows)} rows left out of each"
            for policy, number in found.batches.items()
        ),
        f"strict can have at most {found.bound.batches:,} batches, bounded by {found.bound.cause}",
        f"logits of a step: {size:,} x up to {found.passages:,} passages, "
        f"{found.logit_bytes / 2**30:.2f} GiB whole; `train` makes them --chunk-rows at a time",
        *(
            f"positive of {number:,} rows: {text[:_SHOWN_LETTERS]!r}"
            for number, text in found.most_repeated
        ),
        *(found.hardness.sentences if found.hardness else []),
        _recommendation(found, min_steps),
    ]
    return StageReport("pack --dry-run, nothing written", counts, tuple(lines), folder=folder)


def _recommendation(found: DryRun, min_steps: int) -> str:
    """One sentence: the policy or batch size to take."""
    size, rows, repeated = found.batch_size, found.rows, max(found.repeated.values())
    merge, strict = found.batches["merge"], found.batches["strict"]
    if merge < min_steps:
        smaller = max(2, rows // min_steps)
        return (
            f"advice: --batch-size {smaller:,}, for {min_steps} steps an epoch instead of {merge}"
        )
    if strict >= _NEARLY_ALL * merge:
        if repeated < _RARE:
            return (
                f"advice: either policy; repeats are rare here ({repeated:.2%} of the rows of a "
                "random batch), strict also fits plain trainers"
            )
        return (
            f"advice: --policy strict for a plain trainer ({strict:,} of {merge:,} batches), merge "
            "for `stx-mine train`"
        )
    return (
        f"advice: --policy merge; strict would lose {merge - strict:,} of {merge:,} batches of "
        f"{size:,}, a plain trainer needs a smaller --batch-size or --k"
    )

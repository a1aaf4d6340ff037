"""The closing sentences of `verify`: what holds, and what was found broken."""

from collections.abc import Iterable
from pathlib import Path

from stx_mine.stages.verify.core.rows import ROW_RULES
from stx_mine.stages.verify.counts import VerifiedRows, VerifyCounts
from stx_mine.stages.verify.row_files import RowFiles
from stx_mine.stages.verify.rows import RowSummary
from stx_mine.store.stage_report import StageReport, percent


def batches_report(folder: Path, counts: VerifyCounts) -> StageReport:
    """The report of packed batches that hold every invariant."""
    lines = (
        f"{counts.batches:,} batches ({counts.rows:,} rows) in {counts.packings} packings "
        "hold every invariant",
        f"{counts.files:,} checksums match"
        if counts.files
        else "no manifest.json: checksums not checked",
    )
    return StageReport("verify", counts.to_json(), lines, folder=str(folder))


def batches_violated(folder: Path, violations: list[str], max_violations: int) -> str:
    """The error message of packed batches that break an invariant.

    Args:
        folder: The folder of the batches.
        violations: A sentence per violation.
        max_violations: Violations after which the check stopped.
    """
    more = " (the first ones)" if len(violations) == max_violations else ""
    lines = "\n  ".join(violations)
    return f"{folder} breaks {len(violations)} invariants{more}:\n  {lines}"


def rows_report(path: Path, files: RowFiles, summary: RowSummary) -> StageReport:
    """The report of rows in which every batch is clean."""
    counts = VerifiedRows(
        batches=summary.batches,
        rows=summary.rows,
        files=len(files.files),
        last_batch_rows=summary.last_rows,
    )
    return StageReport(
        "verify",
        counts.to_json(),
        (_state(summary), _columns_read(files)),
        _partial_batch(summary),
        folder=str(path if path.is_dir() else path.parent),
    )


def rows_violated(
    path: Path, files: RowFiles, summary: RowSummary, first_sentences: Iterable[str]
) -> str:
    """The error message of rows in which a batch is not clean.

    Args:
        path: The file or folder of the rows.
        files: What was read.
        summary: What was found.
        first_sentences: A sentence per violation that is named.
    """
    lines = [
        *_rule_lines(summary),
        _columns_read(files),
        *_partial_batch(summary),
        "the first ones; batches count from 0, rows from 0 in their file:",
        *first_sentences,
    ]
    named = "\n  ".join(lines)
    return f"{path}: {_state(summary)}:\n  {named}"


def _state(summary: RowSummary) -> str:
    return (
        f"{summary.clean_batches:,} of {summary.batches:,} batches of {summary.batch_size:,} are "
        f"clean, {percent(summary.broken_rows, summary.rows)} of {summary.rows:,} rows break a rule"
    )


def _rule_lines(summary: RowSummary) -> list[str]:
    return [
        f"{what}: {percent(summary.rows_by_rule[rule], summary.rows)} of the rows, "
        f"in {summary.batches_by_rule[rule]:,} batches"
        for rule, what in ROW_RULES.items()
        if summary.rows_by_rule[rule]
    ]


def _partial_batch(summary: RowSummary) -> tuple[str, ...]:
    if not summary.last_rows:
        return ()
    return (
        f"the last batch has {summary.last_rows:,} of {summary.batch_size:,} rows; it was checked "
        "as it is, and a trainer may drop it",
    )


def _columns_read(files: RowFiles) -> str:
    anchor, positive, *negatives = files.columns
    read = f"read anchor {anchor!r}, positive {positive!r}, " + (
        f"negatives {', '.join(map(repr, negatives))}" if negatives else "no negatives"
    )
    ignored = f"; ignored {', '.join(map(repr, files.ignored))}" if files.ignored else ""
    first, last = files.files[0].path.name, files.files[-1].path.name
    several = f"; {len(files.files):,} files in order, {first} to {last}"
    return read + ignored + (several if len(files.files) > 1 else "")

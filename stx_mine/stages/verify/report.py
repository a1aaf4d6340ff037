"""The closing sentences of `verify`: what holds, and what was found broken."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from stx_mine.stages.verify.artifacts import ArtifactState
from stx_mine.stages.verify.counts import VerifiedArtifacts, VerifiedRows, VerifyCounts
from stx_mine.stages.verify.row_blocks import RowReader
from stx_mine.stages.verify.rows import RowSummary
from stx_mine.store.audits import AuditFinding
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


def rows_report(path: Path, reader: RowReader, summary: RowSummary, checked: int) -> StageReport:
    """The report of rows that are clean.

    Args:
        path: The file or folder of the rows.
        reader: What was read.
        summary: What was found.
        checked: Files whose checksum matches; 0 where there is no manifest.
    """
    counts = VerifiedRows(
        batches=summary.batches,
        rows=summary.rows,
        files=len(reader.paths),
        last_batch_rows=summary.last_rows,
    )
    lines = (_state(summary), *_read(reader))
    return StageReport(
        "verify",
        counts.to_json(),
        (*lines, f"{checked:,} checksums match") if checked else lines,
        _partial_batch(summary),
        folder=str(path if path.is_dir() else path.parent),
    )


def rows_violated(
    path: Path,
    reader: RowReader,
    summary: RowSummary,
    changed: list[str],
    first_sentences: Iterable[str],
) -> str:
    """The error message of rows that are not clean, or whose files have changed.

    Args:
        path: The file or folder of the rows.
        reader: What was read.
        summary: What was found.
        changed: A sentence per file that is not as it was written.
        first_sentences: A sentence per violation that is named.
    """
    lines = [*changed, *_rule_lines(summary), *_read(reader), *_partial_batch(summary)]
    if summary.first:
        lines += [f"the first ones; {_counted(summary)}:", *first_sentences]
    named = "\n  ".join(lines)
    return f"{path}: {_state(summary)}:\n  {named}"


def artifacts_report(folder: Path, states: Sequence[ArtifactState]) -> StageReport:
    """The report of artifacts that are all as they were written.

    Args:
        folder: The run, or the folder of an artifact.
        states: What was found, an artifact each.
    """
    counts = VerifiedArtifacts(
        artifacts=len(states),
        files=sum(state.files for state in states),
        num_bytes=sum(state.num_bytes for state in states),
    )
    lines = tuple(
        f"{state.name}: {state.files:,} files of {state.num_bytes:,} bytes as they were written"
        for state in states
    )
    notes = tuple(note for state in states for note in state.notes)
    return StageReport("verify", counts.to_json(), lines, notes, folder=str(folder))


def artifacts_violated(folder: Path, states: Sequence[ArtifactState], max_violations: int) -> str:
    """The error message of artifacts of which some are damaged, unfinished or stale.

    Args:
        folder: The run, or the folder of an artifact.
        states: What was found, an artifact each.
        max_violations: How many are named.
    """
    problems = [problem for state in states for problem in state.problems]
    broken = [state.name for state in states if state.problems]
    sound = [state.name for state in states if not state.problems]
    lines = problems[:max_violations]
    if len(problems) > max_violations:
        lines.append(f"and {len(problems) - max_violations:,} more (--max-violations)")
    if sound:
        lines.append(f"as they were written: {', '.join(sound)}")
    lines += [note for state in states for note in state.notes]
    named = "\n  ".join(lines)
    return f"{folder}: {len(broken)} of {len(states)} artifacts are not sound:\n  {named}"


def false_share_lines(found: Sequence[AuditFinding]) -> tuple[str, ...]:
    """What audits say of the negatives, a sentence each."""
    return tuple(f"audits/{one.name}: {one.sentence}" for one in found)


def false_share_violated(folder: Path, above: Sequence[AuditFinding], most: float) -> str:
    """The error message of negatives of which too many may be false.

    Args:
        folder: The run or the batches.
        above: Audits that do not rule it out.
        most: The largest share that is allowed.
    """
    named = "\n  ".join(false_share_lines(above))
    return (
        f"{folder}: more than {most:.2%} of the negatives may be false, by the upper end of the "
        f"interval:\n  {named}"
    )


def _counted(summary: RowSummary) -> str:
    rows = "rows count from 0 in their file"
    return rows if summary.batch_size is None else "batches count from 0, rows from 0 in their file"


def _state(summary: RowSummary) -> str:
    broken = f"{percent(summary.broken_rows, summary.rows)} of {summary.rows:,} rows break a rule"
    if summary.batch_size is None:
        return f"{broken}, each looked at by itself (--batch-size looks at batches)"
    return (
        f"{summary.clean_batches:,} of {summary.batches:,} batches of {summary.batch_size:,} are "
        f"clean, {broken}"
    )


def _rule_lines(summary: RowSummary) -> list[str]:
    return [
        f"{what}: {percent(summary.rows_by_rule[rule], summary.rows)} of the rows"
        + ("" if summary.batch_size is None else f", in {summary.batches_by_rule[rule]:,} batches")
        for rule, what in summary.rules.items()
        if summary.rows_by_rule[rule]
    ]


def _partial_batch(summary: RowSummary) -> tuple[str, ...]:
    if not summary.last_rows:
        return ()
    return (
        f"the last batch has {summary.last_rows:,} of {summary.batch_size:,} rows; it was checked "
        "as it is, and a trainer may drop it",
    )


def _read(reader: RowReader) -> tuple[str, ...]:
    first, last = reader.paths[0].name, reader.paths[-1].name
    several = (f"{len(reader.paths):,} files in order, {first} to {last}",)
    return reader.described + (several if len(reader.paths) > 1 else ())

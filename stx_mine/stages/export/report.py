"""The closing report of `export`: what was written, what the layout could not hold."""

from stx_mine.stages.export.config import ExportConfig
from stx_mine.stages.export.counts import ExportCounts
from stx_mine.store.artifact import Artifact
from stx_mine.store.stage_report import StageReport, make_report, percent


def export_report(
    artifact: Artifact, config: ExportConfig, prompted: list[str], skipped: bool
) -> StageReport:
    """The report of a finished layout of `exports/`.

    Args:
        artifact: The finished artifact.
        config: The config.
        prompted: Names of the sources that have prompts.
        skipped: Whether it was finished before.
    """
    counts, k = ExportCounts.read(artifact.result), int(artifact.result.extra["k"])
    rows, dropped = counts.rows_in, counts.rows_dropped
    lines = [
        f"{config.to}: {counts.lines:,} lines of {percent(counts.rows_kept, rows)} of "
        f"{rows:,} rows, at most {k} negatives each"
    ]
    if dropped["no_negative"]:
        lines.append(f"{percent(dropped['no_negative'], rows)} have no negative and are left out")
    if counts.rows_ragged:
        lines.append(f"{percent(counts.rows_ragged, rows)} have fewer than k={k} and are kept")
    return make_report(artifact, lines, _warnings(counts, k, prompted), skipped=skipped)


def _warnings(counts: ExportCounts, k: int, prompted: list[str]) -> list[str]:
    warnings = []
    if prompted:
        warnings.append(
            f"the prompts of {', '.join(prompted)} are not in the rows, and no layout says which "
            "source a row is from; give them to your trainer, or train with `stx-mine train`"
        )
    if missing := counts.rows_dropped["fewer_than_k"]:
        fewer = max(1, k // 2)
        held = sum(counts.rows_by_negatives[fewer:])
        warnings.append(
            f"{percent(missing, counts.rows_in)} have fewer than k={k} negatives and are "
            f"left out; --k {fewer} would hold {held:,} rows, --to triplet holds all that have any"
        )
    return warnings

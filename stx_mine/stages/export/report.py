"""The closing report of `export`: what was written, what the layout could not hold."""

from stx_mine.stages.export.config import ExportConfig
from stx_mine.stages.export.counts import ExportCounts
from stx_mine.stages.export.layouts import chosen_layout
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
    counts, extra = ExportCounts.read(artifact.result), artifact.result.extra
    k, rows, dropped = int(extra["k"]), counts.rows_in, counts.rows_dropped
    if not counts.rows_by_negatives:
        lines = [f"{config.to}: {counts.lines:,} lines"]
    else:
        lines = [
            f"{config.to}: {counts.lines:,} lines of {percent(counts.rows_kept, rows)} of "
            f"{rows:,} rows, at most {k} negatives each"
        ]
    if dropped["no_negative"]:
        lines.append(f"{percent(dropped['no_negative'], rows)} have no negative and are left out")
    if dropped["fewer_than_k"] and config.short_rows == "drop":
        lines.append(
            f"{percent(dropped['fewer_than_k'], rows)} have fewer than k={k} and are left out"
        )
    if counts.rows_ragged:
        lines.append(f"{percent(counts.rows_ragged, rows)} have fewer than k={k} and are kept")
    lines += [f"ids of {role}: {which}" for role, which in extra.get("ids", {}).items()]
    if counts.texts_joined:
        lines.append(f"{counts.texts_joined:,} texts had tabs or line breaks, which are spaces now")
    return make_report(artifact, lines, _warnings(config, counts, k, prompted), skipped=skipped)


def _warnings(config: ExportConfig, counts: ExportCounts, k: int, prompted: list[str]) -> list[str]:
    warnings = []
    if prompted:
        warnings.append(
            f"the prompts of {', '.join(prompted)} are not in the rows, and no layout says which "
            "source a row is from; give them to your trainer, or train with `stx-mine train`"
        )
    layout = chosen_layout(config)
    if counts.rows_ragged and layout.equal_for:
        warnings.append(
            f"{layout.equal_for} fails on rows of different lengths, and "
            f"{percent(counts.rows_ragged, counts.rows_in)} have fewer than k={k} negatives; "
            "--short-rows drop leaves them out"
        )
    missing = counts.rows_dropped["fewer_than_k"]
    if missing and config.short_rows == "keep":
        fewer = max(1, k // 2)
        held = sum(counts.rows_by_negatives[fewer:])
        warnings.append(
            f"{percent(missing, counts.rows_in)} have fewer than k={k} negatives and are "
            f"left out; --k {fewer} would hold {held:,} rows, --to triplet holds all that have any"
        )
    return warnings

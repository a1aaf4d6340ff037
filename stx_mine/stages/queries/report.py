"""The closing report of `queries`: what each method made, and why passages have no query."""

from stx_mine.stages.queries.config import QueriesConfig
from stx_mine.stages.queries.counts import CropCounts, MethodCounts, QueriesCounts, TitleCounts
from stx_mine.store.artifact import Artifact
from stx_mine.store.stage_report import StageReport, listed, make_report, percent


def queries_report(artifact: Artifact, config: QueriesConfig, skipped: bool) -> StageReport:
    """The report of finished `queries/`."""
    manifest = artifact.result
    counts = QueriesCounts.read(manifest)
    lines = [
        f"{counts.passages:,} distinct passages in {counts.rows_in:,} rows; dropped: "
        f"{listed(counts.rows_dropped) or 'none'}"
    ]
    lines += _title_lines(counts.made.cut) if counts.made.cut else []
    for method, of_method in counts.made.methods.items():
        lines.append(_method_line(method, of_method, config.per_passage))
    if config.remove_share and counts.made.crops:
        lines.append(_crop_line(counts.made.crops))
    file = manifest.content["files"][0]["file"]
    lines.append(f"read them with `stx-mine embed {manifest.folder / file}`")
    return make_report(artifact, lines, skipped=skipped)


def _title_lines(cut: TitleCounts) -> list[str]:
    return [
        f"{percent(cut.prefix + cut.inside, cut.titles)} of {cut.titles:,} titles "
        f"stand in their passage and are cut out of it: {cut.prefix:,} at its beginning, "
        f"{cut.inside:,} inside"
    ]


def _method_line(method: str, counts: MethodCounts, per_passage: int) -> str:
    line = f"{method}: {counts.queries:,} queries of {counts.passages_kept:,} passages"
    if counts.dropped:
        none = counts.passages_in - counts.passages_kept
        line += f"; none of {percent(none, counts.passages_in)}: {listed(counts.dropped)}"
    if counts.passages_with_fewer and method != "titles":
        line += f"; {counts.passages_with_fewer:,} have fewer than --per-passage {per_passage}"
    return line


def _crop_line(crops: CropCounts) -> str:
    return (
        f"{percent(crops.removed, crops.cropped)} of the cropped passages lost their "
        f"sentences, {crops.too_short_without:,} more would be too short without"
    )

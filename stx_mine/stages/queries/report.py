"""The closing report of `queries`: what each method made, and why passages have no query."""

from stx_mine.stages.queries.config import QueriesConfig
from stx_mine.stages.queries.counts import (
    CropCounts,
    FilterCounts,
    MethodCounts,
    QueriesCounts,
    TitleCounts,
    WrittenCounts,
)
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
    if config.chunk:
        tokens, overlap = config.chunk
        lines.append(
            f"{counts.documents_cut:,} documents cut into chunks of at most {tokens:,} tokens that "
            f"share {overlap:,}; `of_document` names the document of each, and `stx-mine split` "
            "keeps those of one document in one part"
        )
    lines += _title_lines(counts.made.cut) if counts.made.cut else []
    for method, of_method in counts.made.methods.items():
        lines.append(_method_line(method, of_method, config))
    lines += _written_lines(counts.made.written, config) if counts.made.written else []
    if config.remove_share and counts.made.crops:
        lines.append(_crop_line(counts.made.crops))
    lines += _filter_lines(counts.filtered, config) if counts.filtered else []
    file = manifest.content["files"][0]["file"]
    lines.append(f"read them with `stx-mine embed {manifest.folder / file}`")
    return make_report(artifact, lines, skipped=skipped)


def _title_lines(cut: TitleCounts) -> list[str]:
    return [
        f"{percent(cut.prefix + cut.inside, cut.titles)} of {cut.titles:,} titles "
        f"stand in their passage and are cut out of it: {cut.prefix:,} at its beginning, "
        f"{cut.inside:,} inside"
    ]


def _method_line(method: str, counts: MethodCounts, config: QueriesConfig) -> str:
    line = f"{method}: {counts.queries:,} queries of {counts.passages_kept:,} passages"
    if method == "generate" and config.is_served:
        line = f"generate: {counts.queries:,} pairs of {counts.passages_kept:,} passages"
    if counts.dropped:
        none = counts.passages_in - counts.passages_kept
        line += f"; none of {percent(none, counts.passages_in)}: {listed(counts.dropped)}"
    if counts.passages_with_fewer and method != "titles":
        each = " of each kind" if method == "generate" and config.is_served else ""
        line += (
            f"; {counts.passages_with_fewer:,} have fewer than --per-passage "
            f"{config.per_passage}{each}"
        )
    return line


def _crop_line(crops: CropCounts) -> str:
    return (
        f"{percent(crops.removed, crops.cropped)} of the cropped passages lost their "
        f"sentences, {crops.too_short_without:,} more would be too short without"
    )


def _written_lines(counts: WrittenCounts, config: QueriesConfig) -> list[str]:
    """What was asked, what came, and what became of it."""
    failed = sum(counts.failures.values())
    asked = (
        f"{counts.questions:,} questions, {counts.answers:,} answers"
        f" ({counts.retried:,} asked again), {counts.questions - failed:,} usable"
    )
    if failed:
        asked += f"; no usable answer to {failed:,}: {listed(counts.failures)}"
    if counts.beyond_budget:
        asked += f"; {counts.beyond_budget:,} more are beyond --max-calls {config.max_calls}"
    made = f"{counts.lines:,} queries in them; dropped: {listed(counts.dropped) or 'none'}; left: "
    lines = [asked, made + (listed(counts.made) or "none")]
    if counts.tokens_read:
        lines.append(f"{counts.tokens_read:,} tokens read, {counts.tokens_written:,} written")
    if counts.cut:
        lines.append(f"{counts.cut:,} passages were longer than the prompt takes, and cut for it")
    return lines


def _filter_lines(counts: FilterCounts, config: QueriesConfig) -> list[str]:
    """What filters dropped, each with its setting."""
    alike = f"share {config.near:g} of their pairs of words with"
    alike = "are equal to" if config.near == 1 else alike
    named = {
        "near_duplicate": f"{alike} an earlier query",
        "not_in_top": f"do not find their passage among the first {config.top}",
        "not_judged": "got no score of the judge",
        "not_answered": f"score below {config.min_judge_score:g} by the judge",
    }
    lines = [
        f"filters: {counts.pairs_in:,} pairs in, {percent(counts.pairs_kept, counts.pairs_in)} kept"
    ]
    for reason, number in counts.dropped.items():
        lines.append(f"  {reason} {number:,}: {named[reason]}")
    return lines

"""The closing sentences of `diff`."""

from typing import Any

from stx_mine.stages.diff.comparison import Comparison, Example, Placement, SettingDifference
from stx_mine.stages.diff.core.diff import REASONS
from stx_mine.stages.diff.counts import SharedCounts
from stx_mine.store.stage_report import StageReport, percent, plain_table

_SHOWN_TEXT = 90
# What is said of negatives that the other run does not have.
_MEANINGS = {
    "known_positive": "a known positive there",
    "beyond_pool": "the pool was full",
    "not_a_hit": "not among the hits",
    "not_in_corpus": "not in the corpus",
}
# Settings that tell models, files of vectors and functions apart.
_MODEL_FIELDS = {"model.weights", "model.vectors", "model.source"}


def diff_report(comparison: Comparison, written: str | None, document: str) -> StageReport:
    """The report of a comparison.

    Args:
        comparison: What was found.
        written: The file that all of it was written to; None where there is none.
        document: All of it as JSON, to be printed instead of the sentences; empty otherwise.
    """
    lines = _lines(comparison)
    if written is not None:
        lines.append(f"all of it is in {written}")
    return StageReport("diff", comparison.rows.to_json(), tuple(lines), document=document)


def _lines(comparison: Comparison) -> list[str]:
    rows, overlap = comparison.rows, comparison.overlap
    lines = [f"A is {comparison.run_a}, B is {comparison.run_b}"]
    lines += _settings_lines(comparison.settings, comparison.models)
    lines += _counts_table(comparison)
    if comparison.query is not None:
        lines.append(f"pairs, rows and negatives: of the query {comparison.query!r} only")
    if rows.neither:
        lines.append(f"{rows.neither:,} pairs of both are rows of neither: mine dropped them")
    if not rows.both:
        return [*lines, "no row is in both: nothing to compare"]
    lines.append(
        f"pools of the rows in both: {percent(rows.equal, rows.both)} equal, "
        f"{percent(rows.reordered, rows.both)} in another order, "
        f"{percent(rows.changed, rows.both)} with other negatives, "
        f"{percent(rows.empty, rows.both)} empty in both"
    )
    if overlap.mean is not None:
        lines.append(
            f"the first {overlap.k} negatives overlap by {overlap.mean:.1%}, on average over the "
            "rows that have any"
        )
    lines += _reason_lines(comparison.reasons)
    for example in comparison.examples:
        lines += _example_lines(example)
    return lines


def _counts_table(comparison: Comparison) -> list[str]:
    counted = {
        "queries": comparison.queries,
        "passages": comparison.passages,
        "pairs": comparison.pairs,
        "rows": comparison.rows,
        "negatives of rows in both": comparison.negatives,
    }
    cells = [[name, *_three(counts)] for name, counts in counted.items()]
    return plain_table([["", "only in A", "in both", "only in B"], *cells])


def _three(counts: SharedCounts) -> list[str]:
    return [f"{number:,}" for number in (counts.only_a, counts.both, counts.only_b)]


def _settings_lines(settings: list[SettingDifference], models: dict[str, str]) -> list[str]:
    if not settings:
        return ["no setting differs"]
    lines = ["settings that differ:"]
    if any(setting.field in _MODEL_FIELDS for setting in settings):
        lines.append(f"  the model: {models['a']} in A, {models['b']} in B")
    for setting in settings:
        before, after = _short(setting.a), _short(setting.b)
        lines.append(f"  {setting.artifact}: {setting.field} {before} in A, {after} in B")
    return lines


def _reason_lines(reasons: dict[str, dict[str, int]]) -> list[str]:
    """A table of reasons; empty where no negative changed."""
    lost, gained = reasons["lost"], reasons["gained"]
    if not lost and not gained:
        return []
    table = [["why the other run has no such negative", "only in A: in B", "only in B: in A"]]
    for name in REASONS:
        if name in lost or name in gained:
            meaning = f"{name} ({_MEANINGS[name]})" if name in _MEANINGS else name
            table.append([meaning, f"{lost.get(name, 0):,}", f"{gained.get(name, 0):,}"])
    return plain_table(table)


def _example_lines(example: Example) -> list[str]:
    has, lacks = ("A", "B") if example.change == "lost" else ("B", "A")
    return [
        f"only in {has}, in {lacks} {example.reason}: {_short(example.query)}",
        f"  positive  {_short(example.positive)}",
        f"  negative  {_short(example.negative)}",
        f"  A: {_placed(example.a)}; B: {_placed(example.b)}",
    ]


def _placed(place: Placement) -> str:
    if place.score is None:
        return f"no hit (positive {place.positive_score:.3f})"
    where = place.verdict if place.slot is None else f"place {place.slot} of the pool"
    rank = "" if place.rank is None else f", rank {place.rank}"
    return f"{where}{rank}, score {place.score:.3f} (positive {place.positive_score:.3f})"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_TEXT else f"{text[: _SHOWN_TEXT - 4]} ..."

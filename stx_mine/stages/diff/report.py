"""What `diff` found, as lines for a person."""

from typing import Any

from stx_mine.stages.diff.core.diff import REASONS
from stx_mine.store.report import percent, plain_table

_SHOWN_TEXT = 90
# What is said of negatives that the other run does not have.
_MEANINGS = {
    "known_positive": "a known positive there",
    "beyond_pool": "the pool was full",
    "not_a_hit": "not among the hits",
    "not_in_corpus": "not in the corpus",
}


def diff_lines(results: dict[str, Any]) -> list[str]:
    """The lines of a comparison, by what `--json` holds."""
    rows = results["rows"]
    lines = [f"A is {results['run_a']}, B is {results['run_b']}"]
    lines += _settings_lines(results["settings"], results["models"])
    heading = ["", "only in A", "in both", "only in B"]
    counted = ("queries", "passages", "pairs", "rows", "negatives")
    cells = [[name, *_three(results[name])] for name in counted]
    cells[-1][0] = "negatives of rows in both"
    lines += plain_table([heading, *cells])
    if results["query"] is not None:
        lines.append(f"pairs, rows and negatives: of the query {results['query']!r} only")
    if rows["neither"]:
        lines.append(f"{rows['neither']:,} pairs of both are rows of neither: mine dropped them")
    if not rows["both"]:
        return [*lines, "no row is in both: nothing to compare"]
    lines.append(
        f"pools of the rows in both: {percent(rows['equal'], rows['both'])} equal, "
        f"{percent(rows['reordered'], rows['both'])} in another order, "
        f"{percent(rows['changed'], rows['both'])} with other negatives, "
        f"{percent(rows['empty'], rows['both'])} empty in both"
    )
    if results["overlap"]["mean"] is not None:
        overlap = "the first {k} negatives overlap by {mean:.1%}".format(**results["overlap"])
        lines.append(f"{overlap}, on average over the rows that have any")
    lines += _reason_lines(results["reasons"])
    for one in results["examples"]:
        lines += _example_lines(one)
    return lines


def _three(counts: dict[str, int]) -> list[str]:
    return [f"{counts[name]:,}" for name in ("only_a", "both", "only_b")]


def _settings_lines(settings: list[dict[str, Any]], models: dict[str, str]) -> list[str]:
    if not settings:
        return ["no setting differs"]
    lines = ["settings that differ:"]
    if any(one["field"] == "model.weights" for one in settings):
        lines.append(f"  the model: {models['a']} in A, {models['b']} in B")
    for one in settings:
        before, after = _short(one["a"]), _short(one["b"])
        lines.append(f"  {one['artifact']}: {one['field']} {before} in A, {after} in B")
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


def _example_lines(example: dict[str, Any]) -> list[str]:
    has, lacks = ("A", "B") if example["change"] == "lost" else ("B", "A")
    return [
        f"only in {has}, in {lacks} {example['reason']}: {_short(example['query'])}",
        f"  positive  {_short(example['positive'])}",
        f"  negative  {_short(example['negative'])}",
        f"  A: {_said(example['a'])}; B: {_said(example['b'])}",
    ]


def _said(hit: dict[str, Any]) -> str:
    if hit["score"] is None:
        return f"no hit (positive {hit['positive_score']:.3f})"
    where = hit["verdict"] if hit["slot"] is None else f"place {hit['slot']} of the pool"
    rank = "" if hit["rank"] is None else f", rank {hit['rank']}"
    return f"{where}{rank}, score {hit['score']:.3f} (positive {hit['positive_score']:.3f})"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_TEXT else f"{text[: _SHOWN_TEXT - 4]} ..."

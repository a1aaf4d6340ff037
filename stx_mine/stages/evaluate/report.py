"""The closing sentences of `evaluate`, with tables of scores."""

from collections.abc import Mapping, Sequence
from itertools import starmap
from typing import Any

import numpy as np

from stx_mine.stages.evaluate.config import EvaluateConfig
from stx_mine.stages.evaluate.core.metrics import METRICS
from stx_mine.stages.evaluate.core.summaries import Difference, Score
from stx_mine.stages.evaluate.counts import EvaluationCounts
from stx_mine.stages.evaluate.data_report import data_lines, seen_lines, seen_warnings
from stx_mine.stages.evaluate.results import (
    INTERVAL,
    PAIRED_TEST,
    RESULTS,
    Overview,
    read_summary,
)
from stx_mine.store.artifact import Artifact
from stx_mine.store.stage_report import StageReport, make_report, plain_table

_SHOWN_METRIC = "ndcg@10"
_OTHERS = [one for one in METRICS if one != _SHOWN_METRIC]
# Above this p two models are not told apart.
_LEVEL = 0.05
# Share of seen queries from which on they are shown beside the others.
_LEAST_SEEN = 0.01


def evaluation_report(
    artifact: Artifact,
    config: EvaluateConfig,
    renewed_by: Sequence[str],
    warnings: list[str],
    skipped: bool = False,
) -> StageReport:
    """The report of the evaluation of one data set.

    Args:
        artifact: The finished artifact.
        config: What was asked for.
        renewed_by: What has changed since an earlier evaluation, in words.
        warnings: What to warn of.
        skipped: Whether it was finished before.
    """
    manifest = artifact.result
    counts, summary = EvaluationCounts.read(manifest), read_summary(manifest.folder)
    prompts = f", with the prompts of source {config.source}" if config.source is not None else ""
    lines = [f"made anew: {', '.join(renewed_by)} changed or came since"] if renewed_by else []
    lines += [
        *manifest.extra["read"],
        f"{counts.queries:,} queries against {counts.passages:,} passages{prompts}",
        *data_lines(counts),
        *_reading_line(manifest.extra["reading"]),
        *starmap(_model_line, manifest.extra["how"].items()),
        *seen_lines(summary.seen),
        *_scores_table(_ranked(summary.scores)),
        f"[{summary.level:.0%} interval: {INTERVAL}; {summary.num_draws:,} draws, seed "
        f"{summary.seed}]",
        *winner_line(summary.scores, summary.differences),
    ]
    if summary.differences:
        if config.pairs:
            lines += map(_difference_line, summary.differences)
        whole = "" if config.pairs else f" and pair of models (--pairs prints them) is in {RESULTS}"
        lines.append(f"[p: {PAIRED_TEST}; as many draws; every other metric{whole}]")
    return make_report(artifact, lines, [*warnings, *seen_warnings(summary.seen)], skipped=skipped)


def _reading_line(of_run: Mapping[str, Any]) -> list[str]:
    named = [
        f"{name.replace('_', ' ')} {value if isinstance(value, str) else ', '.join(value)}"
        for name, value in of_run.items()
    ]
    return [f"read as the run reads its pairs: {'; '.join(named)}"] if named else []


def _model_line(model: str, how: Mapping[str, Any]) -> str:
    """What a model is judged with, and whose settings those are."""
    place = how["of_run"]
    whose = f"the run's {place} model" if place else "not of this run"
    prompts = [
        f"{role} prompt {how[f'{role}_prompt']!r}"
        for role in ("query", "passage")
        if how[f"{role}_prompt"] is not None
    ]
    limit = how["max_length"]
    read = "all tokens" if limit is None else f"{limit:,} tokens"
    return f"{model} ({whose}): {', '.join(prompts) or 'no prompts'}; {read}"


def _ranked(scores: Sequence[Score]) -> list[Score]:
    """Scores of all queries first, the best model first; few seen queries tell nothing."""
    parts = list(dict.fromkeys(score.queries for score in scores))
    sizes = {score.queries: score.num_queries for score in scores}
    if sizes.get("seen", 0) < _LEAST_SEEN * sizes["all"]:
        parts = ["all"]
    of_part = (
        sorted(
            (score for score in scores if score.queries == part),
            key=lambda score: -score.metrics[_SHOWN_METRIC]["mean"],
        )
        for part in parts
    )
    return [score for some in of_part for score in some]


def winner_line(scores: Sequence[Score], differences: Sequence[Difference]) -> list[str]:
    """Which model is the best, and whether it can be told from the next one."""
    best, *others = [score for score in _ranked(scores) if score.queries == "all"]
    if not others:
        return []
    second = others[0]
    names = {(best.model, best.dims), (second.model, second.dims)}
    for one in differences:
        if one.queries == "all" and {(one.model, one.dims), (one.other, one.other_dims)} == names:
            gap = one.metrics[_SHOWN_METRIC]
            is_first = (one.model, one.dims) == (best.model, best.dims)
            low, high = (gap["low"], gap["high"]) if is_first else (-gap["high"], -gap["low"])
            first, next_best = _label(best.model, best.dims), _label(second.model, second.dims)
            told = f"{abs(gap['mean']):+.4f} [{low:+.4f}, {high:+.4f}], p = {gap['p']:.4f}"
            if gap["p"] < _LEVEL:
                return [f"best: {first}, {_SHOWN_METRIC} {told} over {next_best}"]
            return [
                f"{first} and {next_best} cannot be told apart: {_SHOWN_METRIC} {told}; more "
                "queries would tell"
            ]
    return []


def _scores_table(scores: Sequence[Score]) -> list[str]:
    """A line a model and part of the queries; the interval of the first metric."""
    several = len({score.queries for score in scores}) > 1
    rows = [["model", *(["queries"] if several else []), f"{_SHOWN_METRIC} [95%]", *_OTHERS]]
    for score in scores:
        shown = "{mean:.4f} [{low:.4f}, {high:.4f}]".format(**score.metrics[_SHOWN_METRIC])
        others = [f"{score.metrics[one]['mean']:.4f}" for one in _OTHERS]
        part = [score.queries] if several else []
        rows.append([_label(score.model, score.dims), *part, shown, *others])
    return plain_table(rows)


def _difference_line(difference: Difference) -> str:
    gap = difference.metrics[_SHOWN_METRIC]
    return (
        f"{_SHOWN_METRIC} ({difference.queries}): {_label(difference.model, difference.dims)} less "
        f"{_label(difference.other, difference.other_dims)}: {gap['mean']:+.4f} "
        f"[{gap['low']:+.4f}, {gap['high']:+.4f}], p = {gap['p']:.4f}"
    )


def overview_report(
    artifact: Artifact, parts: Sequence[StageReport], skipped: bool = False
) -> StageReport:
    """A table of models by data sets, with the mean over the data sets.

    Args:
        artifact: The finished overview.
        parts: The reports of the data sets.
        skipped: Whether it was finished before.
    """
    overview = Overview.read(artifact.result.folder)
    values: dict[str, list[float]] = {}
    for scores in overview.scores.values():
        for score in scores:
            if score.queries == "all":
                label = _label(score.model, score.dims)
                values.setdefault(label, []).append(score.metrics[_SHOWN_METRIC]["mean"])
    rows = [
        [label, *map("{:.4f}".format, [*by_data, float(np.mean(by_data))])]
        for label, by_data in values.items()
    ]
    lines = plain_table([[_SHOWN_METRIC, *overview.scores, "mean"], *rows])
    return make_report(artifact, lines, parts=tuple(parts), skipped=skipped)


def _label(model: str, dims: int | None) -> str:
    return model if dims is None else f"{model} [:{dims}]"

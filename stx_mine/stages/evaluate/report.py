"""The closing sentences of `evaluate`, with tables of scores."""

from collections.abc import Sequence

import numpy as np

from stx_mine.stages.evaluate.core.metrics import METRICS
from stx_mine.stages.evaluate.core.summaries import Difference, Score, Summary
from stx_mine.stages.evaluate.counts import EvaluationCounts
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
_NOT_KNOWN = "seen and unseen in training are not told apart: the run has no finished texts/"


def evaluation_report(
    artifact: Artifact, source: str | None, warnings: list[str], skipped: bool = False
) -> StageReport:
    """The report of the evaluation of one data set.

    Args:
        artifact: The finished artifact.
        source: The source of the run whose prompts the data has; None where none was named.
        warnings: What to warn of.
        skipped: Whether it was finished before.
    """
    counts = EvaluationCounts.read(artifact.result)
    summary = read_summary(artifact.result.folder)
    prompts = f", with the prompts of source {source}" if source is not None else ""
    lines = [
        f"{counts.queries:,} queries against {counts.passages:,} passages{prompts}",
        _seen_line(summary),
        *_scores_table(summary.scores),
        f"[{summary.level:.0%} interval: {INTERVAL}; {summary.num_draws:,} draws, seed "
        f"{summary.seed}]",
        *map(_difference_line, summary.differences),
    ]
    if summary.differences:
        lines.append(f"[p: {PAIRED_TEST}; as many draws; of every other metric in {RESULTS}]")
    return make_report(artifact, lines, warnings, skipped=skipped)


def _seen_line(summary: Summary) -> str:
    if summary.num_seen is None:
        return _NOT_KNOWN
    return (
        f"{summary.num_seen:,} queries are seen in training (their text, or a positive of theirs, "
        f"is in the run's pairs), {summary.num_unseen:,} are not"
    )


def _scores_table(scores: Sequence[Score]) -> list[str]:
    cells = [
        [
            _label(score.model, score.dims),
            score.queries,
            *("{mean:.4f} [{low:.4f}, {high:.4f}]".format(**score.metrics[m]) for m in METRICS),
        ]
        for score in scores
    ]
    return plain_table([["model", "queries", *METRICS], *cells])


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

"""What a page tells of training and evaluation: curves of the log, scores with intervals."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from stx_mine.stages.evaluate.core.summaries import Difference, Score
from stx_mine.stages.evaluate.report import winner_line
from stx_mine.stages.evaluate.results import RESULTS, read_summary
from stx_mine.store.artifact import Manifest
from stx_mine.store.training_log import TRAINING_LOG, read_log

# Steps of a curve; a page needs no more.
_MOST_POINTS = 150


@dataclass(frozen=True)
class TrainingCurve:
    """A value over the steps of a training.

    Attributes:
        name: What it is.
        steps: Steps, rising.
        values: Its values; None where it was not finite.
    """

    name: str
    steps: list[int]
    values: list[float | None]


@dataclass(frozen=True)
class TrainingFacts:
    """Curves of a training.

    Attributes:
        loss: Training loss, and the loss on what was held back.
        cosines: Mean cosine of anchors with positives, hard negatives, random passages.
        scores: Metrics of evaluations while it trained.
    """

    loss: list[TrainingCurve]
    cosines: list[TrainingCurve]
    scores: list[TrainingCurve]


@dataclass(frozen=True)
class EvaluationFacts:
    """Scores of one evaluation.

    Attributes:
        name: Its name.
        winner: The best model, or that the best two cannot be told apart; empty for one model.
        level: Level of the intervals.
        scores: Of all queries: model, dims, metrics with `mean`, `low`, `high`.
        differences: Of all queries: pairs of models, with `p`.
    """

    name: str
    winner: str
    level: float
    scores: list[Score]
    differences: list[Difference]


def training_facts(model: Manifest) -> TrainingFacts:
    """The curves of a training."""
    log = model.read(TRAINING_LOG, read_log)
    kinds = ("positive", "hard", "random")
    cosines = {f"{kind} passages": ("cosine", kind, "mean") for kind in kinds}
    names = {
        (name, metric)
        for line in log
        for name, metrics in line.get("evaluations", {}).items()
        for metric in metrics
    }
    scores = {
        f"{metric} of {name}": ("evaluations", name, metric) for name, metric in sorted(names)
    }
    return TrainingFacts(
        _curves(log, {"training loss": ("loss",), "loss on held-back rows": ("validation_loss",)}),
        _curves(log, cosines),
        _curves(log, scores),
    )


def _curves(log: list[dict[str, Any]], named: Mapping[str, tuple[str, ...]]) -> list[TrainingCurve]:
    curves = []
    for name, keys in named.items():
        found = [(line["step"], _value(line, keys)) for line in log]
        points = [(step, value[0]) for step, value in found if value]
        kept = np.unique(np.linspace(0, len(points) - 1, _MOST_POINTS).astype(int))
        if points:
            some = [points[one] for one in kept.tolist()]
            curves.append(TrainingCurve(name, [one for one, _ in some], [one for _, one in some]))
    return curves


def _value(line: dict[str, Any], keys: tuple[str, ...]) -> list[float | None]:
    """The value of a line, alone in a list; an empty list where the line has none."""
    found: Any = line
    for key in keys:
        if not isinstance(found, dict) or key not in found:
            return []
        found = found[key]
    return [found]


def evaluation_facts(evaluations: dict[str, Manifest]) -> list[EvaluationFacts]:
    """The scores of evaluations of one data set each; overviews repeat them."""
    facts = []
    for name, manifest in evaluations.items():
        if "differences" not in manifest.json(RESULTS):
            continue
        summary = read_summary(manifest.folder)
        facts.append(
            EvaluationFacts(
                name,
                "; ".join(winner_line(summary.scores, summary.differences)),
                summary.level,
                [one for one in summary.scores if one.queries == "all"],
                [one for one in summary.differences if one.queries == "all"],
            )
        )
    return facts

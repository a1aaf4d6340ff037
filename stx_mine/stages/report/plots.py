"""The plots of a page."""

from stx_mine.stages.report.core.plot import Plot, PlotLine
from stx_mine.stages.report.facts import RunFacts
from stx_mine.stages.report.mined_facts import ScoreFacts
from stx_mine.stages.report.training_facts import TrainingCurve


def plots_of(facts: RunFacts) -> dict[str, list[Plot]]:
    """Section -> its plots."""
    plots = dict[str, list[Plot]]()
    if facts.scores is not None and facts.k is not None:
        plots["scores"] = [
            _histogram(facts.scores),
            _ranks(facts.scores),
            *_margins(facts.scores, facts.k),
        ]
    if facts.training is not None:
        training = facts.training
        plots["training"] = [
            *_over_steps("Loss", "loss", training.loss),
            *_over_steps("Cosines of anchors with passages", "mean cosine", training.cosines),
            *_over_steps("Evaluations while it trained", "score", training.scores),
        ]
    return plots


def _histogram(scores: ScoreFacts) -> Plot:
    edges = scores.edges
    named = {
        "positives": scores.positive,
        "negatives": scores.negative,
        "dropped candidates": scores.dropped,
    }
    # Each value holds from its edge to the next; the last one has an end.
    lines = tuple(PlotLine(name, edges, [*one, *one[-1:]]) for name, one in named.items())
    return Plot(
        "Scores of positives, negatives and dropped candidates",
        "Share of each kind by score. Positives are the lowest-scoring of each query; negatives "
        "are the first k of its pool; dropped candidates fell to a rule.",
        "score",
        "share of its kind",
        lines if edges else (),
        y_percent=True,
        steps=True,
    )


def _ranks(scores: ScoreFacts) -> Plot:
    ranks = [float(rank) for rank in scores.ranks]
    names = ("10th percentile", "median", "90th percentile")
    lines = [PlotLine(name, ranks, one) for name, one in zip(names, scores.by_rank, strict=True)]
    if ranks:
        level = scores.median_positive
        lines.append(PlotLine("median positive", [ranks[0], ranks[-1]], [level, level]))
    return Plot(
        "Score by rank",
        "Scores of candidates by their rank, with the median score of the positives.",
        "rank among the candidates, from 0",
        "score",
        tuple(lines) if ranks else (),
    )


def _margins(scores: ScoreFacts, k: int) -> list[Plot]:
    curve, mark = scores.margins, scores.margin_set
    label = "" if mark is None else f"set: {mark:g}"
    return [
        Plot(
            "Rows by relative margin",
            f"Share of rows that would have all {k} negatives, and of rows that would have none, "
            "at each relative margin.",
            "relative margin",
            "share of rows",
            (
                PlotLine(f"rows with {k} negatives", curve.margins, curve.full),
                PlotLine("rows without any", curve.margins, curve.empty),
            ),
            mark,
            label,
            y_percent=True,
        ),
        Plot(
            "Negatives by relative margin",
            f"Mean number of negatives of a row, at most {k}, at each relative margin.",
            "relative margin",
            "negatives of a row",
            (PlotLine("negatives of a row", curve.margins, curve.negatives),),
            mark,
            label,
        ),
    ]


def _over_steps(title: str, label: str, curves: list[TrainingCurve]) -> list[Plot]:
    """A plot over steps; none where nothing was measured."""
    lines = tuple(
        PlotLine(one.name, [float(step) for step in one.steps], one.values) for one in curves
    )
    return [Plot(title, f"{title} over the steps of the training.", "step", label, lines)] * bool(
        lines
    )

"""The closing report of `judge`."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stx_mine.stages.judge.asked import AskedPairs
from stx_mine.stages.judge.config import JudgeConfig
from stx_mine.stages.judge.cost import Cost
from stx_mine.stages.judge.counts import JudgeCounts
from stx_mine.stages.judge.doubt import DoubtfulPairs
from stx_mine.store.artifact import Artifact
from stx_mine.store.judgements import JUDGEMENTS
from stx_mine.store.stage_report import StageReport, make_report, percent

# Below this share of scores above those of random passages, a judge knows little.
_LEAST_ABOVE = 0.8


def judge_report(
    artifact: Artifact, config: JudgeConfig, notes: Sequence[str] = (), skipped: bool = False
) -> StageReport:
    """The report of finished judgements.

    Args:
        artifact: `judgements/NAME/`.
        config: The config.
        notes: What was guessed or put right when the judge was loaded.
        skipped: Whether they were finished before.
    """
    counts = JudgeCounts.read(artifact.result)
    lines = [
        f"{counts.candidates:,} candidates of {counts.queries:,} queries score within "
        f"{config.band:.0%} of their positive; with {counts.positives:,} positives and "
        f"{counts.random:,} random passages to compare with, {counts.judged:,} pairs were judged "
        f"by {config.cross_encoder}, {counts.known:,} known before",
    ]
    if counts.beyond_budget:
        lines.append(
            f"{counts.beyond_budget:,} candidates more are left out by --max-pairs "
            f"{config.max_pairs}; without it, or with more, the same command judges the rest"
        )
    lines += _spread(artifact)
    lines.append(f"`stx-mine mine --judges {artifact.target.name}` selects by these scores")
    return make_report(artifact, lines, [*notes, *_warnings(artifact, counts)], skipped=skipped)


def cost_report(cost: Cost, wanted: DoubtfulPairs, asked: AskedPairs, folder: str) -> StageReport:
    """What judging would cost; nothing is written."""
    tokens = f" of about {cost.tokens:,} tokens" if cost.tokens else ""
    lines = [
        f"{wanted.num_candidates:,} candidates of {wanted.num_queries:,} queries, "
        f"{wanted.num_positives:,} positives and {wanted.is_random.sum():,} random passages: "
        f"{len(wanted.query_ids):,} pairs, {len(wanted.query_ids) - cost.pairs:,} of them judged "
        "before",
        f"{cost.pairs:,} pairs{tokens} take about {_duration(cost.seconds)} here",
    ]
    counts = {"pairs": cost.pairs, "tokens": cost.tokens, "seconds": round(cost.seconds, 1)}
    return StageReport("judgements", counts, tuple(lines), folder=folder)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7_200 else f"{seconds / 3600:.1f} hours"


def _scores(artifact: Artifact) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Scores of what was asked for, and of random passages."""
    table = artifact.result.table(JUDGEMENTS)
    scores, is_random = (table.column(name).to_numpy() for name in ("score", "is_random"))
    return scores[~is_random], scores[is_random]


def _spread(artifact: Artifact) -> list[str]:
    scores, random = _scores(artifact)
    if not len(scores):
        return []
    low, middle, high = np.quantile(scores, [0.1, 0.5, 0.9])
    line = f"scores: a tenth below {low:.3f}, half below {middle:.3f}, a tenth above {high:.3f}"
    if len(random):
        line += f"; half of the random passages below {np.median(random):.3f}"
    return [line]


def _warnings(artifact: Artifact, counts: JudgeCounts) -> list[str]:
    scores, random = _scores(artifact)
    warnings = []
    if counts.failed:
        warnings.append(
            f"{percent(counts.failed, counts.failed + counts.judged)} pairs got no score (NaN): "
            "they count as not judged"
        )
    if len(scores) > 1 and (scores == scores[0]).all():
        warnings.append(f"all scores are {scores[0]:g}: nothing can be told by them")
    elif len(random):
        above = float((scores > np.median(random)).mean())
        if above < _LEAST_ABOVE:
            warnings.append(
                f"only {above:.0%} of the candidates and positives score above half of the random "
                "passages: the judge may be foreign to these texts"
            )
    return warnings

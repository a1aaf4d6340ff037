"""The closing report of `judge`."""

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

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
        f"by {config.judge}, {counts.known:,} known before",
    ]
    if counts.beyond_budget:
        lines.append(
            f"{counts.beyond_budget:,} candidates more are left out by "
            f"{'--max-calls' if config.max_calls else '--max-pairs'} "
            f"{config.max_calls or config.max_pairs}; without it, or with more, the same command "
            "judges the rest"
        )
    if counts.calls:
        paid = config.price(counts.tokens_read, counts.tokens_written)
        price = "" if paid is None else f", {paid:,.2f} by --price-read and --price-written"
        lines.append(
            f"{counts.calls:,} calls, {counts.tokens_read:,} tokens read and "
            f"{counts.tokens_written:,} written{price}"
        )
    lines += _spread(artifact)
    lines.append(f"`stx-mine mine --judges {artifact.target.name}` selects by these scores")
    return make_report(artifact, lines, [*notes, *_warnings(artifact, counts)], skipped=skipped)


def cost_report(cost: Cost, wanted: DoubtfulPairs, folder: str) -> StageReport:
    """What judging would cost; nothing is written."""
    lines = [
        f"{wanted.num_candidates:,} candidates of {wanted.num_queries:,} queries, "
        f"{wanted.num_positives:,} positives and {wanted.is_random.sum():,} random passages: "
        f"{len(wanted.query_ids):,} pairs, {len(wanted.query_ids) - cost.pairs:,} of them judged "
        "before",
        cost_line(cost),
    ]
    if wanted.num_beyond:
        lines.append(f"{wanted.num_beyond:,} candidates more are left out by the budget")
    counts = {name: one for name, one in asdict(cost).items() if one is not None}
    counts["seconds"] = round(cost.seconds, 1)
    return StageReport("judgements", counts, tuple(lines), folder=folder)


def questions_report(number: int, num_pairs: int, path: str) -> StageReport:
    """Questions that were written for a batch job."""
    line = (
        f"{number:,} questions about {num_pairs:,} pairs are in {path}; have a batch job answer "
        "them, then give its file as --import-answers with the same options"
    )
    return StageReport("judgements", {"questions": number}, (line,), folder=path)


def cost_line(cost: Cost) -> str:
    """What judging would cost, as a sentence."""
    calls = f" in {cost.calls:,} calls" if cost.calls else ""
    tokens = f" of about {cost.tokens:,} tokens" if cost.tokens else ""
    written = f" and {cost.tokens_written:,} of answers" if cost.tokens_written else ""
    price = "" if cost.price is None else f", and cost about {cost.price:,.2f}"
    return (
        f"{cost.pairs:,} pairs{calls}{tokens}{written} take about {_duration(cost.seconds)} here"
        f"{price}"
    )


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
        reasons = ", ".join(f"{number:,} {reason}" for reason, number in counts.failures.items())
        warnings.append(
            f"{percent(counts.failed, counts.failed + counts.judged)} pairs got no score "
            f"({reasons}): they count as not judged, and --overwrite asks for them again"
        )
    if counts.cut:
        warnings.append(
            f"{counts.cut:,} texts were longer than the prompt shows, and were cut: raise "
            "max_characters in a prompt of your own"
        )
    if counts.unknown_answers:
        warnings.append(
            f"{counts.unknown_answers:,} answers are to questions that are not asked now: answered "
            "before, or asked with other data or options"
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

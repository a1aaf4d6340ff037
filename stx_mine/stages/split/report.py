"""The closing report of `split`: what each part holds, and what leaks."""

from collections.abc import Sequence
from typing import Any

from stx_mine.stages.dedup.report_words import beside_another, likeness_words
from stx_mine.stages.split.config import SplitConfig
from stx_mine.stages.split.core.parts import PARTS
from stx_mine.stages.split.counts import SplitCounts
from stx_mine.stages.split.same_texts import JoinedTexts
from stx_mine.store.artifact import Artifact
from stx_mine.store.stage_report import (
    StageReport,
    listed,
    make_report,
    percent,
    plain_table,
)

# A size that is further from what was asked for is warned of.
_FAR_OFF = 0.1
# What the manifest calls the least similar texts that were joined.
LEAST = "least_alike"
# And the command line of the dedup that joined them.
GROUPED_BY = "grouped_by"


def split_report(
    artifact: Artifact, config: SplitConfig, other_qrels: Sequence[str], skipped: bool
) -> StageReport:
    """The report of a finished `split/`.

    Args:
        artifact: The finished artifact.
        config: The config.
        other_qrels: Names of the qrels of the input that were not read.
        skipped: Whether it was finished before.
    """
    counts, folder = SplitCounts.read(artifact.result), artifact.target
    lines = [
        *artifact.result.extra["read"],
        f"pairs: {counts.pairs_in:,} read, {percent(counts.pairs_kept, counts.pairs_in)} kept, "
        f"dropped: {listed(counts.pairs_dropped) or 'none'}",
        *_joined_lines(counts.joined, config, artifact.result.extra),
        *_part_table(counts),
        f"{counts.components:,} components, the largest of "
        f"{percent(counts.largest_component, counts.pairs_kept)} pairs: a component is all that "
        "shared texts tie together",
        *_leak_lines(counts, config.unit),
        *_file_lines(counts),
        f"train: `stx-mine embed {folder}`"
        + (f"; while training: `stx-mine train --evaluation {folder}`" if config.dev else "")
        + (f"; at the end: `stx-mine evaluate {folder}`" if config.test else ""),
    ]
    return make_report(artifact, lines, _warnings(counts, config, other_qrels), skipped=skipped)


def _joined_lines(
    joined: JoinedTexts | None, config: SplitConfig, extra: dict[str, Any]
) -> list[str]:
    """Which texts count as one, and the least similar ones of them."""
    if joined is None:
        return []
    number = percent(joined.equal + joined.near, joined.texts)
    if config.groups is not None:
        return [
            f"{number} of the texts of pairs count as another one: {joined.equal:,} equal, "
            f"{joined.near:,} near or of one meaning, as `{extra[GROUPED_BY]}` has found"
        ]
    words = likeness_words(config)
    kinds = [f"{joined.equal:,} {words['exact']}"]
    if config.jaccard is not None:
        kinds.append(f"{joined.near:,} {words['jaccard']}")
    lines = [f"{number} of the texts of pairs count as another one: {', '.join(kinds)}"]
    if joined.other_numbers:
        lines.append(
            f"{joined.other_numbers:,} pairs of near-duplicates are two texts since their numbers "
            "differ; --ignore with numbers in it makes them one"
        )
    for one, other, score in reversed(extra[LEAST]):
        texts = (" ".join(text.split()) for text in (one, other))
        lines.append(f"least jaccard {score:.3f}: {beside_another(*texts)}")
    return lines


def _part_table(counts: SplitCounts) -> list[str]:
    rows = [["", "pairs", "queries", "passages", "components"]]
    for name in PARTS:
        if name in counts.parts:
            part = counts.parts[name]
            cells = (part.queries, part.passages, part.components)
            pairs = percent(part.pairs, counts.pairs_kept)
            rows.append([name, pairs, *(f"{number:,}" for number in cells)])
    return plain_table(rows)


def _leak_lines(counts: SplitCounts, chosen: str) -> list[str]:
    rows = [["held-out pairs that share with training", "the positive", "any text"]]
    for unit, leaks in counts.leaks.items():
        cells = (percent(number, leaks.held_out) for number in (leaks.positives, leaks.texts))
        name = f"  split by {unit}" + (" (this one)" if unit == chosen else "")
        rows.append([name, *cells])
    return plain_table(rows)


def _file_lines(counts: SplitCounts) -> list[str]:
    """What the files hold beside the pairs, and what they lack."""
    queries, corpus = counts.queries_left_out, counts.corpus_empty
    not_relevant = sum(part.not_relevant for part in counts.parts.values())
    rows = sum(part.rows for part in counts.parts.values())
    equal = rows - not_relevant - counts.pairs_kept
    dropped = counts.not_relevant_dropped
    lines = [
        f"corpus.jsonl: {counts.passages:,} passages for all parts, "
        f"{counts.passages_without_pair:,} of them of no pair"
        + (f"; left out: {corpus:,} without text" if corpus else ""),
        f"queries.jsonl: {counts.queries:,} queries of all parts"
        + (f"; left out: {queries:,} without a pair" if queries else ""),
    ]
    if equal:
        lines.append(f"lines of qrels that name equal texts by other ids: {equal:,}")
    if not_relevant or any(dropped.values()):
        lines.append(
            f"lines of qrels with grade 0 (judged, or known negatives): {not_relevant:,}; left "
            f"out: {listed(dropped) or 'none'}"
        )
    return lines


def _warnings(counts: SplitCounts, config: SplitConfig, other_qrels: Sequence[str]) -> list[str]:
    warnings = []
    if other_qrels:
        warnings.append(
            f"one of the qrels of {config.pairs} was split; {', '.join(other_qrels)} may share "
            "texts with every part"
        )
    off = [
        f"{name} has {part.pairs:,} pairs instead of {part.target:,}"
        for name, part in counts.parts.items()
        if abs(part.pairs - part.target) > _FAR_OFF * part.target
    ]
    if off:
        warnings.append(f"{', '.join(off)}: components are not divided")
    joined = counts.joined
    if joined is not None and joined.unknown:
        warnings.append(
            f"{joined.unknown:,} of the {joined.texts:,} texts of pairs are not in the run "
            f"{config.groups}, and count as themselves: near-copies of them may lie in other parts"
        )
    if joined is not None and joined.crowded:
        warnings.append(
            f"{joined.crowded:,} texts have more candidates than are compared, so that a "
            "near-duplicate may lie in another part; a higher --jaccard has fewer"
        )
    if config.unit == "component" and 2 * counts.largest_component > counts.pairs_kept:
        warnings.append(
            f"one component holds {percent(counts.largest_component, counts.pairs_kept)} of the "
            "pairs and stays whole in training: dev and test are drawn from what shares no text "
            "with it, and may be unlike it"
        )
    return warnings

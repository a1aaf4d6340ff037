"""The closing report of `dedup`: what was joined, with samples, and where the thresholds bite."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stx_mine.stages.dedup.config import DedupConfig
from stx_mine.stages.dedup.counts import DedupCounts
from stx_mine.stages.dedup.joins import EXACT
from stx_mine.stages.dedup.leak_lines import leak_lines, leak_warnings
from stx_mine.stages.dedup.regroup import JOINED
from stx_mine.stages.dedup.report_words import beside_another, likeness_words, text_of_id
from stx_mine.store.artifact import Artifact, Manifest
from stx_mine.store.stage_report import StageReport, listed, make_report, percent
from stx_mine.store.texts import TextStore

_SAMPLES = 3
# From this share on a person should look at the samples before anything is mined.
_MANY = 0.2


def dedup_report(
    artifact: Artifact,
    config: DedupConfig,
    store: TextStore,
    leaks: Manifest | None,
    skipped: bool,
) -> StageReport:
    """The report of finished groups.

    Args:
        artifact: The groups.
        config: The config.
        store: The texts.
        leaks: What is in evaluation sets; None where none were named.
        skipped: Whether the groups were finished before.
    """
    counts = DedupCounts.read(artifact.result)
    joined = artifact.result.table(JOINED)
    named = likeness_words(config)
    kinds = [f"{number:,} {named[kind]}" for kind, number in counts.joined.items()]
    sizes = dict(counts.sizes)
    largest = sizes.pop("largest")
    lines = [
        f"{counts.texts:,} texts are {counts.groups:,} groups; "
        f"{percent(counts.num_joined, counts.texts)} count as another text: {', '.join(kinds)}",
    ]
    if sizes:
        lines.append(f"groups by number of texts: {listed(sizes)}; the largest has {largest:,}")
    if counts.other_numbers:
        lines.append(
            f"{counts.other_numbers:,} pairs above a threshold are apart since their numbers "
            "differ; --ignore with numbers in it joins them"
        )
    if counts.cut:
        lines.append(
            f"{counts.cut:,} pairs above a threshold are in two groups: every text of a group is "
            "above it with the group's representative, so that chains join nothing"
        )
    if config.drop:
        lines.append(
            f"dropped: {percent(counts.dropped_passages, store.num_passages)} of the passages "
            f"become no negatives, {percent(counts.repeated_pairs, store.num_pairs)} of the pairs "
            "no rows; another one of each group stays"
        )
    lines += _samples(store, joined, list(counts.joined))
    for kind, curve in counts.curves.items():
        shown = ", ".join(f"{threshold}: {count:,}" for threshold, count in curve.items())
        lines.append(f"texts joined by --{kind} (equal ones among them): {shown}")
    if config.jaccard is None and config.cosine is None:
        lines.append(
            "only equal texts were joined: --jaccard 0.8 joins near-duplicates, --cosine 0.95 "
            "texts of one meaning"
        )
    warnings = _warnings(counts)
    if leaks is not None:
        lines += leak_lines(leaks, config, counts, store)
        warnings += leak_warnings(leaks, config)
    return make_report(artifact, lines, warnings, skipped=skipped)


def _warnings(counts: DedupCounts) -> list[str]:
    warnings = []
    if counts.num_joined > _MANY * counts.texts:
        warnings.append(
            f"{counts.num_joined / counts.texts:.0%} of the texts count as another one; see above "
            "whether these are duplicates"
        )
    warnings += [
        f"{number:,} texts have more candidates than are compared, so that duplicates of them may "
        f"be in other groups; a higher --{kind} has fewer"
        for kind, number in counts.crowded.items()
        if number
    ]
    return warnings


def _samples(store: TextStore, joined: pa.Table, kinds: list[str]) -> list[str]:
    """For each kind three texts spread over the scores, then those that are least similar."""
    lines = []
    for kind in kinds:
        rows = np.flatnonzero(pc.equal(joined["kind"], kind).to_numpy())
        if not len(rows):
            continue
        if kind == EXACT:
            chosen = rows[np.linspace(0, len(rows) - 1, min(_SAMPLES, len(rows))).astype(int)]
            lines += [_line(store, joined, row, "equal") for row in dict.fromkeys(chosen.tolist())]
            continue
        by_score = rows[np.argsort(joined["score"].to_numpy()[rows], kind="stable")]
        least = by_score[:_SAMPLES]
        others = by_score[_SAMPLES:]
        places = np.linspace(0, len(others) - 1, min(_SAMPLES, len(others))).astype(int)
        chosen = others[places][::-1]
        lines += [_line(store, joined, row, f"{kind} ") for row in chosen.tolist()]
        lines += [_line(store, joined, row, f"least {kind} ") for row in least[::-1].tolist()]
    return lines


def _line(store: TextStore, joined: pa.Table, row: int, label: str) -> str:
    one = joined.slice(row, 1).to_pylist()[0]
    score = "" if one["kind"] == EXACT else f"{one['score']:.3f}"
    texts = (text_of_id(store, one[name]) for name in ("text_id", "like_id"))
    return f"{label}{score}: {beside_another(*texts)}"

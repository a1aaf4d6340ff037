"""The closing report of `dedup`: what was joined, with samples, and where the thresholds bite."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stx_mine.stages.dedup.config import DedupConfig
from stx_mine.stages.dedup.counts import DedupCounts
from stx_mine.stages.dedup.joins import EXACT
from stx_mine.stages.dedup.regroup import JOINED
from stx_mine.store.artifact import Artifact
from stx_mine.store.stage_report import StageReport, listed, make_report, percent
from stx_mine.store.texts import TextStore, take_texts

_SAMPLES, _LETTERS = 3, 70
# From this share on a person should look at the samples before anything is mined.
_MANY = 0.2


def dedup_report(
    artifact: Artifact, config: DedupConfig, store: TextStore, skipped: bool
) -> StageReport:
    """The report of finished groups."""
    counts = DedupCounts.read(artifact.result)
    joined = artifact.result.table(JOINED)
    ignored = ", ".join(config.ignored) or "nothing"
    kinds = [f"{counts.joined[EXACT]:,} equal but for {ignored}"]
    if config.jaccard is not None:
        kinds.append(
            f"{counts.joined['jaccard']:,} near (Jaccard of {_shingles(config)} >= "
            f"{config.jaccard:g})"
        )
    if config.cosine is not None:
        kinds.append(f"{counts.joined['cosine']:,} of one meaning (cosine >= {config.cosine:g})")
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
            f"become no negatives, {percent(counts.dropped_pairs, store.num_pairs)} of the pairs "
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
    return make_report(artifact, lines, _warnings(counts), skipped=skipped)


def _shingles(config: DedupConfig) -> str:
    return f"{'' if config.run_length == 1 else f'runs of {config.run_length} '}{config.shingles}"


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
    texts = [_text(store, one[name]) for name in ("text_id", "like_id")]
    # What tells two long texts apart is shown.
    differ = (place for place, both in enumerate(zip(*texts, strict=False)) if both[0] != both[1])
    first = next(differ, len(min(texts, key=len))) - _LETTERS // 3
    return f"{label}{score}: " + " = ".join(_shown(text, first) for text in texts)


def _shown(text: str, first: int) -> str:
    """A text in short, in quotes; what is to be seen stands after some letters of `first`."""
    first = max(0, min(first, len(text) - _LETTERS))
    before, after = "..." if first else "", "..." if len(text) > first + _LETTERS else ""
    return f'"{before}{text[first : first + _LETTERS]}{after}"'


def _text(store: TextStore, text_id: int) -> str:
    """A text on one line."""
    if text_id < store.num_passages:
        column, row = store.passages["text"], text_id
    else:
        column = store.queries["text"]
        row = int(np.flatnonzero(np.asarray(store.query_texts) == text_id)[0])
    return " ".join(take_texts(column, np.array([row])).to_pylist()[0].split())

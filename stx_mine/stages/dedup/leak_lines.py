"""What the report of `dedup` says of evaluation sets."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stx_mine.stages.dedup.config import DedupConfig
from stx_mine.stages.dedup.counts import DedupCounts
from stx_mine.stages.dedup.joins import EXACT
from stx_mine.stages.dedup.leaks import LEAK_KINDS, LEAKS, LeakCounts
from stx_mine.stages.dedup.report_words import beside_another, likeness_words, text_of_id
from stx_mine.store.artifact import Manifest
from stx_mine.store.stage_report import percent
from stx_mine.store.texts import TextStore

_SAMPLES = 3
# From this share on the thresholds are too low, or the sets are those that are trained on.
_LEAKING = 0.5


def leak_lines(
    leaks: Manifest, config: DedupConfig, counts: DedupCounts, store: TextStore
) -> list[str]:
    """What of each evaluation set is in training pairs, samples, and what is dropped for it."""
    found, table = LeakCounts.read(leaks), leaks.table(LEAKS)
    words, lines = likeness_words(config), [*leaks.extra["read"]]
    for name, one in found.sets.items():
        lines.append(
            f"in training, or like a text of it: {percent(one.queries_found, one.queries)} of the "
            f"{one.queries:,} queries of {name}, {percent(one.positives_found, one.positives)} of "
            f"its {one.positives:,} positives"
        )
        for side, by_kind in (("query", one.pairs_by_query), ("positive", one.pairs_by_positive)):
            kinds = ", ".join(f"{number:,} {words[kind]}" for kind, number in by_kind.items())
            number = percent(sum(by_kind.values()), found.pairs)
            lines.append(
                f"  training pairs whose {side} is in it: {number}" + (kinds and f": {kinds}")
            )
        lines += _leak_samples(table.filter(pc.equal(table["evaluation"], name)), store)
    if found.other_numbers:
        lines.append(
            f"{found.other_numbers:,} pairs of a text of training and one of a set are no leaks "
            "since their numbers differ; --ignore with numbers in it counts them"
        )
    dropped = counts.pairs_dropped
    by_query, by_positive = (dropped.get(f"leaked_{side}", 0) for side in ("query", "positive"))
    lines.append(
        f"dropped as leaks: {percent(by_query + by_positive, found.pairs)} of the pairs become no "
        f"rows ({by_query:,} for their query, {by_positive:,} for their positive); passages stay "
        "in the corpus, and may be negatives"
        if config.drop_leaks
        else f"nothing is dropped for that: --drop-leaks queries would drop {found.query_leaks:,} "
        f"pairs, --drop-leaks texts {found.either:,}"
    )
    return lines


def _leak_samples(table: pa.Table, store: TextStore) -> list[str]:
    """Three texts of each kind, spread over the scores, with the text of the set."""
    lines = []
    for kind in LEAK_KINDS:
        rows = np.flatnonzero(pc.equal(table["kind"], kind).to_numpy())
        by_score = rows[np.argsort(-table["score"].to_numpy()[rows], kind="stable")]
        places = np.linspace(0, len(rows) - 1, min(_SAMPLES, len(rows))).astype(int)
        for one in table.take(pa.array(by_score[places])).to_pylist():
            score = "equal" if kind == EXACT else f"{kind} {one['score']:.3f}"
            texts = text_of_id(store, one["text_id"]), " ".join(one["text"].split())
            lines.append(f"  {score}: {beside_another(*texts)} ({one['role']} of the set)")
    return lines


def leak_warnings(leaks: Manifest, config: DedupConfig) -> list[str]:
    """What deserves attention of it."""
    found, warnings = LeakCounts.read(leaks), [*leaks.extra["notes"]]
    if found.either > _LEAKING * found.pairs:
        warnings.append(
            f"{found.either / found.pairs:.0%} of the training pairs have a text that is in an "
            "evaluation set, or like one of it; see above whether that is so: else give higher "
            "thresholds, or divide the pairs anew with `stx-mine split`"
        )
    if config.cosine is not None and not found.embedded:
        warnings.append(
            "evaluation sets were compared by their letters alone: the vectors of this run came "
            "from files, a function or a server, and no model is known that could embed others"
        )
    if found.crowded:
        warnings.append(
            f"{found.crowded:,} texts of training have more candidates in evaluation sets than are "
            "compared, so that leaks may be missing; higher thresholds have fewer"
        )
    return warnings

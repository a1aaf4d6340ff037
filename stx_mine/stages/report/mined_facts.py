"""What a page tells of the negatives: verdicts, scores, ranks, margins, uses, groups."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stx_mine.core.ragged import Ragged
from stx_mine.core.verdicts import ELIGIBLE, NO_CANDIDATES, RULES, Verdict
from stx_mine.stages.mine.counts import MineCounts
from stx_mine.stages.report.core.curves import (
    MarginCurve,
    margin_curve,
    ranks_of,
    score_edges,
    scores_by_rank,
    shares_by_bin,
)
from stx_mine.stages.show.mined_views import MinedViews, words_of_verdict
from stx_mine.store.groups import TextGroups
from stx_mine.store.hits import HitSource
from stx_mine.store.mined_run import MinedRun
from stx_mine.store.negatives import UnitVerdicts
from stx_mine.store.texts import TextStore

# Units whose hits are read: the standard error of a share is below 0.25 points.
MOST_UNITS = 50_000
_BINS, _RANKS = 40, 60
_MARGINS = tuple(round(0.02 * step, 2) for step in range(26))
_MOST_USED, _LARGEST = 10, 3
_MOST_CHARACTERS = 500


@dataclass(frozen=True)
class VerdictFact:
    """The hits that a rule decided about.

    Attributes:
        verdict: The rule, in words.
        meaning: What it says of a hit.
        hits: How many.
        share: Of all hits, in [0, 1].
    """

    verdict: str
    meaning: str
    hits: int
    share: float


@dataclass(frozen=True)
class ScoreFacts:
    """Scores of a sample of queries.

    Attributes:
        unit: `queries`, or `pairs` where each has a pool of its own.
        units: How many are in the sample.
        of_units: How many there are.
        edges: Edges of the bins of scores.
        positive: Share of the lowest positives in each bin.
        negative: Share of the first k negatives of pools.
        dropped: Share of the candidates that a rule dropped.
        ranks: Ranks, 0-based among candidates.
        by_rank: 10th, 50th and 90th percentile of the scores at these.
        median_positive: Median score of the positives.
        margins: What relative margins leave.
        margin_set: The relative margin of mine; None for none.
    """

    unit: str
    units: int
    of_units: int
    edges: list[float]
    positive: list[float]
    negative: list[float]
    dropped: list[float]
    ranks: list[int]
    by_rank: list[list[float]]
    median_positive: float
    margins: MarginCurve
    margin_set: float | None


@dataclass(frozen=True)
class UsedPassage:
    """A passage and how many pools have it."""

    text: str
    original_id: str | None
    uses: int


@dataclass(frozen=True)
class UseFacts:
    """How often passages are negatives.

    Attributes:
        used: Passages that are in a pool.
        passages: All passages.
        by_uses: (fewest, most, passages) of each class of numbers of uses.
        most_used: The passages that are in the most pools.
    """

    used: int
    passages: int
    by_uses: list[tuple[int, int, int]]
    most_used: list[UsedPassage]


@dataclass(frozen=True)
class GroupFacts:
    """How many texts count as one.

    Attributes:
        texts: Queries and passages.
        groups: Their groups.
        by_size: (smallest, largest, groups) of each class of sizes.
        largest: (size, a text) of the largest groups.
    """

    texts: int
    groups: int
    by_size: list[tuple[int, int, int]]
    largest: list[tuple[int, str]]


@dataclass(frozen=True)
class UnitSample:
    """Units drawn with their hits.

    Attributes:
        unit_ids: int64 (U,), rising.
        query_ids: int64 (U,).
        rows: int64 (U,) rows that have the pool of a unit.
        units: Their pools and hits.
    """

    unit_ids: NDArray[np.int64]
    query_ids: NDArray[np.int64]
    rows: NDArray[np.int64]
    units: UnitVerdicts

    @classmethod
    def draw(cls, mined: MinedRun, seed: int) -> "UnitSample | None":
        """Draw at most `MOST_UNITS`; None where there are none."""
        ids = mined.units.unit_ids
        if not len(ids):
            return None
        number = min(len(ids), MOST_UNITS)
        drawn = np.sort(np.random.default_rng(seed).choice(ids, number, replace=False))
        if mined.negatives.extra["per_pair"]:
            queries, rows = mined.store.pair_query_ids[drawn], np.ones(number, np.int64)
        else:
            of_rows = mined.store.pair_query_ids[mined.is_row]
            queries, rows = drawn, np.bincount(of_rows, minlength=mined.store.num_queries)[drawn]
        return cls(drawn, queries, rows, mined.units.take(drawn))

    def first_negatives(self, k: int) -> tuple[Ragged, NDArray[np.int64]]:
        """The first k of each pool, and where they stand among the hits."""
        pools, _ = self.units.pools.take(np.arange(len(self.unit_ids)), k)
        hits = self.units.hits
        # A pool holds hits of its unit, each once.
        width = 1 + int(hits.values.max(initial=0))
        keys = np.repeat(np.arange(len(hits)), hits.lengths()) * width + hits.values
        wanted = np.repeat(np.arange(len(pools)), pools.lengths()) * width + pools.values
        order = np.argsort(keys)
        return pools, order[np.searchsorted(keys, wanted, sorter=order)]


def verdict_facts(counts: MineCounts) -> list[VerdictFact]:
    """The waterfall: hits by the first rule that decided about them, in the order of the rules."""
    hits = {**counts.dropped, "pooled": counts.pooled}
    return [
        VerdictFact(
            words_of_verdict(Verdict[name.upper()]),
            RULES[Verdict[name.upper()]].meaning,
            number,
            number / max(1, counts.hits_in),
        )
        for name, number in hits.items()
        if number or name == "pooled"
    ]


def score_facts(mined: MinedRun, sample: UnitSample) -> ScoreFacts:
    """Histograms and curves of a sample."""
    units, margin = sample.units, mined.negatives.fields["relative_margin"]
    candidate = ~np.isin(units.verdicts, NO_CANDIDATES)
    eligible = np.isin(units.verdicts, ELIGIBLE)
    _, places = sample.first_negatives(mined.k)
    edges = score_edges([units.positive_scores, units.hit_scores], _BINS)
    ranks, by_rank = scores_by_rank(ranks_of(units.hits, candidate), units.hit_scores, _RANKS)
    margins = sorted({*_MARGINS, *([] if margin is None else [float(margin)])})
    return ScoreFacts(
        "pairs" if mined.negatives.extra["per_pair"] else "queries",
        len(sample.unit_ids),
        len(mined.units.unit_ids),
        edges,
        shares_by_bin(units.positive_scores, edges),
        shares_by_bin(units.hit_scores[places], edges),
        shares_by_bin(units.hit_scores[candidate & ~eligible], edges),
        ranks,
        by_rank,
        float(np.median(units.positive_scores)),
        margin_curve(
            margins,
            units.positive_scores,
            units.hits,
            units.hit_scores,
            eligible | (units.verdicts == Verdict.RELATIVE_MARGIN),
            _whatever_margin(mined, sample, eligible),
            sample.rows,
            k=mined.k,
        ),
        margin,
    )


def _whatever_margin(
    mined: MinedRun, sample: UnitSample, eligible: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Hits that no margin drops: known negatives that are kept, and what judges have cleared."""
    units, margin = sample.units, mined.negatives.fields["relative_margin"]
    always = np.zeros(len(eligible), bool)
    if mined.negatives.extra.get("known_first"):
        always |= (units.hit_sources & HitSource.KNOWN) > 0
    if margin is not None:
        positives = np.repeat(units.positive_scores, units.hits.lengths())
        always |= units.hit_scores > positives - np.abs(positives) * np.float32(margin)
    return always & eligible


def use_facts(views: MinedViews) -> UseFacts:
    """How often passages are negatives."""
    ids, uses = views.most_used()
    shown = [views.text("passages", int(one)) for one in ids[:_MOST_USED]]
    return UseFacts(
        len(ids),
        views.mined.store.num_passages,
        doubling_classes(uses),
        [
            UsedPassage(cut_text(one.text), one.original_id, int(number))
            for one, number in zip(shown, uses, strict=False)
        ],
    )


def group_facts(store: TextStore, groups: TextGroups) -> GroupFacts:
    """Sizes of groups, and the largest ones."""
    sizes = np.bincount(np.concatenate([groups.passages, groups.queries]))
    sizes_G = sizes[sizes > 0]
    largest = np.argsort(-sizes, kind="stable")[:_LARGEST]
    texts = []
    for group in largest[sizes[largest] > 1].tolist():
        role = "passages" if (groups.passages == group).any() else "queries"
        number = int(np.flatnonzero(getattr(groups, role) == group)[0])
        [text] = getattr(store, role).column("text").slice(number, 1).to_pylist()
        texts.append((int(sizes[group]), cut_text(text)))
    return GroupFacts(int(sizes.sum()), len(sizes_G), doubling_classes(sizes_G), texts)


def doubling_classes(numbers: NDArray[np.int64]) -> list[tuple[int, int, int]]:
    """(smallest, largest, how many) of numbers from 1 on: 1, 2 to 3, 4 to 7 ...; none empty."""
    if not len(numbers):
        return []
    # Exact, as floats hold these logarithms of powers of two.
    powers = np.floor(np.log2(numbers)).astype(np.int64)
    counts = np.bincount(powers)
    return [
        (2**power, 2 ** (power + 1) - 1, int(number))
        for power, number in enumerate(counts.tolist())
        if number
    ]


def cut_text(text: str) -> str:
    """The beginning of a text, with its length where that is not all of it."""
    if len(text) <= _MOST_CHARACTERS:
        return text
    return f"{text[:_MOST_CHARACTERS]}… ({len(text):,} characters)"

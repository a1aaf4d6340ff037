"""The queries that people read: which ones, and what of their hits."""

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from stx_mine.stages.report.mined_facts import UnitSample, cut_text
from stx_mine.stages.show.mined_views import MinedViews
from stx_mine.stages.show.views import CandidateView, PositiveView, QueryView

# Positives and negatives of a query, and other hits above its first negative and between these:
# a page of the most queries has less than 5 MB.
_MOST_POSITIVES, _MOST_NEGATIVES, _MOST_ABOVE = 3, 10, 4
# Queries that are searched for the worst positives.
MOST_SCORED = 100_000
KINDS_OF_EXAMPLES = {
    "worst": "the positive scores lowest among random passages: a wrong pair?",
    "suspect": "a negative scores nearest to the positive, or above: a false one?",
    "random": "drawn",
}


@dataclass(frozen=True)
class QueryExample:
    """A query to read.

    Attributes:
        kind: worst, suspect or random.
        why: Why it is shown, in numbers; empty where it was drawn.
        query: It.
        original_id: Its id of the input.
        positives: Its first positives.
        more_positives: How many more it has.
        limit_score: The positive score that margins count from.
        more_negatives: How many more negatives it has than are shown.
        candidates: Its negatives, and of the other hits those just above them.
        more_above: Rule -> hits above those that are shown.
    """

    kind: str
    why: str
    query: str
    original_id: str | None
    positives: tuple[PositiveView, ...]
    more_positives: int
    limit_score: float | None
    more_negatives: int
    candidates: tuple[CandidateView, ...]
    more_above: dict[str, int]


def query_examples(
    views: MinedViews, sample: UnitSample | None, number: int, seed: int
) -> list[QueryExample]:
    """Queries to read: the worst, suspects, and drawn ones."""
    if not number:
        return []
    rng = np.random.default_rng(seed)
    ids = np.unique(views.mined.store.pair_query_ids)
    whys: dict[int, tuple[str, str]] = {}
    searched = np.sort(rng.choice(ids, min(len(ids), MOST_SCORED), replace=False))
    for one in views.suspects(number // 3, searched):
        why = f"scores above {one.percentile:.0f}% of random passages"
        whys.setdefault(one.query.id, ("worst", why))
    wanted = len(whys) + number // 3
    for query, gap in _suspects(views, sample, number):
        if len(whys) < wanted and query not in whys:
            whys[query] = ("suspect", f"a negative scores {gap:+.3f} against the positive")
    others = np.setdiff1d(ids, list(whys))
    drawn = rng.choice(others, min(len(others), max(0, number - len(whys))), replace=False)
    whys |= {int(one): ("random", "") for one in np.sort(drawn)}
    found = views.queries(list(whys), 1 << 30)
    return [_example(*whys[one.id], one, views.mined.k) for one in found]


def _suspects(views: MinedViews, sample: UnitSample | None, number: int) -> list[tuple[int, float]]:
    """Queries with the negatives that score highest beside their positive, and by how much."""
    if sample is None:
        return []
    pools, places = sample.first_negatives(views.mined.k)
    units = np.repeat(np.arange(len(pools)), pools.lengths())
    gaps = sample.units.hit_scores[places] - sample.units.positive_scores[units]
    best = np.full(len(pools), -np.inf)
    np.maximum.at(best, units, gaps)
    order = np.argsort(-best, kind="stable")
    order = order[np.isfinite(best[order])][: 2 * number]
    return [(int(sample.query_ids[one]), float(best[one])) for one in order]


def _example(kind: str, why: str, view: QueryView, k: int) -> QueryExample:
    bound = [
        place for place, one in enumerate(view.candidates) if one.slot is not None and one.slot < k
    ]
    more_negatives, bound = len(bound[_MOST_NEGATIVES:]), bound[:_MOST_NEGATIVES]
    first, last = (bound[0], bound[-1]) if bound else (len(view.candidates), -1)
    above = list(range(max(0, first - _MOST_ABOVE), first)) if bound else list(range(_MOST_ABOVE))
    between = [place for place in range(first, last) if place not in bound][:_MOST_ABOVE]
    shown = sorted({*bound, *between, *above} & set(range(len(view.candidates))))
    hidden = view.candidates[: shown[0]] if shown and bound else ()
    return QueryExample(
        kind,
        why,
        cut_text(view.text),
        view.original_id,
        tuple(replace(one, text=cut_text(one.text)) for one in view.positives[:_MOST_POSITIVES]),
        max(0, len(view.positives) - _MOST_POSITIVES),
        view.limit_score,
        more_negatives,
        tuple(
            replace(view.candidates[place], text=cut_text(view.candidates[place].text))
            for place in shown
        ),
        dict(Counter(one.verdict for one in hidden)),
    )

"""Choose negatives among hits; every hit gets a verdict.

The rules apply in the order of the verdicts, and the first that drops a hit decides. A *unit* is
what shares one pool: a query, or a pair where margins count from the pair's own positive.

Shape letters: U units, H hits of all units one after the other, S slots of a pool.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numba
import numpy as np
from numpy.typing import NDArray

from stx_mine.core.ragged import Ragged
from stx_mine.core.verdicts import Verdict
from stx_mine.stages.mine.core.opinions import Opinion
from stx_mine.stages.mine.core.pool_order import known_first, order_of_pool

Sampling = Literal["top", "random", "weighted"]
# What the kernel may name: it takes no enumeration.
_OWN_TEXT = int(Verdict.OWN_TEXT)
_KNOWN_POSITIVE = int(Verdict.KNOWN_POSITIVE)
_DUPLICATE_GROUP = int(Verdict.DUPLICATE_GROUP)
_JUDGED_POSITIVE = int(Verdict.JUDGED_POSITIVE)
_JUDGED_CLOSE = int(Verdict.JUDGED_CLOSE)
_LANGUAGE = int(Verdict.LANGUAGE)
_RANK_WINDOW = int(Verdict.RANK_WINDOW)
_SCORE_WINDOW = int(Verdict.SCORE_WINDOW)
_ABSOLUTE_MARGIN = int(Verdict.ABSOLUTE_MARGIN)
_RELATIVE_MARGIN = int(Verdict.RELATIVE_MARGIN)
_UPPER_MARGIN = int(Verdict.UPPER_MARGIN)
_CLOSE_TO_POSITIVE = int(Verdict.CLOSE_TO_POSITIVE)
_MAX_USES = int(Verdict.MAX_USES)
_BEYOND_POOL = int(Verdict.BEYOND_POOL)
_NONE, _WORSE = np.uint8(Opinion.NONE), np.uint8(Opinion.WORSE)
_CLOSE, _BETTER = np.uint8(Opinion.CLOSE), np.uint8(Opinion.BETTER)
_NO_FLAGS = np.empty(0, np.bool_)
_SAMPLINGS: tuple[Sampling, ...] = ("top", "random", "weighted")


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The thresholds of a selection; None turns a rule off.

    Attributes:
        pool: Negatives kept a unit.
        range_min: First rank allowed (0-based among candidates, inclusive).
        range_max: End of the ranks allowed (exclusive).
        min_score: Lowest score allowed (inclusive).
        max_score: Highest score allowed (inclusive).
        absolute_margin: Keep if score <= positive - margin.
        relative_margin: Keep if score <= positive - |positive| * margin.
        upper_margin: Keep if score >= positive - margin (with a margin: semi-hard; Schroff et al.
            2015).
        sampling: The pool takes the best first, draws evenly, or draws by weight
            exp(score / sampling_temperature), without replacement.
        sampling_temperature: Of weighted sampling.
        seed: Seed of the draw.
    """

    pool: int
    range_min: int = 0
    range_max: int | None = None
    min_score: float | None = None
    max_score: float | None = None
    absolute_margin: float | None = None
    relative_margin: float | None = None
    upper_margin: float | None = None
    sampling: Sampling = "top"
    sampling_temperature: float = 0.05
    seed: int = 42


@dataclass(frozen=True, kw_only=True)
class HitMarks:
    """What is known of the hits beside their scores; None where a rule is off.

    Attributes:
        known: bool (H,) hits that are known to be negatives. Only the rules about texts apply to
            them: no text of the query itself, no positive, one hit a group, which is a known one.
            They stand first in the pool, ordered among themselves as the others are.
        wrong_language: bool (H,) hits that do not have the language that is wanted. They are
            candidates, and so count in ranks.
        too_close: bool (H,) hits that lie too close to the unit's positive.
        opinions: uint8 (H,) the `Opinion` of judges. What is not worse than the positive is no
            negative; margins and closeness say nothing of what is.
    """

    known: NDArray[np.bool_] | None = None
    wrong_language: NDArray[np.bool_] | None = None
    too_close: NDArray[np.bool_] | None = None
    opinions: NDArray[np.uint8] | None = None

    def arrays(self) -> tuple[NDArray[Any], ...]:
        """All of them, empty where a rule is off."""
        flags = (self.known, self.wrong_language, self.too_close)
        none = np.empty(0, np.uint8)
        return (
            *(_NO_FLAGS if one is None else one for one in flags),
            none if self.opinions is None else self.opinions,
        )


NO_MARKS = HitMarks()


@dataclass(frozen=True)
class UseLimits:
    """The last use that each passage keeps under `max_uses`, in the order (score, unit).

    Attributes:
        scores_P: float32 (P,) the lowest score kept.
        units_P: int64 (P,) the highest unit id kept at that score.
    """

    scores_P: NDArray[np.float32]
    units_P: NDArray[np.int64]


@dataclass(frozen=True)
class Selection:
    """Pools and verdicts of some units.

    Attributes:
        ids_US: int64 (U, S) passage ids, known negatives first, then best first (or in the order
            drawn); -1 pads.
        ranks_US: int32 (U, S) 0-based rank among the candidates; -1 pads.
        scores_US: float32 (U, S); minus infinity pads.
        verdicts_H: uint8 (H,), aligned with the hits.
    """

    ids_US: NDArray[np.int64]
    ranks_US: NDArray[np.int32]
    scores_US: NDArray[np.float32]
    verdicts_H: NDArray[np.uint8]

    def sizes(self) -> NDArray[np.int64]:
        """int64 (U,): negatives in each pool."""
        sizes: NDArray[np.int64] = (self.ids_US >= 0).sum(1)
        return sizes


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _select(
    units: Any,
    hits: Any,
    groups: Any,
    forbidden: Any,
    num_groups: Any,
    pool: Any,
    limits: Any,
    uses: Any,
    draw: Any,
) -> Any:
    unit_ids, unit_queries, positive_scores = units
    hit_offsets, hit_ids, hit_scores, known, wrong_language, too_close, opinions = hits
    query_groups, passage_groups, excluded = groups
    num_units = len(unit_queries)
    ids = np.full((num_units, pool), -1, np.int64)
    ranks = np.full((num_units, pool), -1, np.int32)
    scores = np.full((num_units, pool), -np.inf, np.float32)
    verdicts = np.zeros(len(hit_ids), np.uint8)
    # Which unit last forbade, or saw, each group: no clearing between units.
    forbidden_by = np.full(num_groups, -1, np.int64)
    seen_by = np.full(num_groups, -1, np.int64)
    known_by = np.full(num_groups if len(known) else 0, -1, np.int64)
    for unit in range(num_units):
        query = unit_queries[unit]
        first, last = hit_offsets[unit], hit_offsets[unit + 1]
        _mark(forbidden_by, forbidden[1][forbidden[0][query] : forbidden[0][query + 1]], unit)
        if len(known):
            _mark_known(known_by, passage_groups, hit_ids[first:last], known[first:last], unit)
        rank = np.int64(0)
        eligible = np.empty(last - first, np.int64)
        eligible_ranks = np.empty(last - first, np.int32)
        num_eligible = 0
        for hit in range(first, last):
            passage = hit_ids[hit]
            group = passage_groups[passage]
            is_known = _holds(known, hit)
            # The place of a group belongs to its known negative, whatever scores better.
            is_seen = seen_by[group] == unit or (not is_known and _is(known_by, group, unit))
            verdict = _exclusion(
                group,
                query_groups[query],
                forbidden_by[group] == unit,
                is_seen,
                excluded[passage] if len(excluded) and not is_known else 0,
            )
            if not verdict:
                seen_by[group] = unit
                if not is_known:
                    verdict = _drop(
                        rank,
                        hit_scores[hit],
                        positive_scores[unit],
                        limits,
                        opinions[hit] if len(opinions) else _NONE,
                        _holds(wrong_language, hit),
                        _holds(too_close, hit),
                        _used_up(passage, hit_scores[hit], unit_ids[unit], uses),
                    )
                if not verdict:
                    eligible[num_eligible] = hit
                    eligible_ranks[num_eligible] = rank
                    num_eligible += 1
                rank += 1
            verdicts[hit] = verdict
        order = order_of_pool(hit_ids, hit_scores, eligible[:num_eligible], unit_ids[unit], draw)
        if len(known):
            order = known_first(order, eligible, known)
        for slot in range(num_eligible):
            hit = eligible[order[slot]]
            if slot < pool:
                ids[unit, slot] = hit_ids[hit]
                ranks[unit, slot] = eligible_ranks[order[slot]]
                scores[unit, slot] = hit_scores[hit]
            else:
                verdicts[hit] = _BEYOND_POOL
    return ids, ranks, scores, verdicts


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _mark(marks: Any, groups: Any, unit: Any) -> None:
    """Mark some groups as those of a unit."""
    for group in groups:
        marks[group] = unit


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _mark_known(known_by: Any, passage_groups: Any, hit_ids: Any, known: Any, unit: Any) -> None:
    """Mark the groups of the hits of a unit that are known to be negatives."""
    for place in range(len(hit_ids)):
        if known[place]:
            known_by[passage_groups[hit_ids[place]]] = unit


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _holds(flags: Any, hit: Any) -> Any:
    """Whether a rule that is on has marked a hit."""
    return len(flags) > 0 and flags[hit]


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _exclusion(group: Any, own_group: Any, is_forbidden: Any, is_seen: Any, excluded: Any) -> Any:
    """The verdict of what is no candidate at all; 0 for a candidate."""
    if group == own_group:
        return _OWN_TEXT
    if is_forbidden:
        return _KNOWN_POSITIVE
    return _DUPLICATE_GROUP if is_seen else excluded


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _is(marks: Any, group: Any, unit: Any) -> Any:
    """Whether a unit has marked a group last; false where nothing is marked."""
    return len(marks) > 0 and marks[group] == unit


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _drop(
    rank: Any,
    score: Any,
    positive: Any,
    limits: Any,
    opinion: Any,
    wrong_language: Any,
    too_close: Any,
    used_up: Any,
) -> Any:
    """The verdict of the first rule that drops a candidate; 0 if it passes all."""
    if opinion == _BETTER:
        return _JUDGED_POSITIVE
    if opinion == _CLOSE:
        return _JUDGED_CLOSE
    if wrong_language:
        return _LANGUAGE
    verdict = _threshold(rank, score, positive, limits, opinion == _WORSE)
    if verdict:
        return verdict
    if too_close and opinion != _WORSE:
        return _CLOSE_TO_POSITIVE
    return _MAX_USES if used_up else 0


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _threshold(rank: Any, score: Any, positive: Any, limits: Any, is_cleared: Any) -> Any:
    """The verdict of the windows and margins on a candidate; 0 if it passes all.

    The margins that guess at false negatives say nothing of one that a judge has cleared.
    """
    ranks_allowed, scores_allowed, absolute_margin, relative_margin, upper_margin = limits
    if rank < ranks_allowed[0] or rank >= ranks_allowed[1]:
        return _RANK_WINDOW
    if score < scores_allowed[0] or score > scores_allowed[1]:
        return _SCORE_WINDOW
    if not is_cleared and score > positive - absolute_margin:
        return _ABSOLUTE_MARGIN
    if not is_cleared and score > positive - abs(positive) * relative_margin:
        return _RELATIVE_MARGIN
    return _UPPER_MARGIN if score < positive - upper_margin else 0


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _used_up(passage: Any, score: Any, unit: Any, uses: Any) -> Any:
    last_scores, last_units = uses
    if not len(last_scores):
        return False
    last = last_scores[passage]
    return score < last or (score == last and unit > last_units[passage])


def select_negatives(
    unit_ids: NDArray[np.int64],
    unit_queries: NDArray[np.int64],
    positive_scores: NDArray[np.float32],
    hits: Ragged,
    hit_scores: NDArray[np.float32],
    *,
    query_groups: NDArray[np.int64],
    passage_groups: NDArray[np.int64],
    forbidden: Ragged,
    rules: Rules,
    excluded: NDArray[np.uint8] | None = None,
    marks: HitMarks = NO_MARKS,
    uses: UseLimits | None = None,
) -> Selection:
    """Give every hit of each unit a verdict, and fill its pool.

    Args:
        unit_ids: int64 (U,) query_id or number of the pair: the counter of its random draw.
        unit_queries: int64 (U,) query of each unit.
        positive_scores: float32 (U,) the positive score that margins count from.
        hits: (U,) passage ids of each unit's hits, best first.
        hit_scores: float32 (H,), aligned with `hits.values`.
        query_groups: int64 (num queries,).
        passage_groups: int64 (num passages,).
        forbidden: (num queries,) forbidden groups.
        rules: The thresholds. A comparison with them is made in float32.
        excluded: uint8 (num passages,) the verdict of each passage that is no candidate unless it
            is known to be a negative, 0 for the others; None or empty where all are candidates.
        marks: What is known of the hits.
        uses: The last use that each passage keeps.

    Returns:
        Pools and verdicts, in the order of the units.
    """
    num_groups = int(max(query_groups.max(initial=0), passage_groups.max(initial=0))) + 1
    limits = uses or UseLimits(np.empty(0, np.float32), np.empty(0, np.int64))
    found = _select(
        (unit_ids, unit_queries, positive_scores),
        (hits.offsets, hits.values, hit_scores, *marks.arrays()),
        (query_groups, passage_groups, np.empty(0, np.uint8) if excluded is None else excluded),
        (forbidden.offsets, forbidden.values),
        num_groups,
        rules.pool,
        _limits(rules),
        (limits.scores_P, limits.units_P),
        (_SAMPLINGS.index(rules.sampling), rules.seed, rules.sampling_temperature),
    )
    return Selection(*found)


def _limits(rules: Rules) -> tuple[Any, ...]:
    """The thresholds as `_threshold` takes them."""

    def bound(value: float | None, otherwise: float) -> np.float32:
        return np.float32(otherwise if value is None else value)

    far = np.iinfo(np.int64).max
    return (
        (rules.range_min, far if rules.range_max is None else rules.range_max),
        (bound(rules.min_score, -np.inf), bound(rules.max_score, np.inf)),
        bound(rules.absolute_margin, -np.inf),
        bound(rules.relative_margin, -np.inf),
        bound(rules.upper_margin, np.inf),
    )

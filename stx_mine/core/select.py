"""Choose negatives among hits; every hit gets a verdict.

The rules apply in the order of the codes, and the first that speaks decides. A *unit* is what
shares one pool: a query, or a pair where margins count from the pair's own positive.

Shape letters: U units, H hits of all units one after the other, S slots of a pool.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from stx_mine.core.random import mix
from stx_mine.ragged import Ragged


class Verdict(IntEnum):
    """Why a hit is a negative or is not."""

    POOLED = 0
    OWN_TEXT = 1
    KNOWN_POSITIVE = 2
    DUPLICATE_GROUP = 3
    RANK_WINDOW = 4
    SCORE_WINDOW = 5
    ABSOLUTE_MARGIN = 6
    RELATIVE_MARGIN = 7
    BEYOND_POOL = 8


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The thresholds of a selection.

    Attributes:
        pool: Negatives kept a unit.
        range_min: First rank allowed (0-based among candidates, inclusive).
        range_max: End of the ranks allowed (exclusive); None: no end.
        min_score: Lowest score allowed (inclusive); None: no bound.
        max_score: Highest score allowed (inclusive); None: no bound.
        absolute_margin: Keep if score <= positive - margin; None: off.
        relative_margin: Keep if score <= positive - |positive| * margin; None: off.
        random: Draw the pool at random instead of from the top.
        seed: Seed of the draw.
    """

    pool: int
    range_min: int = 0
    range_max: int | None = None
    min_score: float | None = None
    max_score: float | None = None
    absolute_margin: float | None = None
    relative_margin: float | None = None
    random: bool = False
    seed: int = 42


@dataclass(frozen=True)
class Selection:
    """Pools and verdicts of some units.

    Attributes:
        ids_US: int64 (U, S) passage ids, best first (or in random order); -1 pads.
        ranks_US: int32 (U, S) 0-based rank among the candidates; -1 pads.
        scores_US: float32 (U, S); minus infinity pads.
        verdicts_H: uint8 (H,), aligned with the hits.
    """

    ids_US: NDArray[np.int64]
    ranks_US: NDArray[np.int32]
    scores_US: NDArray[np.float32]
    verdicts_H: NDArray[np.uint8]


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _select(
    units: Any,
    hits: Any,
    groups: Any,
    forbidden: Any,
    num_groups: Any,
    pool: Any,
    limits: Any,
    draw: Any,
) -> Any:
    unit_queries, unit_counters, positive_scores = units
    hit_offsets, hit_ids, hit_scores = hits
    query_groups, passage_groups = groups
    num_units = len(unit_queries)
    ids = np.full((num_units, pool), -1, np.int64)
    ranks = np.full((num_units, pool), -1, np.int32)
    scores = np.full((num_units, pool), -np.inf, np.float32)
    verdicts = np.zeros(len(hit_ids), np.uint8)
    # Which unit last forbade, or saw, each group: no clearing between units.
    forbidden_by = np.full(num_groups, -1, np.int64)
    seen_by = np.full(num_groups, -1, np.int64)
    for unit in range(num_units):
        query = unit_queries[unit]
        first, last = hit_offsets[unit], hit_offsets[unit + 1]
        for f in range(forbidden[0][query], forbidden[0][query + 1]):
            forbidden_by[forbidden[1][f]] = unit
        rank = 0
        eligible = np.empty(last - first, np.int64)
        eligible_ranks = np.empty(last - first, np.int32)
        num_eligible = 0
        for hit in range(first, last):
            group = passage_groups[hit_ids[hit]]
            verdicts[hit] = _exclusion(
                group, query_groups[query], forbidden_by[group] == unit, seen_by[group] == unit
            )
            if verdicts[hit]:
                continue
            seen_by[group] = unit
            verdicts[hit] = _rule(rank, hit_scores[hit], positive_scores[unit], limits)
            if not verdicts[hit]:
                eligible[num_eligible] = hit
                eligible_ranks[num_eligible] = rank
                num_eligible += 1
            rank += 1
        order = _order(hit_ids, eligible[:num_eligible], unit_counters[unit], draw)
        for slot in range(num_eligible):
            hit = eligible[order[slot]]
            if slot < pool:
                ids[unit, slot] = hit_ids[hit]
                ranks[unit, slot] = eligible_ranks[order[slot]]
                scores[unit, slot] = hit_scores[hit]
            else:
                verdicts[hit] = 8
    return ids, ranks, scores, verdicts


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _exclusion(group: Any, own_group: Any, is_forbidden: Any, is_seen: Any) -> Any:
    """Verdict codes 1 to 3: what is no candidate at all; 0 for a candidate."""
    if group == own_group:
        return 1
    if is_forbidden:
        return 2
    return 3 if is_seen else 0


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _rule(rank: Any, score: Any, positive: Any, limits: Any) -> Any:
    """Verdict codes 4 to 7 of a candidate; 0 if it passes all."""
    ranks_allowed, scores_allowed, absolute_margin, relative_margin = limits
    if rank < ranks_allowed[0] or rank >= ranks_allowed[1]:
        return 4
    if score < scores_allowed[0] or score > scores_allowed[1]:
        return 5
    if score > positive - absolute_margin:
        return 6
    return 7 if score > positive - abs(positive) * relative_margin else 0


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _order(hit_ids: Any, eligible: Any, counter: Any, draw: Any) -> Any:
    """The order in which eligible hits enter the pool: as they are, or drawn at random."""
    random, seed = draw
    if not random:
        return np.arange(len(eligible))
    keys = np.empty(len(eligible), np.uint64)
    for place in range(len(eligible)):
        keys[place] = mix(seed, counter, hit_ids[eligible[place]])
    return np.argsort(keys)


def select_negatives(
    unit_queries: NDArray[np.int64],
    unit_counters: NDArray[np.int64],
    positive_scores: NDArray[np.float32],
    hits: Ragged,
    hit_scores: NDArray[np.float32],
    *,
    query_groups: NDArray[np.int64],
    passage_groups: NDArray[np.int64],
    forbidden: Ragged,
    rules: Rules,
) -> Selection:
    """Judge the hits of each unit and fill its pool.

    Args:
        unit_queries: int64 (U,) query of each unit.
        unit_counters: int64 (U,) what seeds the unit's random draw: query_id or pair number.
        positive_scores: float32 (U,) the positive score that margins count from.
        hits: (U,) passage ids of each unit's hits, best first.
        hit_scores: float32 (H,), aligned with `hits.values`.
        query_groups: int64 (num queries,).
        passage_groups: int64 (num passages,).
        forbidden: (num queries,) forbidden groups.
        rules: The thresholds. A comparison with them is made in float32.

    Returns:
        Pools and verdicts, in the order of the units.
    """
    far = np.iinfo(np.int64).max
    bounds = (rules.min_score, rules.max_score)
    infinite = (-np.inf, np.inf)
    num_groups = int(max(query_groups.max(initial=0), passage_groups.max(initial=0))) + 1
    off = -np.inf
    limits = (
        (rules.range_min, far if rules.range_max is None else rules.range_max),
        tuple(
            np.float32(other if bound is None else bound)
            for bound, other in zip(bounds, infinite, strict=True)
        ),
        np.float32(off if rules.absolute_margin is None else rules.absolute_margin),
        np.float32(off if rules.relative_margin is None else rules.relative_margin),
    )
    found = _select(
        (unit_queries, unit_counters, positive_scores),
        (hits.offsets, hits.values, hit_scores),
        (query_groups, passage_groups),
        (forbidden.offsets, forbidden.values),
        num_groups,
        rules.pool,
        limits,
        (rules.random, rules.seed),
    )
    return Selection(*found)

"""Which pairs of a query and a passage are judged: where the embedding model is unsure."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stx_mine.core.ragged import Ragged, offsets_of
from stx_mine.core.random import mix_rows
from stx_mine.core.verdicts import NO_CANDIDATES
from stx_mine.errors import ConfigError
from stx_mine.stages.judge.config import JudgeConfig
from stx_mine.stages.judge.core.budget import affordable, within_calls
from stx_mine.stages.judge.judge import Judge, PassageList
from stx_mine.stages.mine.judges import Beside
from stx_mine.stages.mine.selector import Selector, Units
from stx_mine.store.artifact import Manifest, require
from stx_mine.store.judgements import StoredJudgements
from stx_mine.store.negatives import pool_files, read_all_hits
from stx_mine.store.run_dir import RunDir

# Positives of a query that are judged, the first of its pairs.
_POSITIVES = 8
# Random passages that are judged, of as many queries.
_RANDOM = 256


@dataclass(frozen=True)
class DoubtfulPairs:
    """Pairs to judge.

    Attributes:
        query_ids: int64 (N,).
        passage_ids: int64 (N,).
        is_random: bool (N,) whether the passage was drawn, so that its score says what no score of
            a relevant passage is.
        num_queries: Queries with a candidate among them.
        num_candidates: Candidates.
        num_positives: Positives.
        num_beyond: Candidates that the budget leaves out.
    """

    query_ids: NDArray[np.int64]
    passage_ids: NDArray[np.int64]
    is_random: NDArray[np.bool_]
    num_queries: int
    num_candidates: int
    num_positives: int
    num_beyond: int


@dataclass(frozen=True)
class Ambiguity:
    """What an earlier judge leaves to be judged.

    Attributes:
        judgements: What it said.
        band: Share of its score of the positive by which that of a candidate may differ.
    """

    judgements: StoredJudgements
    band: float

    def of_hits(self, selector: Selector, units: Units) -> NDArray[np.bool_]:
        """Bool (H,): which hits of units it scores near their positive."""
        beside = Beside.of_hits(selector.store, units.hits.hits, units.query_ids, units.pairs)
        scores, positives = beside.scores(self.judgements)
        # Not where one of them was not judged.
        near: NDArray[np.bool_] = np.abs(scores - positives) <= np.float32(self.band) * positives
        return near


@dataclass(frozen=True)
class Budget:
    """What may be judged.

    Attributes:
        max_pairs: At most so many pairs of all kinds; None for all.
        max_calls: At most so many calls; None for all.
        listing: What a call lists; None where each pair goes by itself.
    """

    max_pairs: int | None = None
    max_calls: int | None = None
    listing: PassageList | None = None

    def kept(
        self, queries: NDArray[np.int64], num_positives: NDArray[np.int64], num_random: int
    ) -> NDArray[np.bool_]:
        """Which candidates it pays for.

        Args:
            queries: int64 (N,) the query of each candidate, most important ones first.
            num_positives: int64 (num queries,) positives that are judged with those of each query.
            num_random: Random passages that are judged.

        Returns:
            bool (N,).
        """
        kept = np.ones(len(queries), bool)
        if self.max_pairs is not None:
            kept[affordable(queries, num_positives, self.max_pairs - num_random) :] = False
        if self.listing is not None and self.max_calls is not None:
            # One more, which is drawn.
            beside = num_positives * self.listing.with_positives + 1
            kept[kept] = within_calls(queries[kept], beside, self.listing.most, self.max_calls)
        return kept


def wanted_pairs(
    config: JudgeConfig, run: RunDir, negatives: Manifest, selector: Selector, judge: Judge
) -> DoubtfulPairs:
    """The pairs in doubt.

    Args:
        config: The config.
        run: The run.
        negatives: Its finished `negatives/`.
        selector: What selected them.
        judge: Who judges.

    Raises:
        ConfigError: There are none.
    """
    ambiguity, also = None, ""
    if config.after is not None:
        earlier = StoredJudgements.open(require(run, "judgements", config.after), selector.store)
        ambiguity = Ambiguity(earlier, config.after_band)
        also = f" and that {config.after} scores within --after-band {config.after_band:g} of it"
    budget = Budget(config.max_pairs, config.max_calls, judge.listing)
    found = doubtful_pairs(negatives, selector, config.band, budget, config.seed, ambiguity)
    if not found.num_candidates:
        raise ConfigError(
            f"expected candidates that score within --band {config.band:g} of their positive"
            f"{also}, found none{' within the budget' if found.num_beyond else ''}; give a larger "
            "one, or mine deeper"
        )
    return found


def doubtful_pairs(
    negatives: Manifest,
    selector: Selector,
    band: float,
    budget: Budget,
    seed: int,
    ambiguity: Ambiguity | None = None,
) -> DoubtfulPairs:
    """The candidates in the band, the positives that they are compared with, and random passages.

    Args:
        negatives: Of a finished `negatives/`, with the verdict of every hit.
        selector: What selected them, or would have without judges: whatever these have decided
            about pairs makes no difference here.
        band: Share of the positive's score by which a candidate's may differ from it.
        budget: What may be judged.
        seed: Of the random passages.
        ambiguity: What an earlier judge leaves to this one; None for all.
    """
    store = selector.store
    queries, passages, places = _candidates(negatives, selector, band, ambiguity)
    pairs, _ = store.pairs_of_query.take(np.arange(store.num_queries), _POSITIVES)
    positives = Ragged(pairs.offsets, store.pair_passage_ids[pairs.values])
    chance = mix_rows(seed, queries, passages)
    order = np.lexsort([chance, places])
    queries, passages = queries[order], passages[order]
    num_random = _RANDOM if budget.max_pairs is None else min(_RANDOM, budget.max_pairs // 8)
    kept = budget.kept(queries, positives.lengths(), num_random)
    kept_queries, kept_passages = queries[kept], passages[kept]
    asked = np.unique(kept_queries)
    of_queries, _ = positives.take(asked)
    # Of any query, so that another band needs no others; of those asked about where calls count.
    anyone = np.unique(store.pair_query_ids) if budget.listing is None else asked
    drawn = anyone[np.argsort(mix_rows(seed, anyone, anyone), kind="stable")[:num_random]]
    random = (mix_rows(seed + 1, drawn, drawn) % np.uint64(store.num_passages)).astype(np.int64)
    found = [
        (kept_queries, kept_passages),
        (np.repeat(asked, of_queries.lengths()), of_queries.values),
        (drawn, random),
    ]
    query_ids, passage_ids = (np.concatenate(one) for one in zip(*found, strict=True))
    # Of a pair that stands twice the first one counts: no candidate or positive is random.
    _, first = np.unique(query_ids * store.num_passages + passage_ids, return_index=True)
    first = np.sort(first)
    is_random = np.repeat([False, False, True], [len(one) for one, _ in found])
    return DoubtfulPairs(
        query_ids[first],
        passage_ids[first],
        is_random[first],
        len(asked),
        len(kept_queries),
        len(of_queries.values),
        len(queries) - len(kept_queries),
    )


def _candidates(
    negatives: Manifest, selector: Selector, band: float, ambiguity: Ambiguity | None
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Query, passage and place within the band of each candidate in doubt, distinct.

    What the input says is a negative is no matter of doubt.
    """
    empty = np.empty(0, np.int64)
    parts = [(empty, empty, empty)]
    wasted = selector.groups.num_forbidden_passages(selector.forbidden)
    depth = selector.config.depth
    wanted = np.minimum(depth + wasted, len(selector.passages))
    for name in pool_files(negatives):
        units = selector.units(read_all_hits(negatives, name, wanted, depth))
        chosen, hits = selector.select(units), units.hits
        owners = np.repeat(np.arange(len(units.ids)), hits.hits.lengths())
        positives = units.positive_scores[owners]
        doubtful = np.abs(hits.scores - positives) <= np.float32(band) * np.abs(positives)
        doubtful &= ~np.isin(chosen.verdicts_H, NO_CANDIDATES)
        if ambiguity is not None:
            doubtful &= ambiguity.of_hits(selector, units)
        known = selector.kept_anyway(hits)
        if known is not None:
            doubtful &= ~known
        owners = owners[doubtful]
        counts = np.bincount(owners, minlength=len(units.ids))
        places = np.arange(len(owners)) - np.repeat(offsets_of(counts)[:-1], counts)
        found = hits.hits.values[doubtful].astype(np.int64)
        parts.append((units.query_ids[owners], found, places))
    queries, passages, places = (np.concatenate(one) for one in zip(*parts, strict=True))
    # Where every pair has hits of its own, a candidate has the best of its places.
    order = np.lexsort([places, passages, queries])
    queries, passages, places = queries[order], passages[order], places[order]
    first = np.ones(len(queries), bool)
    first[1:] = (queries[1:] != queries[:-1]) | (passages[1:] != passages[:-1])
    return queries[first], passages[first], places[first]

"""Views of what was mined: queries with their candidates, passages with their uses, suspects."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from stx_mine.core.ragged import Ragged
from stx_mine.core.verdicts import Verdict, candidate_ranks
from stx_mine.stages.mine.selector import Selector
from stx_mine.stages.show.views import (
    CandidateView,
    PassageView,
    PositiveView,
    QueryView,
    SuspectView,
    TextView,
    UseView,
)
from stx_mine.store.artifact import require
from stx_mine.store.hits import HitSource
from stx_mine.store.judgements import StoredJudgements
from stx_mine.store.manifest import finished_names
from stx_mine.store.mined_run import MinedRun
from stx_mine.store.negatives import pool_files
from stx_mine.store.pools import PoolBlock
from stx_mine.store.run_dir import RunDir
from stx_mine.store.texts import TextStore

_BLOCK = 4_096


def words_of_verdict(verdict: int) -> str:
    """A verdict as words."""
    return Verdict(verdict).name.lower().replace("_", " ")


@dataclass(frozen=True)
class MinedViews:
    """Makes views of a run.

    Attributes:
        run: The run.
        mined: What was mined in it.
    """

    run: RunDir
    mined: MinedRun

    @cached_property
    def _store(self) -> TextStore:
        return self.mined.store

    @cached_property
    def judges(self) -> dict[str, StoredJudgements]:
        """Judgements of the run by their names."""
        return {
            name: StoredJudgements.open(require(self.run, "judgements", name), self._store)
            for name in finished_names(self.run, "judgements")
        }

    @cached_property
    def _selector(self) -> Selector:
        store = TextStore.open(self.mined.texts)
        return Selector.of_negatives(self.run, self.mined.negatives, store)

    def text(self, role: str, number: int) -> TextView:
        """A text of the queries or passages."""
        table = getattr(self._store, role)
        row = table.slice(number, 1).to_pylist()[0]
        groups = getattr(self.mined.groups, role)
        return TextView(number, row["original_id"], row["text"], int(groups[number]))

    def queries(self, ids: Sequence[int], limit: int) -> tuple[QueryView, ...]:
        """Queries with their positives, their first hits, and the first k of their pools."""
        return tuple(self._query(int(number), limit) for number in ids)

    def _query(self, number: int, limit: int) -> QueryView:
        store = self._store
        pairs, _ = store.pairs_of_query.take(np.array([number]))
        units = self.mined.units_of(pairs.values[:1])
        known = np.isin(units, self.mined.units.unit_ids)
        text = asdict(self.text("queries", number))
        positives = tuple(self._positive(int(pair)) for pair in pairs.values)
        if not known.any():
            return QueryView(**text, positives=positives)
        found = self.mined.units.take(units[known])
        pool = found.pools.values.tolist()
        ranks = candidate_ranks(found.verdicts)
        bound = np.isin(found.hits.values, pool[: self.mined.k])
        shown = np.flatnonzero((np.arange(len(ranks)) < limit) | bound)
        candidates = tuple(
            CandidateView(
                **asdict(self.text("passages", int(found.hits.values[at]))),
                rank=None if ranks[at] < 0 else int(ranks[at]),
                slot=pool.index(found.hits.values[at]) if found.hits.values[at] in pool else None,
                score=float(found.hit_scores[at]),
                sources=tuple(one.folder for one in HitSource if one & int(found.hit_sources[at])),
                verdict=words_of_verdict(found.verdicts[at]),
                judged=self._judged(number, int(found.hits.values[at])),
            )
            for at in shown.tolist()
        )
        counts = np.bincount(found.verdicts, minlength=len(Verdict))
        return QueryView(
            **text,
            positives=positives,
            limit_score=float(found.positive_scores[0]),
            candidates=candidates,
            num_hits=len(ranks),
            verdicts={words_of_verdict(one): int(n) for one, n in enumerate(counts) if n},
        )

    def _judged(self, query: int, passage: int) -> dict[str, float]:
        found = {
            name: float(one.find(np.array([query]), np.array([passage]))[0])
            for name, one in self.judges.items()
        }
        return {name: score for name, score in found.items() if not np.isnan(score)}

    def _positive(self, pair: int) -> PositiveView:
        store = self._store
        query, passage = int(store.pair_query_ids[pair]), int(store.pair_passage_ids[pair])
        one = Ragged(np.array([0, 1]), np.array([pair]))
        is_input = pair < self._selector.store.num_pairs
        score = None
        if is_input:
            score = float(self._selector.score_positives(np.array([query]), one)[0][0])
        return PositiveView(
            **asdict(self.text("passages", passage)),
            score=score,
            judged=self._judged(query, passage),
            is_row=bool(self.mined.is_row[pair]),
            source="input" if is_input else "judges",
        )

    def passages(self, ids: Sequence[int], limit: int) -> tuple[PassageView, ...]:
        """Passages with up to `limit` queries of both kinds; the pools are read once for all."""
        uses: dict[int, list[UseView]] = {number: [] for number in ids}
        num_uses = dict.fromkeys(ids, 0)
        for name in pool_files(self.mined.negatives):
            block = PoolBlock.read(self.mined.negatives, name)
            for number in ids:
                places = np.flatnonzero(block.pools.values == number)
                num_uses[number] += len(places)
                shown = places[: max(0, limit - len(uses[number]))]
                uses[number] += map(partial(self._use, block), shown.tolist())
        return tuple(self._passage(number, limit, uses[number], num_uses[number]) for number in ids)

    def _use(self, block: PoolBlock, place: int) -> UseView:
        row = int(np.searchsorted(block.pools.offsets, place, side="right")) - 1
        query = self.text("queries", int(block.query_ids[row]))
        slot = place - int(block.pools.offsets[row])
        return UseView(**asdict(query), slot=slot, score=float(block.scores[place]))

    def _passage(
        self, number: int, limit: int, uses: Sequence[UseView], num_uses: int
    ) -> PassageView:
        store = self._store
        pairs = np.flatnonzero(store.pair_passage_ids == number)
        return PassageView(
            **asdict(self.text("passages", number)),
            positive_of=tuple(
                self.text("queries", int(store.pair_query_ids[pair])) for pair in pairs[:limit]
            ),
            negative_of=tuple(sorted(uses, key=lambda one: (one.slot, -one.score))),
            num_uses=num_uses,
        )

    @cached_property
    def pool_uses(self) -> NDArray[np.int64]:
        """int64 (passages,): how many pools have each."""
        uses = np.zeros(self._store.num_passages, np.int64)
        for name in pool_files(self.mined.negatives):
            pools = PoolBlock.read(self.mined.negatives, name).pools
            uses += np.bincount(pools.values, minlength=len(uses))
        return uses

    def most_used(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Passages that are in pools, most used first, and how many pools have each."""
        uses = self.pool_uses
        order = np.argsort(-uses, kind="stable")[: int((uses > 0).sum())]
        return order, uses[order]

    def without_negatives(self) -> NDArray[np.int64]:
        """Ids of the queries that have no negative."""
        filled = np.zeros(self._store.num_queries, bool)
        for name in pool_files(self.mined.negatives):
            block = PoolBlock.read(self.mined.negatives, name)
            filled[block.query_ids[block.pools.lengths() > 0]] = True
        return np.setdiff1d(self._store.pair_query_ids, np.flatnonzero(filled))

    def suspects(
        self, limit: int, query_ids: NDArray[np.int64] | None = None
    ) -> tuple[SuspectView, ...]:
        """Pairs of the input whose positive scores lowest among random passages, lowest first.

        Args:
            limit: How many.
            query_ids: int64 (Q,) rising ids of the queries that are looked at; None for all.
        """
        store, selector = self._selector.store, self._selector
        with_pairs = np.unique(store.pair_query_ids)
        if query_ids is not None:
            with_pairs = np.intersect1d(with_pairs, query_ids, assume_unique=True)
        kept: list[tuple[float, float, int]] = []
        for first in range(0, len(with_pairs), _BLOCK):
            ids = with_pairs[first : first + _BLOCK]
            pairs, _ = store.pairs_of_query.take(ids)
            scores, percentiles = selector.score_positives(ids, pairs)
            kept += zip(percentiles.tolist(), scores.tolist(), pairs.values.tolist(), strict=True)
            kept = sorted(kept)[:limit]
        return tuple(
            SuspectView(
                self.text("queries", int(store.pair_query_ids[pair])),
                self._positive(pair),
                percentile,
            )
            for percentile, _, pair in kept
        )

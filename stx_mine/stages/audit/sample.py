"""A sample of the negatives that rows get, by strata of their rank."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from stx_mine.core.ragged import Ragged, offsets_of
from stx_mine.core.random import mix_rows
from stx_mine.stages.audit.core.strata import FIRST_OF_STRATUM, sample_sizes, stratum_of
from stx_mine.stages.mine.core.opinions import Opinion
from stx_mine.stages.mine.judges import Beside
from stx_mine.stages.mine.selector import Selector
from stx_mine.store.artifact import Manifest
from stx_mine.store.judgements import StoredJudgements
from stx_mine.store.negatives import pool_files, rows_of
from stx_mine.store.pools import PoolBlock


@dataclass(frozen=True)
class _Columns:
    """Negatives of rows, a value each in every column.

    Attributes:
        query_ids: int64 (N,).
        positive_ids: int64 (N,) the first positive of the pool's rows.
        passage_ids: int64 (N,) the negatives.
        ranks: int64 (N,) 0-based, among the candidates.
        scores: float32 (N,).
        strata: int64 (N,).
        opinions: uint8 (N,) `Opinion` of a judge; of NONE where none is asked.
    """

    query_ids: NDArray[np.int64]
    positive_ids: NDArray[np.int64]
    passage_ids: NDArray[np.int64]
    ranks: NDArray[np.int64]
    scores: NDArray[np.float32]
    strata: NDArray[np.int64]
    opinions: NDArray[np.uint8]

    @classmethod
    def none(cls) -> "_Columns":
        ids = np.empty(0, np.int64)
        return cls(ids, ids, ids, ids, np.empty(0, np.float32), ids, np.empty(0, np.uint8))

    def take(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> "_Columns":
        return _Columns(*(getattr(self, one.name)[rows] for one in fields(_Columns)))

    def joined(self, other: "_Columns") -> "_Columns":
        names = [one.name for one in fields(_Columns)]
        return _Columns(*(np.append(getattr(self, one), getattr(other, one)) for one in names))

    def best(self, number: int, seed: int) -> "_Columns":
        """The first of each stratum in an order by chance, stratum by stratum."""
        chance = mix_rows(seed, self.query_ids, self.passage_ids)
        whole = self.take(np.lexsort([self.positive_ids, chance, self.strata]))
        return whole.take(whole.places() < number)

    def places(self) -> NDArray[np.int64]:
        """int64: the place of each within its stratum, where these stand together."""
        counts = np.bincount(self.strata, minlength=len(FIRST_OF_STRATUM))
        return np.arange(len(self.strata)) - np.repeat(offsets_of(counts)[:-1], counts)


@dataclass(frozen=True)
class SampledNegatives(_Columns):
    """Negatives of rows, in no order, and what they are a sample of.

    Attributes:
        sizes: int64 (H,) negatives of each stratum that the sample is drawn of.
        num_unjudged: Negatives that the judge has no opinion of, and that are not drawn of.
    """

    sizes: NDArray[np.int64]
    num_unjudged: int

    def __len__(self) -> int:
        return len(self.query_ids)

    def counts(self, mask: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
        """int64 (H,): those of each stratum; of some of them, where these are marked."""
        strata = self.strata if mask is None else self.strata[mask]
        return np.bincount(strata, minlength=len(self.sizes)).astype(np.int64)


@dataclass(frozen=True)
class NegativeSampler:
    """Draws of the first k negatives of every pool that a row is made of.

    Attributes:
        negatives: Of finished negatives.
        selector: With the texts, pairs and settings that these are of.
        judgements: Of a judge whose opinion is needed of whatever is drawn; None for none.
    """

    negatives: Manifest
    selector: Selector
    judgements: StoredJudgements | None = None

    def draw(self, wanted: int, seed: int) -> SampledNegatives:
        """A sample; which negatives it has depends on the seed, the queries and the passages.

        Args:
            wanted: Its size; all, where there are no more.
            seed: Of the draw.
        """
        num_strata = len(FIRST_OF_STRATUM)
        sizes, unjudged = np.zeros(num_strata, np.int64), 0
        kept = _Columns.none()
        for name in pool_files(self.negatives):
            found = self._read(name)
            is_known = np.ones(len(found.strata), np.bool_)
            if self.judgements is not None:
                is_known = found.opinions != Opinion.NONE
            unjudged += int((~is_known).sum())
            sizes += np.bincount(found.strata[is_known], minlength=num_strata)
            # More than `wanted` of one stratum are never drawn.
            kept = kept.joined(found.take(is_known)).best(wanted, seed)
        numbers = sample_sizes(sizes, wanted)
        drawn = kept.take(kept.places() < numbers[kept.strata])
        return SampledNegatives(
            **{one.name: getattr(drawn, one.name) for one in fields(drawn)},
            sizes=sizes,
            num_unjudged=unjudged,
        )

    @cached_property
    def _pairs(self) -> Callable[[PoolBlock], Ragged]:
        """What gives the numbers of the pairs of the input that each unit has as rows."""
        store, made = self.selector.store, int(self.negatives.counts.get("pairs_made", 0))
        rows = rows_of(self.negatives, store.num_pairs + made)
        is_row = np.zeros(store.num_pairs + 1, np.bool_)
        is_row[rows[rows < store.num_pairs]] = True
        if self.negatives.extra["per_pair"]:
            return lambda block: _one_each(block.unit_ids, is_row)
        order = store.pairs_of_query
        kept = is_row[order.values]
        ends = offsets_of(kept)
        of_query = Ragged(ends[order.offsets], order.values[kept])
        return lambda block: of_query.take(block.query_ids)[0]

    def _read(self, name: str) -> "_Columns":
        block = PoolBlock.read(self.negatives, name)
        store = self.selector.store
        self.negatives.refuse_beyond(name, block.query_ids, store.num_queries)
        self.negatives.refuse_beyond(name, block.pools.values, store.num_passages)
        pairs = self._pairs(block)
        used = np.flatnonzero(pairs.lengths())
        pairs, _ = pairs.take(used)
        k = int(self.negatives.extra["k"])
        first, places = block.pools.take(used, k)
        owners = np.repeat(np.arange(len(used)), first.lengths())
        query_ids, passage_ids = block.query_ids[used], first.values.astype(np.int64)
        opinions = np.full(len(owners), Opinion.NONE, np.uint8)
        if self.judgements is not None:
            beside = Beside(store, query_ids, pairs, owners, passage_ids)
            opinions = beside.opinions(self.judgements, self.selector.config.judged_margin)
        positives = store.pair_passage_ids[pairs.values[pairs.offsets[:-1]]]
        ranks = block.ranks[places]
        return _Columns(
            query_ids[owners],
            positives[owners],
            passage_ids,
            ranks.astype(np.int64),
            block.scores[places],
            stratum_of(ranks),
            opinions,
        )


def _one_each(unit_ids: NDArray[np.int64], is_row: NDArray[np.bool_]) -> Ragged:
    kept = is_row[unit_ids]
    return Ragged(offsets_of(kept), unit_ids[kept])

"""How deep each query is searched: those that lack negatives go deeper, as far as is allowed."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stx_mine.engine.local import run_tasks
from stx_mine.search.product import own_threads
from stx_mine.stages.mine.core.select import Selection
from stx_mine.stages.mine.dense import DenseHits
from stx_mine.stages.mine.judge import Judge, Units
from stx_mine.store.artifact import Manifest
from stx_mine.store.hits import HitBlock, HitSource, merge_sources, read_hits

# How much deeper a query is searched where it lacks negatives.
DEEPER = 4


@dataclass(frozen=True)
class AllHits:
    """The hits of every source, block by block.

    Attributes:
        dense: The dense ones.
        others: Manifests of the others.
        depths: int64 (num queries,): the depth at which each query is read.
    """

    dense: DenseHits
    others: dict[HitSource, Manifest]
    depths: NDArray[np.int64]

    def wanted(self, query_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64: the dense hits that are asked for, of some queries."""
        return self.dense.wanted(query_ids, self.depths[query_ids])

    def block(self, number: int) -> HitBlock:
        """All hits of the queries of one block."""
        query_ids = self.dense.block_queries(number)
        dense = self.dense.read_at(number, query_ids, self.depths[query_ids])
        others = [read_hits(one, number, source) for source, one in self.others.items()]
        return merge_sources([dense, *others])


def search_depths(judge: Judge, dense: DenseHits) -> NDArray[np.int64]:
    """Search every query, and those that lack negatives deeper and deeper.

    Returns:
        int64 (num queries,): the depth that each query is read at.

    Raises:
        TaskShardsLeftError: This call did its part, and others are at work.
    """
    config = judge.config
    depth, queries = config.depth, np.arange(len(dense.queries))
    depths = np.full(len(queries), depth, np.int64)
    # Candidates beyond the window would be dropped anyway.
    deepest = min(config.max_depth or depth, config.range_max or len(dense.passages))
    dense.ensure(queries, depth)
    while depth < deepest:
        queries = _lacking(judge, dense, queries, depth)
        if not len(queries):
            break
        depth = min(depth * DEEPER, deepest)
        depths[queries] = depth
        dense.ensure(queries, depth)
    return depths


def would_gain(
    judge: Judge, units: Units, chosen: Selection, wanted: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Mark units that lack negatives and to which a deeper search can give some.

    It cannot where the whole corpus was searched, where an index has no more to give, and where
    whatever comes next scores too low already.

    Args:
        judge: What decided.
        units: Its units.
        chosen: What it chose.
        wanted: int64 (U,) dense hits that were asked for.

    Returns:
        bool (U,).
    """
    config = judge.config
    owners = np.repeat(np.arange(len(units.ids)), units.hits.hits.lengths())
    dense = (units.hits.sources & HitSource.DENSE) > 0
    found = np.bincount(owners[dense], minlength=len(units.ids))
    lowest = np.full(len(units.ids), np.inf, np.float32)
    np.minimum.at(lowest, owners[dense], units.hits.scores[dense])
    gains = (chosen.sizes() < config.k) & (found >= wanted) & (wanted < len(judge.passages))
    if config.min_score is not None:
        gains &= lowest >= np.float32(config.min_score)
    if config.upper_margin is not None:
        gains &= lowest >= units.positive_scores - np.float32(config.upper_margin)
    return gains


def _lacking(
    judge: Judge, dense: DenseHits, query_ids: NDArray[np.int64], depth: int
) -> NDArray[np.int64]:
    """The queries with fewer than k negatives at a depth that may find more below it."""

    def lacking(block: int) -> NDArray[np.int64]:
        own = np.intersect1d(dense.block_queries(block), query_ids, assume_unique=True)
        units = judge.units(dense.read(block, own, depth))
        wanted = dense.wanted(units.query_ids, depth)
        return np.unique(units.query_ids[would_gain(judge, units, judge.select(units), wanted)])

    with own_threads() as threads:
        return np.concatenate(run_tasks(range(dense.num_blocks), lacking, "judge", threads))

"""How deep each query is searched: those that lack negatives go deeper, as far as is allowed."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stx_mine.engine.local import run_tasks
from stx_mine.search.product import own_threads
from stx_mine.stages.mine.dense import DenseHits
from stx_mine.stages.mine.judge import Judge
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


def _lacking(
    judge: Judge, dense: DenseHits, query_ids: NDArray[np.int64], depth: int
) -> NDArray[np.int64]:
    """The queries with fewer than k negatives at a depth, of those that can go deeper."""

    def lacking(block: int) -> NDArray[np.int64]:
        own = np.intersect1d(dense.block_queries(block), query_ids, assume_unique=True)
        hits = dense.read(block, own, depth)
        units = judge.units(hits)
        short = units.query_ids[judge.select(units).sizes() < judge.config.k]
        whole = own[hits.hits.lengths() >= dense.wanted(own, depth)]
        deeper = own[dense.wanted(own, depth) < len(dense.passages)]
        return np.intersect1d(short, np.intersect1d(whole, deeper))

    with own_threads() as threads:
        return np.concatenate(run_tasks(range(dense.num_blocks), lacking, "judge", threads))

"""How deep each query is searched: those that lack negatives go deeper, as far as is allowed."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stx_mine.engine.local import run_tasks
from stx_mine.search.threads import own_threads
from stx_mine.stages.mine.core.select import Selection
from stx_mine.stages.mine.dense import DenseHits
from stx_mine.stages.mine.selector import Selector, Units
from stx_mine.store.artifact import Manifest
from stx_mine.store.hits import HitBlock, HitSource, merge_sources, read_hits

# How much deeper a query is searched where it lacks negatives.
DEEPER = 4


@dataclass(frozen=True)
class AllHits:
    """The hits of every source, block by block; without a source there are none.

    Attributes:
        dense: The dense ones; None where nothing is searched.
        others: Manifests of the others.
        depths: int64 (num queries,): the depth at which the dense hits of each query are read.
        query_block: Queries of a block.
    """

    dense: DenseHits | None
    others: dict[HitSource, Manifest]
    depths: NDArray[np.int64]
    query_block: int

    @property
    def num_blocks(self) -> int:
        """Blocks of queries."""
        return -(-len(self.depths) // self.query_block)

    @property
    def digests(self) -> dict[str, str]:
        """Name of the artifact -> its digest, of each source."""
        dense = {"hits/dense": self.dense.artifact.result.digest} if self.dense else {}
        return dense | {f"hits/{other.folder.name}": other.digest for other in self.others.values()}

    def block_queries(self, number: int) -> NDArray[np.int64]:
        """Ids of the queries of a block."""
        first = number * self.query_block
        return np.arange(first, min(first + self.query_block, len(self.depths)))

    def wanted(self, query_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64: the dense hits that are asked for, of some queries."""
        if self.dense is None:
            return np.zeros(len(query_ids), np.int64)
        return self.dense.wanted(query_ids, self.depths[query_ids])

    def block(self, number: int, query_ids: NDArray[np.int64] | None = None) -> HitBlock:
        """All hits of queries of one block, rising; of all of its queries unless some are named."""
        own = self.block_queries(number) if query_ids is None else query_ids
        dense = [self.dense.read_at(number, own, self.depths[own])] if self.dense else []
        others = [read_hits(one, number, source).of(own) for source, one in self.others.items()]
        return merge_sources([*dense, *others] or [HitBlock.without_hits(own)])


def search_depths(
    selector: Selector, hits: AllHits, query_ids: NDArray[np.int64] | None = None
) -> AllHits:
    """Search every query, and those that lack negatives deeper and deeper.

    Args:
        selector: Decides which queries lack negatives.
        hits: The sources; their depths are those to begin with.
        query_ids: int64, rising: the queries to search; None for all.

    Returns:
        The same sources, with the depth that each query is read at.

    Raises:
        TaskShardsLeftError: This call did its part, and others are at work.
    """
    config, dense = selector.config, hits.dense
    if dense is None:
        return hits
    depth = config.depth
    queries = np.arange(len(hits.depths)) if query_ids is None else query_ids
    # Candidates beyond the window would be dropped anyway.
    deepest = min(config.max_depth or depth, config.range_max or len(selector.passages))
    dense.ensure(queries, depth)
    while depth < deepest:
        queries = _lacking(selector, hits, queries)
        if not len(queries):
            break
        depth = min(depth * DEEPER, deepest)
        depths = hits.depths.copy()
        depths[queries] = depth
        hits = replace(hits, depths=depths)
        dense.ensure(queries, depth)
    return hits


def would_gain(
    selector: Selector, units: Units, chosen: Selection, wanted: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Mark units that lack negatives and to which a deeper search can give some.

    It cannot where the whole corpus was searched, where an index has no more to give, and where
    whatever comes next scores too low already.

    Args:
        selector: What decided.
        units: Its units.
        chosen: What it chose.
        wanted: int64 (U,) dense hits that were asked for.

    Returns:
        bool (U,).
    """
    config = selector.config
    owners = np.repeat(np.arange(len(units.ids)), units.hits.hits.lengths())
    dense = (units.hits.sources & HitSource.DENSE) > 0
    found = np.bincount(owners[dense], minlength=len(units.ids))
    lowest = np.full(len(units.ids), np.inf, np.float32)
    np.minimum.at(lowest, owners[dense], units.hits.scores[dense])
    gains = (chosen.sizes() < config.k) & (found >= wanted) & (wanted < len(selector.passages))
    if config.min_score is not None:
        gains &= lowest >= np.float32(config.min_score)
    if config.upper_margin is not None:
        gains &= lowest >= units.positive_scores - np.float32(config.upper_margin)
    return gains


def _lacking(selector: Selector, hits: AllHits, query_ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """The queries with fewer than k negatives at their depth that may find more below it."""

    def lacking(block: int) -> NDArray[np.int64]:
        own = np.intersect1d(hits.block_queries(block), query_ids, assume_unique=True)
        units = selector.units(hits.block(block, own))
        wanted = hits.wanted(units.query_ids)
        return np.unique(
            units.query_ids[would_gain(selector, units, selector.select(units), wanted)]
        )

    with own_threads() as threads:
        return np.concatenate(run_tasks(range(hits.num_blocks), lacking, "selecting", threads))

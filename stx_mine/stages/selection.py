"""What the selection of a block needs beside the rules: units, the table, the tally."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stx_mine.artifacts.hits import HitBlock
from stx_mine.artifacts.texts import TextStore
from stx_mine.artifacts.vectors import Vectors
from stx_mine.core.select import Selection, Verdict
from stx_mine.ragged import Ragged
from stx_mine.search.score import score_hits


@dataclass(frozen=True)
class Units:
    """What shares a pool: queries with their lowest positive score, or single pairs.

    Attributes:
        ids: int64 (U,) query_id, or number of the pair; rising.
        query_ids: int64 (U,).
        positive_scores: float32 (U,) the positive score that margins count from.
        hits: (U,) passage ids of each unit's hits, best first.
        hit_scores: float32, aligned with `hits.values`.
        num_pairs: int64 (U,) pairs that share the pool.
    """

    ids: NDArray[np.int64]
    query_ids: NDArray[np.int64]
    positive_scores: NDArray[np.float32]
    hits: Ragged
    hit_scores: NDArray[np.float32]
    num_pairs: NDArray[np.int64]


def units_of(
    block: HitBlock,
    pairs: NDArray[np.int64],
    store: TextStore,
    queries: Vectors,
    passages: Vectors,
    per_pair: bool,
) -> Units:
    """The units of a block of queries.

    Args:
        block: The hits.
        pairs: int64 numbers of the pairs whose query lies in the block.
        store: Pairs.
        queries: Vectors of the queries.
        passages: Vectors of the passages.
        per_pair: Whether every pair is a unit of its own.
    """
    pairs = np.sort(pairs)
    pair_queries = store.pair_query_ids[pairs]
    positives = score_hits(
        queries.take(pair_queries),
        passages.take(store.pair_passage_ids[pairs]),
        np.arange(len(pairs))[:, None],
        queries.similarity,
    )[:, 0]
    if per_pair:
        ids, query_ids, lowest = pairs, pair_queries, positives
        num_pairs = np.ones(len(pairs), np.int64)
    else:
        ids, inverse, num_pairs = np.unique(pair_queries, return_inverse=True, return_counts=True)
        query_ids = ids
        lowest = np.full(len(ids), np.inf, np.float32)
        np.minimum.at(lowest, inverse, positives)
    hits, scores = _hits_of(block, query_ids - block.first_query)
    return Units(ids, query_ids, lowest, hits, scores, num_pairs)


def _hits_of(block: HitBlock, rows: NDArray[np.int64]) -> tuple[Ragged, NDArray[np.float32]]:
    lengths = block.hits.lengths()[rows]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    flat = np.repeat(block.hits.offsets[rows] - offsets[:-1], lengths) + np.arange(offsets[-1])
    return Ragged(offsets, block.hits.values[flat]), block.scores[flat]


def negatives_table(units: Units, chosen: Selection) -> pa.Table:
    """A file of `negatives/`: a row a unit, with its pool and the verdict of every hit."""
    filled = chosen.ids_US >= 0
    offsets = pa.array(np.concatenate([[0], np.cumsum(filled.sum(1))]), pa.int64())

    def lists(values: NDArray[Any], kind: pa.DataType) -> pa.Array:
        return pa.LargeListArray.from_arrays(offsets, pa.array(values[filled], kind))

    return pa.table(
        {
            "unit_id": units.ids,
            "query_id": units.query_ids,
            "positive_score": units.positive_scores,
            "passage_ids": lists(chosen.ids_US, pa.int32()),
            "ranks": lists(chosen.ranks_US, pa.int32()),
            "scores": lists(chosen.scores_US, pa.float32()),
            "verdicts": pa.LargeListArray.from_arrays(
                pa.array(units.hits.offsets), pa.array(chosen.verdicts_H, pa.uint8())
            ),
        }
    )


@dataclass
class Tally:
    """Counts over all blocks.

    Attributes:
        slots: Slots of a pool.
    """

    slots: int
    _verdicts: NDArray[np.int64] = field(init=False)
    _rows: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self._verdicts = np.zeros(len(Verdict), np.int64)
        self._rows = np.zeros(self.slots + 1, np.int64)

    def add(self, units: Units, chosen: Selection) -> None:
        """Count the verdicts of a block, and how many negatives its pairs have."""
        self._verdicts += np.bincount(chosen.verdicts_H, minlength=len(Verdict))
        filled = (chosen.ids_US >= 0).sum(1)
        rows = np.bincount(filled, weights=units.num_pairs, minlength=self.slots + 1)
        self._rows += rows.astype(np.int64)

    def counts(self, k: int) -> dict[str, Any]:
        """Hits in = pooled + dropped; rows = full + ragged + empty."""
        return {
            "hits_in": int(self._verdicts.sum()),
            "pooled": int(self._verdicts[Verdict.POOLED]),
            "dropped": {one.name.lower(): int(self._verdicts[one]) for one in Verdict if one},
            "rows": int(self._rows.sum()),
            "rows_full": int(self._rows[k:].sum()),
            "rows_ragged": int(self._rows[1:k].sum()),
            "rows_empty": int(self._rows[0]),
        }

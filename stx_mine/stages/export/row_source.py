"""The rows of a run, read from `negatives/` some queries at a time."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stx_mine.core.ragged import Ragged
from stx_mine.search.score import score_hits
from stx_mine.stages.export.core.mined_rows import MinedRows
from stx_mine.stages.export.text_ids import IdKind, NamedTexts
from stx_mine.store.artifact import Manifest
from stx_mine.store.batches import ragged_column
from stx_mine.store.negatives import pool_files, read_verdicts, rows_of, with_judged
from stx_mine.store.pools import PoolBlock
from stx_mine.store.texts import TextStore
from stx_mine.store.vectors import Vectors

# A query has as many hits as the search is deep, but few negatives.
_QUERIES_AT_ONCE, _SEARCHED_AT_ONCE = 2_048, 256


@dataclass(frozen=True)
class RowSource:
    """The rows of a run: `negatives/` with the pairs and vectors that they refer to.

    Attributes:
        negatives: The manifest of `negatives/`.
        model: Name of the model that mined.
        texts: Texts and pairs, and the ids by which the layout names texts.
        queries: Vectors of the queries.
        passages: Vectors of the passages.
        by_query: int64 (N,) numbers of the pairs that are rows, by query_id, then number.
        sorted_queries: int64 (N,) their query_ids.
        k: Most negatives of a row.
    """

    negatives: Manifest
    model: str
    texts: NamedTexts
    queries: Vectors
    passages: Vectors
    by_query: NDArray[np.int64]
    sorted_queries: NDArray[np.int64]
    k: int

    @classmethod
    def open(cls, inputs: dict[str, Manifest], k: int, id_kind: IdKind) -> "RowSource":
        """Map the artifacts of a run.

        Args:
            inputs: Manifests of `texts`, `embeddings` and `negatives`, by name.
            k: Most negatives of a row.
            id_kind: The ids of texts that the layout wants.
        """
        negatives, embeddings = inputs["negatives"], inputs["embeddings"]
        store = with_judged(TextStore.open(inputs["texts"]), negatives)
        rows = rows_of(negatives, store.num_pairs)
        by_query = rows[np.argsort(store.pair_query_ids[rows], kind="stable")]
        return cls(
            negatives,
            embeddings.extra["miner"],
            NamedTexts(store, id_kind),
            Vectors.open(embeddings, "queries"),
            Vectors.open(embeddings, "passages"),
            by_query,
            store.pair_query_ids[by_query],
            k,
        )

    def rows(self, name: str) -> Iterator[MinedRows]:
        """Yield the rows of one file of pools, some queries at a time; once if it has none."""
        block = PoolBlock.read(self.negatives, name)
        self.negatives.refuse_beyond(name, block.pools.values, self.texts.store.num_passages)
        asked, end = np.unique(block.query_ids), self.texts.store.num_queries
        for start in range(0, max(len(asked), 1), _QUERIES_AT_ONCE):
            some = asked[start : start + _QUERIES_AT_ONCE]
            first = np.searchsorted(self.sorted_queries, some.min(initial=end))
            last = np.searchsorted(self.sorted_queries, some.max(initial=-1), "right")
            yield self._rows(block, self.by_query[first:last])

    def _rows(self, block: PoolBlock, pairs: NDArray[np.int64]) -> MinedRows:
        store = self.texts.store
        query_ids, positive_ids = store.pair_query_ids[pairs], store.pair_passage_ids[pairs]
        scores = score_hits(
            self.queries.take(query_ids),
            self.passages.take(positive_ids),
            np.arange(len(pairs))[:, None],
            self.queries.similarity,
        )[:, 0]
        wanted = pairs if self.negatives.extra["per_pair"] else query_ids
        assert np.isin(wanted, block.unit_ids).all(), "a pair without a pool"
        units = np.searchsorted(block.unit_ids, wanted)
        negatives, places = block.pools.take(units, self.k)
        return MinedRows(query_ids, positive_ids, scores, negatives, block.scores[places])

    def hits(self) -> Iterator[tuple[NDArray[np.int64], Ragged, NDArray[np.float32]]]:
        """Yield the hits of all queries that were searched for, queries rising, some at a time.

        Yields:
            int64 (Q,) query ids; (Q,) passage ids, best first; float32 scores aligned with them.
        """
        for name in pool_files(self.negatives):
            table = read_verdicts(self.negatives, name)
            query_ids, firsts = np.unique(table.column("query_id").to_numpy(), return_index=True)
            hits = ragged_column(table, "hit_ids")
            scores = table.column("hit_scores").combine_chunks().flatten().to_numpy()
            for start in range(0, len(firsts), _SEARCHED_AT_ONCE):
                some = slice(start, start + _SEARCHED_AT_ONCE)
                found, places = hits.take(firsts[some])
                yield query_ids[some], found, scores[places]

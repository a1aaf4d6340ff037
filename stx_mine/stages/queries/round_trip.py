"""The round trip: whether a query finds its passage among all, by an embedding model.

Shape letters: Q distinct queries, P distinct passages, D dimensions.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stx_mine import progress
from stx_mine.core.role import Role
from stx_mine.models.encoder import SentenceTransformerEncoder
from stx_mine.search.exact import ExactSearcher
from stx_mine.stages.queries.filters import UnpairedTexts
from stx_mine.store.vectors import Vectors

_TEXTS, _QUERIES = 4_096, 1_024


@dataclass(frozen=True)
class RoundTrip:
    """Embeds queries and passages, and searches.

    Attributes:
        encoder: The model.
        top: How many passages of the first count as found.
        device: Where products run; None for the best one seen.
    """

    encoder: SentenceTransformerEncoder
    top: int
    device: str | None

    @classmethod
    def load(cls, model: str, top: int, device: str | None) -> "RoundTrip":
        """Load the model.

        Raises:
            ModelError: There is no such model.
        """
        return cls(SentenceTransformerEncoder.load(model, device, None, 64), top, device)

    def contract(self) -> dict[str, Any]:
        """What decides the vectors, JSON-ready."""
        return self.encoder.contract()

    def finds(
        self, pairs: pa.Table, rows: NDArray[np.int64], others: UnpairedTexts
    ) -> NDArray[np.bool_]:
        """Whether the passage of each pair is among the first for its query, ties by its place.

        Args:
            pairs: Columns `query`, `passage`, `row`.
            rows: int64 (N,) the pairs that are asked about.
            others: Gives the texts of all passages but those of some rows of the input.

        Returns:
            bool (N,).
        """
        texts = pa.chunked_array(
            [*pairs["passage"].chunks, others(np.unique(pairs["row"].to_numpy()))]
        )
        if not len(rows):
            return np.empty(0, bool)
        # Encoded before it is put together: each text is copied once.
        encoded = texts.dictionary_encode().combine_chunks()
        asked = pairs["query"].take(pa.array(rows)).dictionary_encode().combine_chunks()
        passages = Vectors(
            (self._encode(encoded.dictionary, "passage", "embedding passages"),),
            self.encoder.similarity(),
        )
        queries = Vectors(
            (self._encode(asked.dictionary, "query", "embedding queries"),), passages.similarity
        )
        passage_of = encoded.indices.to_numpy()[rows]
        query_of = asked.indices.to_numpy()
        found = np.zeros(len(rows), bool)
        for first, ids_QK in self._tops(queries, passages):
            inside = (query_of >= first) & (query_of < first + len(ids_QK))
            own = ids_QK[query_of[inside] - first]
            found[inside] = (own == passage_of[inside, None]).any(axis=1)
        return found

    def _tops(self, queries: Vectors, passages: Vectors) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """The first passages of some queries, as their ids."""
        searcher = ExactSearcher(passages, device=self.device)
        blocks = queries.blocks(_QUERIES)
        number = -(-len(queries) // _QUERIES)
        for first, block_QD in progress.each(blocks, "searching", number, "blocks"):
            yield first, searcher.search(block_QD, self.top).ids_QK

    def _encode(self, texts: pa.Array, role: Role, label: str) -> NDArray[np.float32]:
        """float32 (len(texts), D)."""
        starts = range(0, len(texts), _TEXTS)
        parts = [
            self.encoder.encode(texts.slice(start, _TEXTS).to_pylist(), role)
            for start in progress.each(starts, label, len(starts), "blocks")
        ]
        return np.concatenate(parts)

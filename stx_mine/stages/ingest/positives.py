"""Positive chunks: which chunk of a positive document a pair stands for."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stx_mine.core.ragged import Ragged
from stx_mine.stages.ingest.core.best_chunk import best_chunk, term_counts
from stx_mine.stages.ingest.documents import Chunked
from stx_mine.store.texts import take_texts

_PAIRS_AT_ONCE = 1_024


@dataclass(frozen=True)
class Positives:
    """The pairs of queries and documents as pairs of queries and chunks.

    Attributes:
        rows: int64 (M,) number of the pair of each (query, chunk), rising.
        passage_ids: int64 (M,) the chunk.
        num_by_words: Pairs with a document of several chunks, the chunk chosen by words.
        num_without_words: Pairs whose query shares no word with any chunk: the first was taken.
    """

    rows: NDArray[np.int64]
    passage_ids: NDArray[np.int64]
    num_by_words: int = 0
    num_without_words: int = 0


def choose_positives(
    pairs: NDArray[np.int64],
    chunked: Chunked,
    how: str,
    queries: pa.Table,
    passages: pa.Table,
) -> Positives:
    """Name the chunk, or the chunks, that stand for the positive document of each pair.

    Args:
        pairs: int64 (N, 2) query ids and documents.
        chunked: The chunks.
        how: best, first or all.
        queries: Texts of the queries, by id.
        passages: Texts of the passages, by id.
    """
    parts, _ = chunked.passage_ids.take(pairs[:, 1])
    if how == "all":
        return Positives(np.repeat(np.arange(len(pairs)), parts.lengths()), parts.values)
    chosen = parts.values[parts.offsets[:-1]]
    rows = np.arange(len(pairs))
    several = np.flatnonzero(parts.lengths() > 1)
    if how == "first" or not len(several):
        return Positives(rows, chosen)
    by_document = several[np.argsort(pairs[several, 1], kind="stable")]
    misses = 0
    for start in range(0, len(by_document), _PAIRS_AT_ONCE):
        some = by_document[start : start + _PAIRS_AT_ONCE]
        best = _best_chunks(pairs[some], chunked.passage_ids, queries, passages)
        misses += int((best < 0).sum())
        chosen[some] = parts.values[parts.offsets[some] + np.maximum(best, 0)]
    return Positives(rows, chosen, len(several) - misses, misses)


def _best_chunks(
    pairs: NDArray[np.int64], passage_ids: Ragged, queries: pa.Table, passages: pa.Table
) -> NDArray[np.int64]:
    """int64 (N,): the chunk of each pair, sorted by document; -1 where no word is shared."""
    asked = take_texts(queries.column("text"), pairs[:, 0]).dictionary_decode()
    best = np.empty(len(pairs), np.int64)
    document, chunks = -1, []
    for row, query in enumerate(asked):
        if pairs[row, 1] != document:
            document = int(pairs[row, 1])
            texts = take_texts(passages.column("text"), passage_ids.row(document))
            chunks = [term_counts(one.as_py()) for one in texts.dictionary_decode()]
        found = best_chunk(term_counts(query.as_py()), chunks)
        best[row] = -1 if found is None else found
    return best

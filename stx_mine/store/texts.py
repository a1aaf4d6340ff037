"""The text store: distinct texts with ids, and pairs; written in a stream, mapped on read."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stx_mine.core.ragged import Ragged, offsets_of
from stx_mine.store.artifact import Manifest
from stx_mine.store.documents import Documents
from stx_mine.store.files import atomic, write_table
from stx_mine.store.languages import LanguageTable
from stx_mine.store.sources import SourceTable

QUERIES, PASSAGES = "queries.arrow", "passages.arrow"
NEGATIVES = "negatives.arrow"
PAIRS = "pairs.arrow"
_BLOCK_BYTES = 1 << 26
QUERY_TEXTS, OTHER_POSITIVES = "query_texts.npy", "other_positives.arrow"
# Its name is that of the groups that earlier versions kept here.
FIRST_CHUNKS = "passage_groups.npy"
TEXT_SCHEMA = pa.schema([("text", pa.large_string()), ("original_id", pa.large_string())])
PAIR_SCHEMA = pa.schema([("query_id", pa.int64()), ("passage_id", pa.int64())])


def write_texts(path: Path, batches: Iterator[tuple[pa.Array, pa.Array, NDArray[np.bool_]]]) -> int:
    """Write the chosen rows of a stream of (texts, original ids, keep) atomically.

    Returns:
        The number of texts written.
    """
    count = 0
    with atomic(path) as temporary, pa.OSFile(str(temporary), "wb") as sink:
        with pa.ipc.new_file(sink, TEXT_SCHEMA) as writer:
            for block in _large_blocks(batches):
                count += block.num_rows
                writer.write_batch(block)
    return count


def _large_blocks(
    batches: Iterator[tuple[pa.Array, pa.Array, NDArray[np.bool_]]],
) -> Iterator[pa.RecordBatch]:
    """The chosen rows of many batches together: whoever takes texts by id goes over all blocks."""
    held, num_bytes = list[pa.RecordBatch](), 0
    for texts, original_ids, keep in batches:
        batch = pa.record_batch([texts, original_ids], schema=TEXT_SCHEMA)
        held.append(batch.filter(pa.array(keep)))
        num_bytes += held[-1].nbytes
        if num_bytes >= _BLOCK_BYTES:
            yield pa.concat_batches(held)
            held, num_bytes = [], 0
    if held:
        yield pa.concat_batches(held)


def take_texts(column: pa.ChunkedArray, ids: NDArray[np.int64]) -> pa.DictionaryArray:
    """Texts by id; each distinct one is copied once, and nothing else is read.

    Args:
        column: `text` of a mapped table; row number = id.
        ids: int64 (N,), in any order, also repeated; -1 for none.

    Returns:
        (N,) dictionary-encoded large strings, null for none.
    """
    real = ids >= 0
    distinct, numbers = np.unique(ids[real], return_inverse=True)
    places = np.zeros(len(ids), np.int32)
    places[real] = numbers
    starts = offsets_of([len(chunk) for chunk in column.chunks])
    bounds = np.searchsorted(distinct, starts)
    parts = [
        column.chunk(number).take(pa.array(distinct[first:last] - starts[number]))
        for number, (first, last) in enumerate(pairwise(bounds))
        if last > first
    ]
    texts = pa.chunked_array(parts, column.type).combine_chunks()
    return pa.DictionaryArray.from_arrays(pa.array(places, mask=~real), texts)


def write_pairs(path: Path, query_ids: NDArray[np.int64], passage_ids: NDArray[np.int64]) -> None:
    """Write a table of pairs, as `pair_ids` reads it."""
    write_table(path, pa.table([query_ids, passage_ids], schema=PAIR_SCHEMA))


def pair_ids(
    texts: Manifest, name: str, num_queries: int, num_passages: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The query ids and the passage ids, int64 (N,) each, of a table of pairs of `texts/`.

    Raises:
        ArtifactError: It is damaged, or has ids of no text.
    """
    table = texts.table(name)
    queries, passages = (one.to_numpy() for one in table.columns)
    texts.refuse_beyond(name, queries, num_queries)
    texts.refuse_beyond(name, passages, num_passages)
    return queries, passages


@dataclass(frozen=True)
class TextStore:
    """Texts and pairs of a run, mapped into memory.

    Attributes:
        queries: Table `text`, `original_id`; row number = query_id.
        passages: Table `text`, `original_id`; row number = passage_id.
        pair_query_ids: int64 (N,).
        pair_passage_ids: int64 (N,).
        query_texts: int64 (num queries,) id of each query's text: the passage of equal text, or an
            id after all passages. The text of a passage has its passage_id.
        other_positives: int64 (2, M) query ids and passage ids that are known positives and no
            pairs to train on.
        sources: Where they came from; None where there is one unnamed source.
        languages: Of the texts; None where the input names none.
        documents: Those that were cut into chunks; None where nothing was to be cut.
        first_chunks: int64 (num passages,) the first passage of the first document that each
            passage comes from; None where each is a document.
    """

    queries: pa.Table
    passages: pa.Table
    pair_query_ids: NDArray[np.int64]
    pair_passage_ids: NDArray[np.int64]
    query_texts: NDArray[np.int64]
    other_positives: NDArray[np.int64]
    sources: SourceTable | None = None
    languages: LanguageTable | None = None
    documents: Documents | None = None
    first_chunks: NDArray[np.int64] | None = None

    @classmethod
    def open(cls, manifest: Manifest) -> "TextStore":
        """Map the files of a finished `texts/`.

        Raises:
            ArtifactError: A file is damaged, or has numbers that stand for no text.
        """
        queries, passages = (manifest.table(name) for name in (QUERIES, PASSAGES))
        sizes = queries.num_rows, passages.num_rows
        others = np.empty((2, 0), np.int64)
        if manifest.has(OTHER_POSITIVES):
            others = np.stack(pair_ids(manifest, OTHER_POSITIVES, *sizes))
        query_texts = manifest.array(QUERY_TEXTS)
        manifest.refuse_length(QUERY_TEXTS, len(query_texts), sizes[0])
        manifest.refuse_beyond(QUERY_TEXTS, query_texts, sum(sizes))
        first_chunks = None
        if manifest.has(FIRST_CHUNKS):
            first_chunks = manifest.array(FIRST_CHUNKS)
            manifest.refuse_length(FIRST_CHUNKS, len(first_chunks), sizes[1])
            manifest.refuse_beyond(FIRST_CHUNKS, first_chunks, sizes[1])
        return cls(
            queries,
            passages,
            *pair_ids(manifest, PAIRS, *sizes),
            query_texts,
            others,
            SourceTable.open(manifest),
            LanguageTable.open(manifest),
            Documents.open(manifest, sizes[1]),
            first_chunks,
        )

    @cached_property
    def pairs_of_query(self) -> Ragged:
        """(num queries,) numbers of the pairs of each query, rising."""
        order = np.argsort(self.pair_query_ids, kind="stable").astype(np.int64)
        counts = np.bincount(self.pair_query_ids, minlength=self.num_queries)
        return Ragged(offsets_of(counts), order)

    @property
    def num_queries(self) -> int:
        """Number of distinct queries."""
        return int(self.queries.num_rows)

    @property
    def num_passages(self) -> int:
        """Number of distinct passages, the corpus."""
        return int(self.passages.num_rows)

    @property
    def num_pairs(self) -> int:
        """Number of pairs."""
        return len(self.pair_query_ids)

    def with_pairs(
        self, made: tuple[NDArray[np.int64], NDArray[np.int64]], others: NDArray[np.int64]
    ) -> "TextStore":
        """The same texts with more pairs, after those that are there.

        Args:
            made: int64 (M,) query ids and passage ids of pairs to train on. Each is of the source
                that its query's first pair is of.
            others: int64 (2, K) those of known positives that are no pairs to train on.
        """
        sources = self.sources
        if sources is not None:
            first = np.zeros(self.num_queries, np.int64)
            first[self.pair_query_ids[::-1]] = np.arange(self.num_pairs)[::-1]
            of_pairs = sources.numbers["pair"]
            numbers = {**sources.numbers, "pair": np.append(of_pairs, of_pairs[first[made[0]]])}
            sources = replace(sources, numbers=numbers)
        return replace(
            self,
            pair_query_ids=np.concatenate([self.pair_query_ids, made[0]]),
            pair_passage_ids=np.concatenate([self.pair_passage_ids, made[1]]),
            other_positives=np.concatenate([self.other_positives, others], axis=1),
            sources=sources,
        )

    @property
    def known_positives(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Query and passage ids, int64 (N + M,) each: the pairs, then the other positives."""
        queries, passages = self.other_positives
        return (
            np.concatenate([self.pair_query_ids, queries]),
            np.concatenate([self.pair_passage_ids, passages]),
        )

    @property
    def num_texts(self) -> int:
        """An upper bound of the ids of texts: passages first, then queries."""
        return self.num_passages + self.num_queries

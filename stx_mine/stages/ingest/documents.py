"""Documents cut into chunks: the distinct chunks are the passages of `texts/`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stx_mine.core.ragged import Ragged, offsets_of, places_of
from stx_mine.stages.ingest.chunker import Chunker, in_blocks
from stx_mine.stages.ingest.counts import CutCounts
from stx_mine.stages.ingest.numbering import Distinct
from stx_mine.store.columns import number_values
from stx_mine.store.digests import DIGEST, text_digests
from stx_mine.store.documents import write_documents
from stx_mine.store.files import read_table
from stx_mine.store.texts import TEXT_SCHEMA, write_texts

# Chunks before the equal ones among them are known; gone when `texts/` is finished.
_CHUNKS = "chunks.arrow"
_BLOCK_CHARACTERS = 1 << 20

# (texts, original ids, titles, whether the row is the first of its text)
DocumentStream = Iterator[tuple[pa.Array, pa.Array, pa.Array, NDArray[np.bool_]]]


@dataclass(frozen=True)
class Chunked:
    """Passages made of documents.

    Attributes:
        passage_ids: (num documents,) distinct ids of the chunks of each, in their order.
        digests: Digest of each passage, by id.
        counts: How many documents were cut, into how many chunks.
    """

    passage_ids: Ragged
    digests: pa.Array
    counts: CutCounts

    @property
    def num_passages(self) -> int:
        """Number of distinct passages."""
        return len(self.digests)

    def owners(self) -> NDArray[np.int64]:
        """int64 (num passages,): the first document that each passage is a chunk of."""
        owners = np.empty(self.num_passages, np.int64)
        documents = np.repeat(np.arange(len(self.passage_ids)), self.passage_ids.lengths())
        owners[self.passage_ids.values[::-1]] = documents[::-1]
        return owners

    def groups(self, counts_as: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
        """int64 (num passages,): the smallest passage of the same owner.

        A chunk that stands in several documents is of the first one's group only: else all that
        share a licence or a footer would count as one text.

        Args:
            counts_as: int64 (num documents,) the document that each counts as, where the input
                names those that it is a chunk of; None for itself.
        """
        owners = self.owners()
        owners = owners if counts_as is None else counts_as[owners]
        _, first, place = np.unique(owners, return_index=True, return_inverse=True)
        return first[place].astype(np.int64)

    def of(self, documents: NDArray[np.int64]) -> NDArray[np.int64]:
        """The distinct passages of some documents, rising."""
        return np.unique(self.passage_ids.take(documents)[0].values)


def write_chunks(
    folder: Path, passages: str, stream: DocumentStream, chunker: Chunker, every_title: bool
) -> Chunked:
    """Cut documents and write their distinct chunks, one block after the other.

    Args:
        folder: Folder of the texts.
        passages: Name of the file of passages.
        stream: The documents; the rows kept are numbered from 0.
        chunker: Cuts them.
        every_title: Whether every chunk gets the title of its document.
    """
    lengths, digests = [np.empty(0, np.int64)], [pa.array([], DIGEST)]
    long_ids, long_digests = [pa.array([], pa.large_string())], [pa.array([], DIGEST)]
    tally = _Tally(chunker)

    def chunks() -> Iterator[tuple[pa.Array, pa.Array, NDArray[np.bool_]]]:
        for texts, ids, titles, keep in stream:
            wanted = pa.array(keep)
            block = texts.filter(wanted), ids.filter(wanted), titles.filter(wanted)
            for found, original_ids, num_chunks, cut in _cut(chunker, *block, every_title, tally):
                lengths.append(num_chunks)
                digests.append(text_digests(found))
                long_ids.append(cut[0])
                long_digests.append(cut[1])
                yield found, original_ids, np.ones(len(found), bool)

    raw = folder / _CHUNKS
    write_texts(raw, chunks())
    ids, distinct = number_values(pa.chunked_array(digests, DIGEST))
    write_texts(folder / passages, _first_rows(raw, ids))
    raw.unlink()
    found = Chunked(_distinct_rows(np.concatenate(lengths), ids), distinct, tally.counts(len(ids)))
    cut = np.flatnonzero(np.concatenate(lengths) > 1)
    write_documents(
        folder,
        pa.chunked_array(long_ids).combine_chunks(),
        pa.chunked_array(long_digests).combine_chunks(),
        found.passage_ids.take(cut)[0],
    )
    return found


class _Tally:
    """Counts, block by block, what is cut and what the model would not have read."""

    def __init__(self, chunker: Chunker) -> None:
        limit = chunker.model_limit
        self._reads = None if limit is None else limit - chunker.around
        self.documents = self.cut = self.tokens = self.lost = self.truncated = 0

    def add(self, num_tokens: list[int], num_chunks: list[int]) -> None:
        tokens = np.array(num_tokens, np.int64)
        self.documents += len(tokens)
        self.cut += int((np.array(num_chunks) > 1).sum())
        self.tokens += int(tokens.sum())
        if self._reads is not None:
            beyond = np.maximum(tokens - self._reads, 0)
            self.lost += int(beyond.sum())
            self.truncated += int((beyond > 0).sum())

    def counts(self, num_chunks: int) -> CutCounts:
        return CutCounts(
            documents=self.documents,
            documents_cut=self.cut,
            chunks=num_chunks - (self.documents - self.cut),
            document_tokens=self.tokens,
            documents_truncated_otherwise=self.truncated,
            tokens_lost_otherwise=self.lost,
        )


def _cut(
    chunker: Chunker,
    texts: pa.Array,
    ids: pa.Array,
    titles: pa.Array,
    every_title: bool,
    tally: _Tally,
) -> Iterator[tuple[pa.Array, pa.Array, NDArray[np.int64], tuple[pa.Array, pa.Array]]]:
    """Yield (chunks, their ids, chunks of each document, (ids, digests) of those that were cut)."""
    prefixes = pa.nulls(len(texts), pa.large_string())
    if every_title:
        space = pa.scalar(" ", pa.large_string())
        prefixes = pc.binary_join_element_wise(titles, pa.scalar("", pa.large_string()), space)
    start = 0
    # No more than a block of it is in memory as Python objects.
    strings = (one.as_py() for one in texts)
    beginnings = (prefix.as_py() or "" for prefix in prefixes)
    for block, before in in_blocks(strings, beginnings, _BLOCK_CHARACTERS):
        fitting = [
            prefix if text.startswith(prefix) else ""
            for text, prefix in zip(block, before, strict=True)
        ]
        pieces = chunker.cut(block, fitting)
        num_chunks = [len(chunk) for chunk in pieces.chunks]
        tally.add(pieces.num_tokens, num_chunks)
        own_ids = ids.slice(start, len(block))
        found = pa.array([one for chunks in pieces.chunks for one in chunks], pa.large_string())
        counts = np.array(num_chunks, np.int64)
        long = pa.array(counts > 1)
        digests = text_digests(texts.slice(start, len(block)).filter(long))
        yield found, _numbered(own_ids, counts), counts, (own_ids.filter(long), digests)
        start += len(block)


def _numbered(ids: pa.Array, counts: NDArray[np.int64]) -> pa.Array:
    """Original ids of chunks: that of the document, and "#" and the number where it was cut."""
    rows = np.repeat(np.arange(len(counts)), counts)
    numbers = places_of(0, offsets_of(counts))
    named = ids.take(pa.array(rows))
    mark = pa.scalar("#", pa.large_string())
    joined = pc.binary_join_element_wise(named, pa.array(numbers).cast(pa.large_string()), mark)
    return pc.if_else(pa.array(counts[rows] > 1), joined, named)


def _first_rows(
    path: Path, ids: NDArray[np.int64]
) -> Iterator[tuple[pa.Array, pa.Array, NDArray[np.bool_]]]:
    first = Distinct(ids, pa.array([], DIGEST), pa.chunked_array([], pa.large_string()))
    keep, start = first.first_rows(), 0
    for batch in read_table(path).to_batches():
        texts, original_ids = (batch.column(name) for name in TEXT_SCHEMA.names)
        yield texts, original_ids, keep[start : start + len(texts)]
        start += len(texts)


def _distinct_rows(lengths: NDArray[np.int64], ids: NDArray[np.int64]) -> Ragged:
    """The ids of each row without -1 and repetitions, in their order."""
    rows = np.repeat(np.arange(len(lengths)), lengths)
    real = np.flatnonzero(ids >= 0)
    width = int(ids.max(initial=0)) + 1
    _, first = np.unique(rows[real] * width + ids[real], return_index=True)
    kept = np.sort(real[first])
    return Ragged(offsets_of(np.bincount(rows[kept], minlength=len(lengths))), ids[kept])

"""Distinct texts: which rows of a stream are new, and the id of each; several streams as one."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stx_mine import progress
from stx_mine.inputs.pairs import TextStream
from stx_mine.store.columns import find_rows, number_values
from stx_mine.store.digests import DIGEST, text_digests

# White space, controls, and the characters that only join or part others.
_INVISIBLE = r"^[\s\p{Z}\p{Cc}\x{AD}\x{180E}\x{200B}-\x{200F}\x{2060}-\x{2064}\x{FEFF}]*$"


@dataclass(frozen=True)
class Distinct:
    """Which rows of a stream of texts are new, and the id of each row.

    Attributes:
        ids: int64 (rows,); -1 for empty texts.
        digests: Digest of each distinct text, by id.
        original_ids: Id of each row in its source; null where it has none.
    """

    ids: NDArray[np.int64]
    digests: pa.Array
    original_ids: pa.ChunkedArray

    @property
    def num_empty(self) -> int:
        """Rows without text."""
        return int((self.ids < 0).sum())

    def first_rows(self) -> NDArray[np.bool_]:
        """Bool (rows,): the first row of each distinct text."""
        first = np.zeros(len(self.ids), bool)
        kept = np.flatnonzero(self.ids >= 0)
        first[kept[np.unique(self.ids[kept], return_index=True)[1]]] = True
        return first

    def shared_ids(self, start: int = 0) -> tuple[int, str]:
        """How many original ids, from a row on, name several texts; and one of them, or nothing."""
        numbers, names = number_values(self.original_ids.slice(start))
        both = np.stack([numbers, self.ids[start : start + len(numbers)]])
        distinct = np.unique(both[:, (both >= 0).all(axis=0)], axis=1)
        shared = np.flatnonzero(np.bincount(distinct[0], minlength=1) > 1)
        return len(shared), str(names[int(shared[0])].as_py()) if len(shared) else ""


def number_texts(stream: TextStream, wanted: pa.Array | None = None) -> Distinct:
    """Number the distinct texts of a stream in order of first appearance.

    Args:
        stream: Batches of (texts, original ids).
        wanted: Original ids to keep; the others get id -1 (None: all).
    """
    digests, originals = [pa.array([], DIGEST)], [pa.array([], pa.large_string())]
    for texts, original_ids in counted(stream):
        found = pc.if_else(_is_invisible(texts), pa.scalar(None, DIGEST), text_digests(texts))
        if wanted is not None:
            keep = pc.is_in(original_ids, value_set=wanted)
            found = pc.if_else(keep, found, pa.scalar(None, DIGEST))
        digests.append(found)
        originals.append(original_ids)
    return Distinct(*number_values(pa.chunked_array(digests)), pa.chunked_array(originals))


def counted(stream: TextStream) -> TextStream:
    """A stream, as a step that counts its texts."""
    with progress.step("numbered", unit="texts") as read:
        for batch in stream:
            yield batch
            read.advance(len(batch[0]))


def first_texts(
    stream: TextStream, distinct: Distinct
) -> Iterator[tuple[NDArray[np.int64], pa.Array]]:
    """Stream the first row of each distinct text of a stream again, with its id."""
    is_first, start = distinct.first_rows(), 0
    for texts, _ in stream:
        rows = slice(start, start + len(texts))
        kept = is_first[rows]
        yield distinct.ids[rows][kept], texts.filter(pa.array(kept))
        start += len(texts)


def distinct_texts(stream: TextStream, distinct: Distinct) -> pa.ChunkedArray:
    """The distinct texts of a stream, by id."""
    return pa.chunked_array(
        [texts for _, texts in first_texts(stream, distinct)], pa.large_string()
    )


def _is_invisible(texts: pa.Array) -> pa.Array:
    """Whether nothing of a text is seen: white space, and characters that take no place."""
    return pc.fill_null(pc.match_substring_regex(texts, _INVISIBLE), True)


def merge_distinct(parts: list[Distinct]) -> tuple[Distinct, list[NDArray[np.int64]]]:
    """Number the texts of several streams as those of one.

    Returns:
        The texts of all streams, and for each stream int64 (its distinct texts + 1,) its ids ->
        ids of all; the last entry is -1, so that -1 stays -1.
    """
    numbers, digests = number_values(pa.chunked_array([part.digests for part in parts]))
    borders = np.cumsum([len(part.digests) for part in parts])[:-1]
    ids = [np.append(one, -1) for one in np.split(numbers, borders)]
    originals = pa.chunked_array(
        [chunk for part in parts for chunk in part.original_ids.chunks], pa.large_string()
    )
    return Distinct(translated(ids, [part.ids for part in parts]), digests, originals), ids


def translated(
    ids: list[NDArray[np.int64]], of_parts: list[NDArray[np.int64]]
) -> NDArray[np.int64]:
    """Ids within the parts -> ids of all, one part after the other."""
    return np.concatenate([one[part] for one, part in zip(ids, of_parts, strict=True)])


def text_ids_of(queries: pa.Array, passages: pa.Array) -> NDArray[np.int64]:
    """int64 (queries,): the passage of equal text, or a number of its own after all passages.

    Args:
        queries: Digests of distinct queries.
        passages: Digests of distinct passages.
    """
    found = find_rows(queries, passages)
    return np.where(found >= 0, found, len(passages) + np.arange(len(queries)))

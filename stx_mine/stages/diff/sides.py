"""The two runs of a comparison: opened, and their texts and pairs matched by content."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stx_mine.errors import InputError
from stx_mine.stages.diff.counts import SharedCounts
from stx_mine.store.columns import number_values
from stx_mine.store.digests import DIGEST, text_digests
from stx_mine.store.mined_run import MinedRun


@dataclass(frozen=True)
class Common:
    """One numbering of the texts of a role in both runs, or of their pairs.

    Attributes:
        of_a: int64: the number of each text of A, by its id.
        of_b: int64: the same for B.
        size: Numbers there are.
    """

    of_a: NDArray[np.int64]
    of_b: NDArray[np.int64]
    size: int

    @classmethod
    def of(cls, texts_a: pa.ChunkedArray, texts_b: pa.ChunkedArray, same: bool) -> "Common":
        """Number texts by the 128-bit digest of their normalised form.

        Args:
            texts_a: Distinct texts of A, by id.
            texts_b: Distinct texts of B.
            same: Whether both are known to be the same list.
        """
        if same:
            ids = np.arange(len(texts_a))
            return cls(ids, ids, len(ids))
        digests = [text_digests(chunk) for texts in (texts_a, texts_b) for chunk in texts.chunks]
        numbers, distinct = number_values(pa.chunked_array(digests, DIGEST))
        return cls(numbers[: len(texts_a)], numbers[len(texts_a) :], len(distinct))

    @cached_property
    def ids_a(self) -> NDArray[np.int64]:
        """int64 (size,): the id of each number in A; -1 where A has no such text."""
        return self._ids(self.of_a)

    @cached_property
    def ids_b(self) -> NDArray[np.int64]:
        """int64 (size,): the id of each number in B; -1 where B has no such text."""
        return self._ids(self.of_b)

    def _ids(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        ids = np.full(self.size, -1, np.int64)
        ids[numbers] = np.arange(len(numbers))
        return ids

    def counts(self) -> SharedCounts:
        """Numbers in A only, in both, in B only."""
        in_a, in_b = self.ids_a >= 0, self.ids_b >= 0
        return SharedCounts.of(len(self.of_a), len(self.of_b), int((in_a & in_b).sum()))


@dataclass(frozen=True)
class Matched:
    """Two runs with their queries, passages and pairs matched by content.

    Attributes:
        a: Run A.
        b: Run B.
        queries: Numbering of the queries.
        passages: Numbering of the passages.
        pairs_a: int64 (M,) numbers in A of the pairs that both have; those of a unit of A stand
            together.
        pairs_b: int64 (M,) the same pairs in B.
        num_pairs: Pairs in A only, in both, in B only.
    """

    a: MinedRun
    b: MinedRun
    queries: Common
    passages: Common
    pairs_a: NDArray[np.int64]
    pairs_b: NDArray[np.int64]
    num_pairs: SharedCounts

    @classmethod
    def of(cls, a: MinedRun, b: MinedRun, query: str | None) -> "Matched":
        """Match two runs.

        Args:
            a: Run A.
            b: Run B.
            query: Text or original id of the only query to take; None: all.

        Raises:
            InputError: Neither run has the query.
        """
        same = a.texts.digest == b.texts.digest
        queries, passages = (
            Common.of(one.column("text"), other.column("text"), same)
            for one, other in (
                (a.store.queries, b.store.queries),
                (a.store.passages, b.store.passages),
            )
        )
        chosen = _chosen(a, b, queries, query)
        of_a, keys_a = _keys(a, queries.of_a, passages.of_a, chosen)
        of_b, keys_b = _keys(b, queries.of_b, passages.of_b, chosen)
        _, in_a, in_b = np.intersect1d(keys_a, keys_b, assume_unique=True, return_indices=True)
        pairs_a, pairs_b = of_a[in_a], of_b[in_b]
        order = np.argsort(a.units_of(pairs_a), kind="stable")
        counts = SharedCounts.of(len(keys_a), len(keys_b), len(in_a))
        return cls(a, b, queries, passages, pairs_a[order], pairs_b[order], counts)


def _chosen(a: MinedRun, b: MinedRun, queries: Common, query: str | None) -> NDArray[np.bool_]:
    """Bool (numbers of queries,): those to compare.

    Raises:
        InputError: Neither run has the query.
    """
    chosen = np.full(queries.size, query is None)
    if query is not None:
        chosen[queries.of_a[a.queries_named(query)]] = True
        chosen[queries.of_b[b.queries_named(query)]] = True
    if not chosen.any():
        raise InputError(
            f"no query of {a.path} or {b.path} has the text or the original id {query!r}; "
            "give one as it stands in the data"
        )
    return chosen


def _keys(
    side: MinedRun,
    of_queries: NDArray[np.int64],
    of_passages: NDArray[np.int64],
    chosen: NDArray[np.bool_],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Numbers of a run's pairs whose query is chosen, and a key of each, the same in both runs."""
    queries = of_queries[side.store.pair_query_ids]
    pairs = np.flatnonzero(chosen[queries])
    # One above the largest number that a passage of either run has.
    span = np.int64(1) << 31
    return pairs, queries[pairs] * span + of_passages[side.store.pair_passage_ids[pairs]]

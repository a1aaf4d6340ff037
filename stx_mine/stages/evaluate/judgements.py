"""Evaluation data with qrels: queries and documents by their ids, judgements with grades."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stx_mine.core.ragged import Ragged, offsets_of, ragged_sets
from stx_mine.errors import InputError
from stx_mine.inputs.pairs import TextStream
from stx_mine.stages.evaluate.core.metrics import Relevance
from stx_mine.stages.evaluate.own_passages import OfQueries
from stx_mine.stages.ingest.numbering import Distinct
from stx_mine.store.columns import find_rows, number_values
from stx_mine.store.digests import text_digests


@dataclass(frozen=True)
class JudgedQueries:
    """The queries that are judged, in the order of their file.

    Attributes:
        names: Large strings (Q,): their ids, distinct.
        texts: Large strings (Q,).
        digests: Digest of each text.
    """

    names: pa.Array
    texts: pa.ChunkedArray
    digests: pa.Array

    @classmethod
    def read(cls, stream: TextStream, judged: pa.Array) -> "JudgedQueries":
        """Read them from a stream of (texts, ids); those without text are left out.

        Args:
            stream: All queries.
            judged: The ids that judgements name.
        """
        text = pa.large_string()
        names, texts, digests = [pa.array([], text)], [pa.array([], text)], []
        for some, ids in stream:
            kept = pc.is_in(ids, value_set=judged)
            found = text_digests(some.filter(kept))
            whole = found.is_valid()
            names.append(ids.filter(kept).filter(whole))
            texts.append(some.filter(kept).filter(whole))
            digests.append(found.filter(whole))
        all_names = pa.chunked_array(names, text).combine_chunks()
        first = pa.array(_first_rows(all_names))
        all_digests = pa.concat_arrays(digests) if digests else text_digests(all_names)
        return cls(
            all_names.take(first),
            pa.chunked_array(texts, text).take(first),
            all_digests.take(first),
        )


@dataclass(frozen=True)
class Corpus:
    """The documents of a corpus, numbered so that the first of those that tie has the lower id.

    trec_eval ranks documents of one score by falling id, as text; those without id come last.

    Attributes:
        names: Large strings (D,): id of each document; null where it has none.
        texts: int64 (D,): the text of each.
        documents: Of each text its documents.
    """

    names: pa.Array
    texts: NDArray[np.int64]
    documents: Ragged

    @classmethod
    def of(cls, passages: Distinct) -> "Corpus":
        """The documents that are not empty, each id once."""
        names = passages.original_ids.combine_chunks()
        rows = _first_rows(names)
        rows = rows[passages.ids[rows] >= 0]
        own = names.take(pa.array(rows))
        order = pc.array_sort_indices(own, order="descending", null_placement="at_end")
        texts = passages.ids[rows[order.to_numpy()]]
        documents = ragged_sets(texts, np.arange(len(texts)), len(passages.digests))
        return cls(own.take(order), texts, documents)


@dataclass(frozen=True)
class Judgements:
    """The judgements of some queries.

    Attributes:
        judged: What the metrics take.
        num_read: Rows of the qrels.
        dropped: Reason -> rows that say nothing of a ranking.
    """

    judged: Relevance
    num_read: int
    dropped: Mapping[str, int]

    @classmethod
    def join(
        cls, table: pa.Table, queries: pa.Array, documents: pa.Array, min_grade: float | None
    ) -> "Judgements":
        """Join the rows of qrels with the ids of queries and documents.

        A grade is a gain, one below 0 is none. A judgement of a document that the corpus lacks
        counts in what could have been found.

        Args:
            table: `query`, `passage`, `grade`; of rows of one query and passage the last counts.
            queries: (Q,) ids of the queries.
            documents: (D,) ids of the documents.
            min_grade: Lowest grade of a relevant document; None for any above 0.

        Raises:
            InputError: A grade is no number.
        """
        grades = table["grade"].to_numpy()
        if not np.isfinite(grades).all():
            raise InputError(
                "expected grades that are finite numbers in the qrels, found "
                f"{grades[~np.isfinite(grades)][0]}; fix that row"
            )
        relevant = grades > 0 if min_grade is None else grades >= min_grade
        rows = find_rows(table["query"], queries)
        last = _last_rows(table)
        reasons = np.select(
            [rows < 0, ~last, ~relevant & (grades <= 0)], [1, 2, 3], 0 * grades
        ).astype(np.int64)
        counts = np.bincount(reasons, minlength=4).tolist()
        names = ("query_without_text", "repeated_judgement", "not_relevant")
        dropped = dict(zip(names, counts[1:], strict=True))
        kept = np.flatnonzero(reasons == 0)
        kept = kept[np.argsort(rows[kept], kind="stable")]
        found = find_rows(table["passage"].take(pa.array(kept)), documents)
        offsets = offsets_of(np.bincount(rows[kept], minlength=len(queries)))
        judged = Relevance(Ragged(offsets, found), np.maximum(grades[kept], 0.0), relevant[kept])
        return cls(judged, len(grades), dropped)


def documents_of(judged: Relevance, chosen: NDArray[np.bool_]) -> OfQueries:
    """The (query, document) of some judgements, without those that no ranking can hold.

    Args:
        judged: The judgements.
        chosen: Bool (J,).
    """
    there = chosen & (judged.documents.values >= 0)
    return OfQueries(judged.rows()[there], judged.documents.values[there])


def _first_rows(names: pa.Array) -> NDArray[np.int64]:
    """int64: the first row of each distinct name, and every row without one; rising."""
    numbers, _ = number_values(names)
    named = np.flatnonzero(numbers >= 0)
    first = named[np.unique(numbers[named], return_index=True)[1]]
    return np.sort(np.concatenate([first, np.flatnonzero(numbers < 0)]))


def _last_rows(table: pa.Table) -> NDArray[np.bool_]:
    """Bool (rows,): the last row of each query and passage."""
    queries, _ = number_values(table["query"])
    passages, names = number_values(table["passage"])
    keys = queries * (len(names) + 1) + passages
    _, from_end = np.unique(keys[::-1], return_index=True)
    last = np.zeros(len(keys), np.bool_)
    last[len(keys) - 1 - from_end] = True
    return last

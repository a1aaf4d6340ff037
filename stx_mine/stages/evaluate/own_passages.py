"""The passages that are a query's own: of its text, or of its id where ids are shared."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stx_mine.core.ragged import Ragged, ragged_sets
from stx_mine.store.columns import find_rows
from stx_mine.store.digests import normalise

# What is done with them: see `EvaluateConfig.own_passages`.
OwnPassages = Literal["auto", "ids", "ranked"]
# Ids are shared if so many of the passages with the id of a query have its text as well.
_SHARED = 0.5


@dataclass(frozen=True)
class LeftOut:
    """Which passages are not ranked.

    Attributes:
        documents: Of each query, rising.
        num_positives: (query, passage) of an own passage that is ranked as it is a positive.
        num_other_texts: Queries with the id of a passage of another text, which is ranked.
    """

    documents: Ragged
    num_positives: int = 0
    num_other_texts: int = 0


@dataclass(frozen=True)
class OfQueries:
    """(query, document) pairs, int64 (N,) each."""

    rows: NDArray[np.int64]
    documents: NDArray[np.int64]

    def filter(self, chosen: NDArray[np.bool_]) -> "OfQueries":
        """Some of them."""
        return OfQueries(self.rows[chosen], self.documents[chosen])

    def is_in(self, others: "OfQueries") -> NDArray[np.bool_]:
        """Bool (N,): which of them are among others."""
        both = np.concatenate([self.documents, others.documents])
        width = int(both.max(initial=0)) + 1
        found: NDArray[np.bool_] = np.isin(
            self.rows * width + self.documents, others.rows * width + others.documents
        )
        return found


NOTHING = OfQueries(np.empty(0, np.int64), np.empty(0, np.int64))


def same_names(query_names: pa.Array, document_names: pa.Array) -> OfQueries:
    """The document that has the id of each query, where there is one."""
    documents = find_rows(query_names, document_names)
    rows = np.flatnonzero(documents >= 0)
    return OfQueries(rows, documents[rows])


def same_texts(query_digests: pa.Array, text_digests: pa.Array, documents: Ragged) -> OfQueries:
    """The documents that have the text of each query."""
    texts = find_rows(query_digests, text_digests)
    rows = np.flatnonzero(texts >= 0)
    found, _ = documents.take(texts[rows])
    return OfQueries(np.repeat(rows, found.lengths()), found.values)


def left_out(
    how: OwnPassages,
    num_queries: int,
    of_text: OfQueries,
    of_name: OfQueries,
    agrees: NDArray[np.bool_],
    positives: OfQueries,
) -> LeftOut:
    """Decide which passages are not ranked.

    A passage that is judged a positive of a query is ranked whatever its text and id, but for
    `ids`, which does what BEIR does.

    Args:
        how: What is asked for.
        num_queries: Queries.
        of_text: Passages with the text of the query.
        of_name: Passages with the id of the query.
        agrees: Bool, of each of `of_name`: whether the texts say that it is the query's own.
        positives: What is relevant.
    """
    if how == "ranked":
        return LeftOut(ragged_sets(NOTHING.rows, NOTHING.documents, num_queries))
    if how == "ids":
        return LeftOut(ragged_sets(of_name.rows, of_name.documents, num_queries))
    is_positive = of_name.is_in(positives)
    strangers = ~is_positive & ~agrees
    # Where ids are shared, an own passage whose text was edited is an own passage still.
    shared = agrees[~is_positive].sum() >= _SHARED * max(1, (~is_positive).sum())
    if shared:
        own, num_other_texts = of_name.filter(agrees | strangers), 0
    else:
        own, num_other_texts = of_name.filter(agrees), int(strangers.sum())
    rows = np.concatenate([of_text.rows, own.rows])
    documents = np.concatenate([of_text.documents, own.documents])
    both = ragged_sets(rows, documents, num_queries)
    found = OfQueries(np.repeat(np.arange(num_queries), both.lengths()), both.values)
    kept = found.is_in(positives)
    away = found.filter(~kept)
    return LeftOut(
        ragged_sets(away.rows, away.documents, num_queries), int(kept.sum()), num_other_texts
    )


def texts_agree(queries: pa.Array, passages: pa.Array) -> NDArray[np.bool_]:
    """Bool (N,): whether one text holds the other, as a question and its passage with a title.

    Args:
        queries: (N,) texts.
        passages: (N,) texts.
    """
    both = (normalise(texts).to_pylist() for texts in (queries, passages))
    pairs = ((one.casefold(), other.casefold()) for one, other in zip(*both, strict=True))
    return np.array([one in other or other in one for one, other in pairs], np.bool_)

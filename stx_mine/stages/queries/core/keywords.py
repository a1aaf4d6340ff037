"""Keyword queries: the terms of a passage that weigh most in BM25, in the order of the text."""

from collections.abc import Iterable
from dataclasses import dataclass
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from stx_mine.core.terms import Span, merged_spans, term_of, terms

# A term's place in the table: two of a million terms share one in five; they weigh a bit less.
_PLACES = 1 << 22
K1, B = 1.5, 0.75


@dataclass(frozen=True)
class TermStatistics:
    """How often terms occur in a corpus, in a table of fixed size.

    Attributes:
        documents: int64 (2^22,) number of passages that hold a term of each hash.
        num_passages: Passages counted.
        num_terms: Terms of all of them, repeats included.
    """

    documents: NDArray[np.int64]
    num_passages: int
    num_terms: int

    @classmethod
    def of(cls, passages: Iterable[str]) -> "TermStatistics":
        """Count a stream of passages."""
        documents, num_passages, num_terms = np.zeros(_PLACES, np.int64), 0, 0
        for text in passages:
            spans = terms(text)
            places = {_place(term_of(text, span)) for span in spans}
            documents[list(places)] += 1
            num_passages += 1
            num_terms += len(spans)
        return cls(documents, num_passages, num_terms)

    def to_array(self) -> NDArray[np.int64]:
        """One array of all; `from_array` reads it."""
        return np.concatenate([[self.num_passages, self.num_terms], self.documents])

    @classmethod
    def from_array(cls, array: NDArray[np.int64]) -> "TermStatistics":
        """What `to_array` made."""
        return cls(array[2:], int(array[0]), int(array[1]))

    def weights(self, text: str) -> list[tuple[float, Span]]:
        """BM25 weight of each distinct term of a passage, at its first place, in order of these.

        Lucene's form, as in `search.bm25`: idf = ln(1 + (N - n + 0.5) / (n + 0.5)).
        """
        spans = terms(text)
        first, counts = dict[str, Span](), dict[str, int]()
        for span in spans:
            term = term_of(text, span)
            first.setdefault(term, span)
            counts[term] = counts.get(term, 0) + 1
        found = self.documents[[_place(term) for term in first]]
        idf = np.log1p((self.num_passages - found + 0.5) / (found + 0.5))
        mean = self.num_terms / max(self.num_passages, 1)
        length = 1 - B + B * len(spans) / max(mean, 1e-9)
        repeats = np.array(list(counts.values()), float)
        weights = idf * repeats / (repeats + K1 * length)
        return list(zip(weights.tolist(), first.values(), strict=True))


def keywords(
    text: str, statistics: TermStatistics, num_terms: int, num_queries: int, min_terms: int
) -> list[str]:
    """Queries of the weightiest terms of a passage.

    Args:
        text: The passage.
        statistics: Of its corpus.
        num_terms: Terms of a query.
        num_queries: Queries, at most. They share no term: by weight, the first term goes to the
            first query, the second to the second, and so on in turn.
        min_terms: A query of fewer terms is not made.

    Returns:
        The queries; each holds its terms as the passage spells them, in their order there, and
        terms that overlap (of scripts without spaces) as one. At most half of the distinct terms
        of a passage are used. Ties go to the earlier term.
    """
    weighed = sorted(statistics.weights(text), key=lambda one: (-one[0], one[1]))
    best = [span for _, span in weighed[: min(num_terms * num_queries, len(weighed) // 2)]]
    queries = [best[number::num_queries] for number in range(num_queries)]
    return [
        " ".join(text[start:end] for start, end in merged_spans(spans))
        for spans in queries
        if len(spans) >= min_terms
    ]


def _place(term: str) -> int:
    return crc32(term.encode("utf-8", "surrogatepass")) % _PLACES

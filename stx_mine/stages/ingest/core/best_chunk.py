"""The chunk of a document that answers a query best, by BM25 among its chunks."""

from collections import Counter
from collections.abc import Iterable, Sequence
from math import log

from stx_mine.core.terms import term_of, terms

_K1, _B = 1.2, 0.75


def term_counts(text: str) -> Counter[str]:
    """How often each term stands in a text."""
    return Counter(term_of(text, span) for span in terms(text))


def best_chunk(query: Iterable[str], chunks: Sequence[Counter[str]]) -> int | None:
    """The chunk with the highest BM25 score among those of its document.

    A term counts by how few of the chunks hold it, so that what the whole document is about says
    little, and no other document matters.

    Args:
        query: Terms of the query.
        chunks: Terms of each chunk, in order; at least one.

    Returns:
        The number of the chunk, the first of equals; None where the query shares no term with any.

    Source: Robertson, Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond".
    """
    lengths = [chunk.total() for chunk in chunks]
    mean = max(sum(lengths) / len(chunks), 1.0)
    scores = [0.0] * len(chunks)
    for term in dict.fromkeys(query):
        holders = [number for number, chunk in enumerate(chunks) if term in chunk]
        rareness = log(1 + (len(chunks) - len(holders) + 0.5) / (len(holders) + 0.5))
        for number in holders:
            count = chunks[number][term]
            room = _K1 * (1 - _B + _B * lengths[number] / mean)
            scores[number] += rareness * count * (_K1 + 1) / (count + room)
    best = max(range(len(chunks)), key=scores.__getitem__)
    return best if scores[best] > 0 else None

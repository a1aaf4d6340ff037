"""The ids that `texts/` holds beside the texts, for passages as given or cut."""

from dataclasses import asdict, dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from stx_mine.stages.ingest.core.drop_reasons import drop_reasons, num_by_reason
from stx_mine.stages.ingest.counts import ChunkCounts, IngestCounts, PairCounts
from stx_mine.stages.ingest.documents import Chunked
from stx_mine.stages.ingest.numbering import text_ids_of
from stx_mine.stages.ingest.pairs import Ingested
from stx_mine.stages.ingest.positives import Positives

_AnyPairCounts = TypeVar("_AnyPairCounts", bound=PairCounts)


@dataclass(frozen=True)
class Numbered:
    """Pairs and negatives in ids of passages.

    Attributes:
        pairs: int64 (N, 2) query_id, passage_id.
        pair_sources: int16 (N,) number of the source of each pair.
        negatives: int64 (M, 2) query_id, passage_id of known negatives, distinct.
        query_texts: int64 (num queries,) the passage of equal text, or an id after all passages.
        first_chunks: int64 (num passages,) the first passage of the first document that each comes
            from; None where each is a document.
        other_positives: int64 (K, 2) query_id, passage_id of known positives that are no pairs and
            of no group of one: other chunks, or the reverse of pairs.
        passages_of: int64 ids of the passages of each source, each id once.
        first_documents: int64 (num passages,) the first document that each passage comes from.
        counts: As of `Ingested`.
        counts_by_source: As of `Ingested`.
    """

    pairs: NDArray[np.int64]
    pair_sources: NDArray[np.int16]
    negatives: NDArray[np.int64]
    query_texts: NDArray[np.int64]
    first_chunks: NDArray[np.int64] | None
    other_positives: NDArray[np.int64]
    passages_of: list[NDArray[np.int64]]
    first_documents: NDArray[np.int64]
    counts: IngestCounts
    counts_by_source: list[PairCounts]

    @classmethod
    def whole(cls, found: Ingested, groups: NDArray[np.int64] | None = None) -> "Numbered":
        """Every document is a passage.

        Args:
            found: What was read.
            groups: int64 (num passages,) the first passage of the document of which each is a
                chunk, as the input says; None where it says nothing.
        """
        kept = np.ones(len(found.pairs), bool)
        counts, by_source = found.counts, found.counts_by_source
        if groups is not None:
            query_groups = _groups_of_queries(found.query_texts, groups)
            reasons = drop_reasons(found.pairs, found.pair_sources, query_groups, groups)
            kept = reasons == 0
            counts = _less(counts, reasons)
            by_source = [
                _less(one, reasons[found.pair_sources == number])
                for number, one in enumerate(by_source)
            ]
        return cls(
            pairs=found.pairs[kept],
            pair_sources=found.pair_sources[kept],
            negatives=found.negatives,
            query_texts=found.query_texts,
            first_chunks=groups,
            other_positives=found.reverse_positives,
            passages_of=found.texts_of["passage"],
            first_documents=np.arange(len(found.passages.digests)),
            counts=counts,
            counts_by_source=by_source,
        )

    @classmethod
    def cut(
        cls,
        found: Ingested,
        chunked: Chunked,
        positives: Positives,
        counts_as: NDArray[np.int64] | None = None,
    ) -> "Numbered":
        """Documents are chunks, which are the passages; their ids are new.

        Args:
            found: What was read.
            chunked: The chunks.
            positives: Which of them are positives.
            counts_as: As of `Chunked.groups`.
        """
        groups = chunked.groups(counts_as)
        query_texts = text_ids_of(found.queries.digests, chunked.digests)
        query_groups = _groups_of_queries(query_texts, groups)
        pairs = np.stack([found.pairs[positives.rows, 0], positives.passage_ids], axis=1)
        sources = found.pair_sources[positives.rows]
        reasons = drop_reasons(pairs, sources, query_groups, groups)
        kept = reasons == 0
        of_pairs = _reasons_of_pairs(positives.rows, reasons, len(found.pairs))
        negatives, _ = chunked.passage_ids.take(found.negatives[:, 1])
        queries = np.repeat(found.negatives[:, 0], negatives.lengths())
        return cls(
            pairs=pairs[kept],
            pair_sources=sources[kept],
            negatives=np.unique(np.stack([queries, negatives.values], axis=1), axis=0),
            query_texts=query_texts,
            first_chunks=groups,
            other_positives=_others(found.pairs, pairs[kept], chunked, groups),
            passages_of=[chunked.of(one) for one in found.texts_of["passage"]],
            first_documents=chunked.owners(),
            counts=replace(
                _less(found.counts, of_pairs),
                passages=chunked.num_passages,
                of_chunks=ChunkCounts(
                    **asdict(chunked.counts),
                    pair_rows=int(kept.sum()),
                    positives_by_words=positives.num_by_words,
                    positives_without_words=positives.num_without_words,
                ),
            ),
            counts_by_source=[
                _less(counts, of_pairs[found.pair_sources == number])
                for number, counts in enumerate(found.counts_by_source)
            ],
        )


def _groups_of_queries(
    query_texts: NDArray[np.int64], groups: NDArray[np.int64]
) -> NDArray[np.int64]:
    """int64 (num queries,): the group of the passage of equal text, or the text itself."""
    found = query_texts.copy()
    in_corpus = query_texts < len(groups)
    found[in_corpus] = groups[query_texts[in_corpus]]
    return found


def _others(
    documents: NDArray[np.int64],
    pairs: NDArray[np.int64],
    chunked: Chunked,
    groups: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Chunks of positive documents that are of an earlier document's group, and of no pair's."""
    chunks, _ = chunked.passage_ids.take(documents[:, 1])
    queries = np.repeat(documents[:, 0], chunks.lengths())
    width = len(groups)
    known = np.isin(
        queries * width + groups[chunks.values], pairs[:, 0] * width + groups[pairs[:, 1]]
    )
    return np.unique(np.stack([queries, chunks.values], axis=1)[~known], axis=0)


def _reasons_of_pairs(
    pair_of_row: NDArray[np.int64], reasons: NDArray[np.int8], num_pairs: int
) -> NDArray[np.int8]:
    """Why each pair is dropped once its rows are known.

    A pair is kept if one of its rows is, and dropped for the reason of its first row.
    """
    is_kept = np.bincount(pair_of_row, reasons == 0, num_pairs) > 0
    _, first = np.unique(pair_of_row, return_index=True)
    return np.where(is_kept, 0, reasons[first]).astype(np.int8)


def _less(counts: _AnyPairCounts, reasons: NDArray[np.int8]) -> _AnyPairCounts:
    return counts.less({name: n for name, n in num_by_reason(reasons).items() if n})

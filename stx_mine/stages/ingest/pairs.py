"""Read pairs: number the texts of all sources, join their pairs, count every row dropped."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stx_mine import progress
from stx_mine.errors import InputError
from stx_mine.inputs.pairs import PairSource
from stx_mine.stages.ingest.core.drop_reasons import drop_reasons, num_by_reason
from stx_mine.stages.ingest.core.reverse_pairs import reverse_of
from stx_mine.stages.ingest.counts import IngestCounts, PairCounts
from stx_mine.stages.ingest.numbering import (
    Distinct,
    merge_distinct,
    text_ids_of,
    translated,
)
from stx_mine.stages.ingest.report import named_reasons
from stx_mine.stages.ingest.source_rows import SourceRows


@dataclass(frozen=True)
class Ingested:
    """Everything that ingest reads, before it is written.

    Attributes:
        passages: The passages, numbered.
        queries: The queries, numbered.
        pairs: int64 (N, 2): query_id, passage_id of the kept pairs.
        negatives: int64 (M, 2): query_id, passage_id of known negatives, distinct.
        query_texts: int64 (num queries,) the passage of equal text, or an id after all passages.
        reverse_positives: int64 (K, 2): query_id, passage_id of known positives that are no pairs:
            the reverse of pairs that hold both ways.
        counts: Pairs in, kept, dropped by reason, and distinct texts.
        pair_sources: int16 (N,) number of the source of each kept pair.
        texts_of: "query", "passage" -> int64 ids of the texts of each source, each id once.
        counts_by_source: The counts of pairs of each source.
        notes: What was decided about labels.
        num_broken: Texts that are no Unicode, which count as empty.
        judgements: Every row of the qrels as it stands: `query` and `passage` (original ids),
            `grade` (float64); None for pairs of texts, for several sources, and for training.
    """

    passages: Distinct
    queries: Distinct
    pairs: NDArray[np.int64]
    negatives: NDArray[np.int64]
    query_texts: NDArray[np.int64]
    reverse_positives: NDArray[np.int64]
    counts: IngestCounts
    pair_sources: NDArray[np.int16]
    texts_of: dict[str, list[NDArray[np.int64]]]
    counts_by_source: list[PairCounts]
    notes: list[str]
    num_broken: int
    judgements: pa.Table | None = None


def read_source(source: PairSource, for_training: bool = True) -> Ingested:
    """Number texts, join pairs, drop what cannot be trained on, and count it.

    Args:
        source: What to read.
        for_training: Whether qrels of which no pair can be trained on are refused.

    Raises:
        InputError: No pair is left, or qrels name unknown ids.
    """
    return read_sources([source], for_training)


def read_sources(sources: Sequence[PairSource], for_training: bool = True) -> Ingested:
    """Number the texts of all sources as those of one, in the order of the sources.

    Raises:
        InputError: No pair is left in a source, or qrels name unknown ids.
    """
    parts = [_rows_of(source) for source in sources]
    passages, passage_ids = merge_distinct([part.passages for part in parts])
    queries, query_ids = merge_distinct([part.queries for part in parts])
    query_texts = text_ids_of(queries.digests, passages.digests)
    numbers = np.repeat(np.arange(len(parts)), [len(part.query_ids) for part in parts])
    pairs = np.stack(
        [
            translated(query_ids, [part.query_ids for part in parts]),
            translated(passage_ids, [part.passage_ids for part in parts]),
        ],
        axis=1,
    )
    reasons = drop_reasons(pairs, numbers, query_texts)
    by_source = [_pair_counts(part, reasons[numbers == s], s) for s, part in enumerate(parts)]
    for source, one, part in zip(sources, by_source, parts, strict=True):
        if for_training or not source.has_judgements:
            _refuse_empty(source, one, part.unknown)
    negatives = _known_negatives(
        translated(query_ids, [part.negatives[0] for part in parts]),
        translated(passage_ids, [part.negatives[1] for part in parts]),
    )
    kept = pairs[reasons == 0]
    holds_both_ways = np.array([source.symmetric for source in sources])[numbers[reasons == 0]]
    reverse_positives = reverse_of(kept, holds_both_ways, query_texts, len(passages.digests))
    corpus = translated(passage_ids, [part.passages.ids[: part.corpus_rows] for part in parts])
    counts = IngestCounts(
        **asdict(PairCounts.total(by_source)),
        queries=len(queries.digests),
        passages=len(passages.digests),
        corpus_rows=len(corpus),
        corpus_empty=int((corpus < 0).sum()),
        known_negatives=len(negatives),
        passages_only_in_pairs=len(passages.digests) - _num_distinct(corpus),
        reverse_positives=len(reverse_positives),
    )
    return Ingested(
        passages=passages,
        queries=queries,
        pairs=kept,
        negatives=negatives,
        query_texts=query_texts,
        reverse_positives=reverse_positives,
        counts=counts,
        pair_sources=numbers[reasons == 0].astype(np.int16),
        texts_of={
            role: [one[:-1] for one in ids]
            for role, ids in (("query", query_ids), ("passage", passage_ids))
        },
        counts_by_source=by_source,
        notes=[note for part in parts for note in part.notes],
        num_broken=sum(part.num_broken for part in parts),
        judgements=None if for_training or len(parts) > 1 else _judgements(sources[0]),
    )


def _rows_of(source: PairSource) -> SourceRows:
    with progress.step(f"reading {source.pairs.name}"):
        return SourceRows.read(source)


def _judgements(source: PairSource) -> pa.Table | None:
    """Every row of the qrels, if the source has them."""
    if not source.has_judgements:
        return None
    text = pa.large_string()
    schema = pa.schema([("query", text), ("passage", text), ("grade", pa.float64())])
    batches = [pa.record_batch(list(arrays), schema=schema) for arrays in source.judgements()]
    return pa.Table.from_batches(batches, schema).combine_chunks()


def _known_negatives(
    query_ids: NDArray[np.int64], passage_ids: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The distinct (query_id, passage_id) of known negatives; empty texts are none."""
    found = np.stack([query_ids, passage_ids], axis=1)
    return np.unique(found[(found >= 0).all(axis=1)], axis=0)


def _pair_counts(part: SourceRows, reasons: NDArray[np.int8], number: int) -> PairCounts:
    """Counts of the source of this number; in the first none is in an earlier source."""
    dropped = part.dropped | num_by_reason(reasons)
    if number == 0:
        del dropped["in_an_earlier_source"]
    num_read = len(reasons) + sum(part.dropped.values())
    return PairCounts(num_read, int((reasons == 0).sum()), dropped)


def _refuse_empty(source: PairSource, counts: PairCounts, unknown: str) -> None:
    if counts.pairs_kept:
        return
    reasons = named_reasons(counts) if counts.pairs_in else "no rows"
    way = f"{unknown}; correct those of one side" if unknown else "check its columns"
    if counts.pairs_dropped.get("known_negative") == counts.pairs_in > 0:
        way = "give --label-column none if its labels mean something else"
    raise InputError(f"no usable pair in {source.pairs.name} ({reasons}); {way}")


def _num_distinct(ids: NDArray[np.int64]) -> int:
    return len(np.unique(ids[ids >= 0]))

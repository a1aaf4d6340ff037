"""Read pairs: number the texts of all sources, join their pairs, count every row dropped."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stx_mine.errors import InputError
from stx_mine.inputs.beir import BeirFolder
from stx_mine.inputs.pairs import PairSource
from stx_mine.stages.ingest.core.drop_reasons import drop_reasons, num_by_reason
from stx_mine.stages.ingest.counts import IngestCounts, PairCounts
from stx_mine.stages.ingest.numbering import (
    Distinct,
    merge_distinct,
    number_texts,
    text_ids_of,
    translated,
)
from stx_mine.stages.ingest.report import named_reasons

_NONE = np.empty(0, np.int64)


@dataclass(frozen=True)
class Ingested:
    """Everything that ingest reads, before it is written.

    Attributes:
        passages: The passages, numbered.
        queries: The queries, numbered.
        pairs: int64 (N, 2): query_id, passage_id of the kept pairs.
        negatives: int64 (M, 2): query_id, passage_id of known negatives, distinct.
        query_texts: int64 (num queries,) the passage of equal text, or an id after all passages.
        counts: Pairs in, kept, dropped by reason, and distinct texts.
        pair_sources: int16 (N,) number of the source of each kept pair.
        texts_of: "query", "passage" -> int64 ids of the texts of each source, each id once.
        counts_by_source: The counts of pairs of each source.
        judgements: Every row of the qrels as it stands: `query` and `passage` (original ids),
            `grade` (float64); None for pairs of texts, and for several sources.
    """

    passages: Distinct
    queries: Distinct
    pairs: NDArray[np.int64]
    negatives: NDArray[np.int64]
    query_texts: NDArray[np.int64]
    counts: IngestCounts
    pair_sources: NDArray[np.int16]
    texts_of: dict[str, list[NDArray[np.int64]]]
    counts_by_source: list[PairCounts]
    judgements: pa.Table | None = None


@dataclass(frozen=True)
class _Part:
    """The rows of one source, ids counted within it.

    Attributes:
        passages: Its passages.
        queries: Its queries.
        query_ids: int64 (rows,); -1 for an empty text.
        passage_ids: int64 (rows,); -1 for an empty text.
        negatives: int64 (rows,) of each column of known negatives.
        corpus_rows: Rows of passages that stand before those of pairs.
        dropped: Rows that are not among `query_ids`, by reason.
        judgements: As of `Ingested`.
    """

    passages: Distinct
    queries: Distinct
    query_ids: NDArray[np.int64]
    passage_ids: NDArray[np.int64]
    negatives: tuple[NDArray[np.int64], ...]
    corpus_rows: int
    dropped: dict[str, int]
    judgements: pa.Table | None = None

    @classmethod
    def read(cls, source: PairSource) -> "_Part":
        passages = number_texts(source.passages())
        if source.beir:
            dropped: dict[str, int] = {}
            judgements = _judgements(source.beir)
            named, raw_pairs = _beir_pairs(source, judgements, passages, dropped)
            queries = number_texts(source.queries(), wanted=named)
            joined = _join(raw_pairs[0], queries, source.beir.queries.path, source.beir.qrels.path)
            rows = joined, raw_pairs[1], ()
            return cls(passages, queries, *rows, len(passages.ids), dropped, judgements)
        queries = number_texts(source.queries())
        num_rows, num_columns = len(queries.ids), 1 + len(source.negative_columns)
        corpus_rows = len(passages.ids) - num_rows * num_columns
        positives, *negatives = passages.ids[corpus_rows:].reshape(num_columns, num_rows)
        return cls(passages, queries, queries.ids, positives, tuple(negatives), corpus_rows, {})


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
    parts = [_Part.read(source) for source in sources]
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
    for source, part, one in zip(sources, parts, by_source, strict=True):
        if for_training or part.judgements is None:
            _refuse_empty(source, one)
    negatives = _known_negatives(
        translated(query_ids, [np.tile(one.query_ids, len(one.negatives)) for one in parts]),
        translated(passage_ids, [np.concatenate([_NONE, *one.negatives]) for one in parts]),
    )
    corpus = translated(passage_ids, [part.passages.ids[: part.corpus_rows] for part in parts])
    counts = IngestCounts(
        **asdict(PairCounts.total(by_source)),
        queries=len(queries.digests),
        passages=len(passages.digests),
        corpus_rows=len(corpus),
        corpus_empty=int((corpus < 0).sum()),
        known_negatives=len(negatives),
        passages_only_in_pairs=len(passages.digests) - _num_distinct(corpus),
    )
    return Ingested(
        passages=passages,
        queries=queries,
        pairs=pairs[reasons == 0],
        negatives=negatives,
        query_texts=query_texts,
        counts=counts,
        pair_sources=numbers[reasons == 0].astype(np.int16),
        texts_of={
            role: [one[:-1] for one in ids]
            for role, ids in (("query", query_ids), ("passage", passage_ids))
        },
        counts_by_source=by_source,
        judgements=parts[0].judgements if len(parts) == 1 else None,
    )


def _judgements(beir: BeirFolder) -> pa.Table:
    """Every row of the qrels; no grade is 0."""
    text = pa.large_string()
    schema = pa.schema([("query", text), ("passage", text), ("grade", pa.float64())])
    batches = [
        pa.record_batch([queries, passages, pc.fill_null(grades, 0.0)], schema=schema)
        for queries, passages, grades in beir.judgements()
    ]
    return pa.Table.from_batches(batches, schema).combine_chunks()


def _beir_pairs(
    source: PairSource, judgements: pa.Table, passages: Distinct, dropped: dict[str, int]
) -> tuple[pa.Array, tuple[pa.Array, NDArray[np.int64]]]:
    """Judgements of a high enough grade: (distinct query ids, (query ids, passage_ids))."""
    beir = source.beir
    assert beir is not None
    positive = pc.greater(judgements["grade"], 0.0)
    if source.min_grade is not None:
        positive = pc.greater_equal(judgements["grade"], source.min_grade)
    queries = judgements["query"].filter(positive).combine_chunks()
    kept = judgements["passage"].filter(positive).combine_chunks()
    reason = "not_relevant" if source.min_grade is None else "below_min_grade"
    dropped[reason] = len(positive) - len(queries)
    joined = _join(kept, passages, beir.corpus.path, beir.qrels.path)
    return queries.unique(), (queries, joined)


def _join(
    wanted: pa.Array, texts: Distinct, text_path: Path, qrels_path: Path
) -> NDArray[np.int64]:
    """Text ids of original ids.

    Raises:
        InputError: An id that the text file does not have.
    """
    rows = pc.index_in(wanted, value_set=texts.original_ids.combine_chunks())
    if rows.null_count:
        unknown = wanted.filter(pc.is_null(rows))
        raise InputError(
            f"{qrels_path} names id {unknown[0].as_py()!r}, which is not in {text_path.name} "
            f"({rows.null_count:,} such rows); fix the qrels or add the text"
        )
    found: NDArray[np.int64] = texts.ids[rows.to_numpy(zero_copy_only=False)]
    return found


def _known_negatives(
    query_ids: NDArray[np.int64], passage_ids: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The distinct (query_id, passage_id) of known negatives; empty texts are none."""
    found = np.stack([query_ids, passage_ids], axis=1)
    return np.unique(found[(found >= 0).all(axis=1)], axis=0)


def _pair_counts(part: _Part, reasons: NDArray[np.int8], number: int) -> PairCounts:
    """Counts of the source of this number; in the first none is in an earlier source."""
    dropped = part.dropped | num_by_reason(reasons)
    if number == 0:
        del dropped["in_an_earlier_source"]
    num_read = len(reasons) + sum(part.dropped.values())
    return PairCounts(num_read, int((reasons == 0).sum()), dropped)


def _refuse_empty(source: PairSource, counts: PairCounts) -> None:
    if not counts.pairs_kept:
        where = source.beir.qrels.path if source.beir else source.pairs and source.pairs.path
        reasons = named_reasons(counts) if counts.pairs_in else "no rows"
        raise InputError(f"no usable pair in {where} ({reasons}); check its columns")


def _num_distinct(ids: NDArray[np.int64]) -> int:
    return len(np.unique(ids[ids >= 0]))

"""Ingest: files in, distinct texts with ids, pairs and groups out; every dropped row counted."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stx_mine.artifacts.artifact import Artifact
from stx_mine.artifacts.files import write_array, write_table
from stx_mine.artifacts.pair_source import PairSource, TextStream
from stx_mine.artifacts.run_dir import RunDir
from stx_mine.artifacts.texts import (
    DIGEST,
    NEGATIVES,
    PAIR_SCHEMA,
    PAIRS,
    PASSAGE_GROUPS,
    PASSAGES,
    QUERIES,
    QUERY_GROUPS,
    text_digests,
    write_texts,
)
from stx_mine.config import IngestConfig, key_fields
from stx_mine.errors import ConfigError, InputError
from stx_mine.stages.report import StageReport, make_report, share


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


def number_texts(stream: TextStream, wanted: pa.Array | None = None) -> Distinct:
    """Number the distinct texts of a stream in order of first appearance.

    Args:
        stream: Batches of (texts, original ids).
        wanted: Original ids to keep; the others get id -1 (None: all).
    """
    digests, originals = [pa.array([], DIGEST)], [pa.array([], pa.large_string())]
    for texts, original_ids in stream:
        found = text_digests(texts)
        if wanted is not None:
            keep = pc.is_in(original_ids, value_set=wanted)
            found = pc.if_else(keep, found, pa.scalar(None, DIGEST))
        digests.append(found)
        originals.append(original_ids)
    encoded = pa.chunked_array(digests).combine_chunks().dictionary_encode()
    ids = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    return Distinct(ids, encoded.dictionary, pa.chunked_array(originals))


@dataclass(frozen=True)
class Ingested:
    """Everything that ingest found, before it is written.

    Attributes:
        passages: The passages, numbered.
        queries: The queries, numbered.
        pairs: int64 (N, 2): query_id, passage_id of the kept pairs.
        negatives: int64 (M, 2): query_id, passage_id of known negatives, distinct.
        query_groups: int64 (num queries,).
        counts: Rows in, kept, dropped by reason.
    """

    passages: Distinct
    queries: Distinct
    pairs: NDArray[np.int64]
    negatives: NDArray[np.int64]
    query_groups: NDArray[np.int64]
    counts: dict[str, Any]


def read_source(source: PairSource) -> Ingested:
    """Number texts, join pairs, drop what cannot be trained on, and count it.

    Raises:
        InputError: No pair is left, or qrels name unknown ids.
    """
    dropped: dict[str, int] = {}
    negatives = np.empty((0, 2), np.int64)
    passages = number_texts(source.passages())
    if source.beir:
        named, raw_pairs = _beir_pairs(source, passages, dropped)
        queries = number_texts(source.queries(), wanted=named)
        query_ids = _join(raw_pairs[0], queries, source.beir.queries.path, source.beir.qrels.path)
        passage_ids = raw_pairs[1]
        num_rows = len(query_ids) + sum(dropped.values())
        corpus_rows = len(passages.ids)
    else:
        queries = number_texts(source.queries())
        num_rows = len(queries.ids)
        corpus_rows = len(passages.ids) - num_rows * (1 + len(source.negative_columns))
        query_ids = queries.ids
        passage_ids, *columns = passages.ids[corpus_rows:].reshape(
            1 + len(source.negative_columns), num_rows
        )
        negatives = _known_negatives(query_ids, columns)
    query_groups = _query_groups(queries, passages)
    pairs = _clean_pairs(query_ids, passage_ids, query_groups, dropped)
    if not len(pairs):
        reasons = ", ".join(f"{name} {count:,}" for name, count in dropped.items() if count)
        where = source.beir.qrels.path if source.beir else source.pairs and source.pairs.path
        raise InputError(f"no usable pair in {where} ({reasons or 'no rows'}); check its columns")
    counts = {
        "pairs_in": num_rows,
        "pairs_kept": len(pairs),
        "pairs_dropped": dropped,
        "queries": len(queries.digests),
        "passages": len(passages.digests),
        "corpus_rows": corpus_rows,
        "corpus_empty": int((passages.ids[:corpus_rows] < 0).sum()),
        "known_negatives": len(negatives),
        "passages_only_in_pairs": len(passages.digests) - _num_distinct(passages.ids[:corpus_rows]),
    }
    return Ingested(passages, queries, pairs, negatives, query_groups, counts)


def run_ingest(config: IngestConfig) -> StageReport:
    """Read pairs (and a corpus) into `texts/`.

    Raises:
        ConfigError: No pairs are named.
        InputError: An input is missing or malformed.
        ArtifactError: `texts/` was made from something else.
    """
    if config.pairs is None:
        raise ConfigError("expected PAIRS, found none; name a file of pairs or a BEIR folder")
    source = PairSource.open(config.pairs, config, "train")
    run = RunDir(config.run_dir)
    fields = {**key_fields(config, "texts"), "content": source.fingerprint()}
    for path in ("pairs", "corpus"):
        fields.pop(path)
    with run.lock():
        artifact = Artifact(run, "texts", fields=fields, inputs={}, overwrite=config.overwrite)
        if artifact.done:
            return _report(artifact, skipped=True)
        found = read_source(source)
        files = [PASSAGES, QUERIES, PAIRS, PASSAGE_GROUPS, QUERY_GROUPS]
        files += [NEGATIVES] if source.negative_columns else []
        artifact.begin(files)
        folder = artifact.folder
        write_texts(folder / PASSAGES, _kept(source.passages(), found.passages))
        write_texts(folder / QUERIES, _kept(source.queries(), found.queries))
        for name, ids in ((PAIRS, found.pairs), (NEGATIVES, found.negatives)):
            if name in files:
                write_table(folder / name, pa.table([ids[:, 0], ids[:, 1]], schema=PAIR_SCHEMA))
        write_array(folder / PASSAGE_GROUPS, np.arange(len(found.passages.digests)))
        write_array(folder / QUERY_GROUPS, found.query_groups)
        artifact.finish(files, config=asdict(config), counts=found.counts)
        return _report(artifact)


def _kept(
    stream: TextStream, distinct: Distinct
) -> Iterator[tuple[pa.Array, pa.Array, NDArray[np.bool_]]]:
    first, start = distinct.first_rows(), 0
    for texts, original_ids in stream:
        yield texts, original_ids, first[start : start + len(texts)]
        start += len(texts)


def _num_distinct(ids: NDArray[np.int64]) -> int:
    return len(np.unique(ids[ids >= 0]))


def _beir_pairs(
    source: PairSource, passages: Distinct, dropped: dict[str, int]
) -> tuple[pa.Array, tuple[pa.Array, NDArray[np.int64]]]:
    """Judgements of a high enough grade: (distinct query ids, (query ids, passage_ids))."""
    beir = source.beir
    assert beir is not None
    query_ids, passage_ids, scores = [], [], []
    for one, two, three in beir.judgements():
        query_ids.append(one)
        passage_ids.append(two)
        scores.append(three)
    grades = pc.fill_null(pa.chunked_array(scores, pa.float64()), 0.0)
    positive = pc.greater(grades, 0.0)
    if source.min_grade is not None:
        positive = pc.greater_equal(grades, source.min_grade)
    text = pa.large_string()
    queries = pa.chunked_array(query_ids, text).filter(positive).combine_chunks()
    kept = pa.chunked_array(passage_ids, text).filter(positive).combine_chunks()
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
            f"({rows.null_count:,} such rows); mend the qrels or add the text"
        )
    found: NDArray[np.int64] = texts.ids[rows.to_numpy(zero_copy_only=False)]
    return found


def _query_groups(queries: Distinct, passages: Distinct) -> NDArray[np.int64]:
    """Group of each query: the passage of equal text, or one of its own after all passages."""
    same = pc.fill_null(pc.index_in(queries.digests, value_set=passages.digests), -1)
    own = len(passages.digests) + np.arange(len(queries.digests))
    found = same.to_numpy(zero_copy_only=False).astype(np.int64)
    return np.where(found >= 0, found, own)


def _clean_pairs(
    query_ids: NDArray[np.int64],
    passage_ids: NDArray[np.int64],
    query_groups: NDArray[np.int64],
    dropped: dict[str, int],
) -> NDArray[np.int64]:
    """Drop pairs without text, of a text with itself, and repetitions; keep the first ones."""
    no_query, no_passage = query_ids < 0, passage_ids < 0
    dropped["empty_query"] = int(no_query.sum())
    dropped["empty_passage"] = int((no_passage & ~no_query).sum())
    kept = ~(no_query | no_passage)
    query_ids, passage_ids = query_ids[kept], passage_ids[kept]
    same = query_groups[query_ids] == passage_ids
    dropped["query_is_its_passage"] = int(same.sum())
    pairs = np.stack([query_ids[~same], passage_ids[~same]], axis=1)
    first = np.sort(np.unique(pairs, axis=0, return_index=True)[1])
    dropped["repeated_pair"] = len(pairs) - len(first)
    return pairs[first]


def _known_negatives(
    query_ids: NDArray[np.int64], columns: list[NDArray[np.int64]]
) -> NDArray[np.int64]:
    """The distinct (query_id, passage_id) of all columns of negatives; empty texts are none."""
    pairs = [np.stack([query_ids, column], axis=1) for column in columns]
    found = np.concatenate([np.empty((0, 2), np.int64), *pairs])
    return np.unique(found[(found >= 0).all(axis=1)], axis=0)


def _report(artifact: Artifact, skipped: bool = False) -> StageReport:
    counts = artifact.result.counts
    reasons = ", ".join(f"{name} {n:,}" for name, n in counts["pairs_dropped"].items() if n)
    lines = [
        f"pairs: {counts['pairs_in']:,} read, {share(counts['pairs_kept'], counts['pairs_in'])} "
        f"kept, dropped: {reasons or 'none'}",
        f"texts: {counts['queries']:,} distinct queries, {counts['passages']:,} distinct passages "
        f"({counts['passages_only_in_pairs']:,} of them only in pairs)",
    ]
    if counts["known_negatives"]:
        lines.append(f"{counts['known_negatives']:,} known negatives, candidates of their queries")
    return make_report(artifact, lines, skipped=skipped)

"""Ingest: files in, distinct texts with ids, pairs and groups out; every dropped row counted."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
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
from stx_mine.artifacts.sources import SOURCE_FILES, SourceInfo, write_sources
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

# Why a pair is dropped, by the code in `_drop_reasons`; 0 is kept.
_REASONS = (
    "empty_query",
    "empty_passage",
    "query_is_its_passage",
    "repeated_pair",
    "in_an_earlier_source",
)
_NONE = np.empty(0, np.int64)


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
        pair_sources: int16 (N,) number of the source of each kept pair.
        texts_of: "query", "passage" -> int64 ids of the texts of each source, each id once.
        counts_by_source: The counts of pairs of each source.
    """

    passages: Distinct
    queries: Distinct
    pairs: NDArray[np.int64]
    negatives: NDArray[np.int64]
    query_groups: NDArray[np.int64]
    counts: dict[str, Any]
    pair_sources: NDArray[np.int16]
    texts_of: dict[str, list[NDArray[np.int64]]]
    counts_by_source: list[dict[str, Any]]


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
    """

    passages: Distinct
    queries: Distinct
    query_ids: NDArray[np.int64]
    passage_ids: NDArray[np.int64]
    negatives: tuple[NDArray[np.int64], ...]
    corpus_rows: int
    dropped: dict[str, int]

    @classmethod
    def read(cls, source: PairSource) -> "_Part":
        passages = number_texts(source.passages())
        if source.beir:
            dropped: dict[str, int] = {}
            named, raw_pairs = _beir_pairs(source, passages, dropped)
            queries = number_texts(source.queries(), wanted=named)
            joined = _join(raw_pairs[0], queries, source.beir.queries.path, source.beir.qrels.path)
            return cls(passages, queries, joined, raw_pairs[1], (), len(passages.ids), dropped)
        queries = number_texts(source.queries())
        num_rows, num_columns = len(queries.ids), 1 + len(source.negative_columns)
        corpus_rows = len(passages.ids) - num_rows * num_columns
        positives, *negatives = passages.ids[corpus_rows:].reshape(num_columns, num_rows)
        return cls(passages, queries, queries.ids, positives, tuple(negatives), corpus_rows, {})


def read_source(source: PairSource) -> Ingested:
    """Number texts, join pairs, drop what cannot be trained on, and count it.

    Raises:
        InputError: No pair is left, or qrels name unknown ids.
    """
    return read_sources([source])


def read_sources(sources: Sequence[PairSource]) -> Ingested:
    """Number the texts of all sources as those of one, in the order of the sources.

    Raises:
        InputError: No pair is left in a source, or qrels name unknown ids.
    """
    parts = [_Part.read(source) for source in sources]
    passages, passage_ids = _merged([part.passages for part in parts])
    queries, query_ids = _merged([part.queries for part in parts])
    query_groups = _query_groups(queries, passages)
    numbers = np.repeat(np.arange(len(parts)), [len(part.query_ids) for part in parts])
    pairs = np.stack(
        [
            _translated(query_ids, [part.query_ids for part in parts]),
            _translated(passage_ids, [part.passage_ids for part in parts]),
        ],
        axis=1,
    )
    reasons = _drop_reasons(pairs, numbers, query_groups)
    by_source = [_pair_counts(part, reasons[numbers == s], s) for s, part in enumerate(parts)]
    for source, one in zip(sources, by_source, strict=True):
        _refuse_empty(source, one)
    negatives = _known_negatives(
        _translated(query_ids, [np.tile(one.query_ids, len(one.negatives)) for one in parts]),
        _translated(passage_ids, [np.concatenate([_NONE, *one.negatives]) for one in parts]),
    )
    corpus = _translated(passage_ids, [part.passages.ids[: part.corpus_rows] for part in parts])
    counts = {
        **_sums(by_source),
        "queries": len(queries.digests),
        "passages": len(passages.digests),
        "corpus_rows": len(corpus),
        "corpus_empty": int((corpus < 0).sum()),
        "known_negatives": len(negatives),
        "passages_only_in_pairs": len(passages.digests) - _num_distinct(corpus),
    }
    return Ingested(
        passages,
        queries,
        pairs[reasons == 0],
        negatives,
        query_groups,
        counts,
        numbers[reasons == 0].astype(np.int16),
        {
            role: [one[:-1] for one in ids]
            for role, ids in (("query", query_ids), ("passage", passage_ids))
        },
        by_source,
    )


def run_ingest(config: IngestConfig) -> StageReport:
    """Read pairs (and a corpus), or several sources of them, into `texts/`.

    Raises:
        ConfigError: No pairs are named.
        InputError: An input is missing or malformed.
        ArtifactError: `texts/` was made from something else.
    """
    if config.pairs is None and config.sources is None:
        raise ConfigError(
            "expected PAIRS or --sources, found neither; name a file of pairs, a BEIR folder, or "
            "a YAML list of sources"
        )
    if config.pairs is not None:
        opened = [PairSource.open(config.pairs, config, "train")]
    else:
        opened = [PairSource.open(one.path, one, "train") for one in config.sources or ()]
    run = RunDir(config.run_dir)
    with run.lock():
        artifact = Artifact(
            run, "texts", fields=_key(config, opened), inputs={}, overwrite=config.overwrite
        )
        if artifact.done:
            return _report(artifact, skipped=True)
        _write(artifact, config, opened, read_sources(opened))
        return _report(artifact)


def _key(config: IngestConfig, opened: list[PairSource]) -> dict[str, Any]:
    """The settings that decide `texts/`; a file counts by its content, not by its path."""
    if config.sources is None:
        found = {**key_fields(config, "texts"), "content": opened[0].fingerprint()}
        return {name: v for name, v in found.items() if name not in ("pairs", "corpus", "sources")}
    found = {"sources": [one.name for one in config.sources]}
    for one, source in zip(config.sources, opened, strict=True):
        of_source = {**key_fields(one, "texts"), "content": source.fingerprint()}
        for name, value in of_source.items():
            if name not in ("name", "path", "corpus"):
                found[f"{one.name}.{name}"] = value
    return found


def _write(
    artifact: Artifact, config: IngestConfig, opened: list[PairSource], found: Ingested
) -> None:
    files = [PASSAGES, QUERIES, PAIRS, PASSAGE_GROUPS, QUERY_GROUPS]
    files += [NEGATIVES] if any(source.negative_columns for source in opened) else []
    files += SOURCE_FILES if config.sources else []
    artifact.begin(files)
    folder = artifact.folder
    passages = chain.from_iterable(source.passages() for source in opened)
    queries = chain.from_iterable(source.queries() for source in opened)
    write_texts(folder / PASSAGES, _kept(passages, found.passages))
    write_texts(folder / QUERIES, _kept(queries, found.queries))
    for name, ids in ((PAIRS, found.pairs), (NEGATIVES, found.negatives)):
        if name in files:
            write_table(folder / name, pa.table([ids[:, 0], ids[:, 1]], schema=PAIR_SCHEMA))
    write_array(folder / PASSAGE_GROUPS, np.arange(len(found.passages.digests)))
    write_array(folder / QUERY_GROUPS, found.query_groups)
    counts, extra = dict(found.counts), dict[str, Any]()
    if config.sources:
        infos = [SourceInfo(one.name, *one.prompts) for one in config.sources]
        numbers = {role: _first_sources(ids) for role, ids in found.texts_of.items()}
        write_sources(folder, infos, {"pair": found.pair_sources, **numbers})
        extra["weights"] = [one.weight for one in config.sources]
        by_source = zip(config.sources, found.counts_by_source, strict=True)
        counts["sources"] = {one.name: of_source for one, of_source in by_source}
        counts["texts_with_two_prompts"] = {
            role: _num_with_two_prompts(ids, [one.prompts[role] for one in infos])
            for role, ids in found.texts_of.items()
        }
    artifact.finish(files, config=asdict(config), counts=counts, extra=extra)


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


def _merged(parts: list[Distinct]) -> tuple[Distinct, list[NDArray[np.int64]]]:
    """Number the texts of several streams as those of one.

    Returns:
        The texts of all streams, and for each stream int64 (its distinct texts + 1,) its ids ->
        ids of all; the last entry is -1, so that -1 stays -1.
    """
    encoded = pa.chunked_array([part.digests for part in parts]).combine_chunks()
    encoded = encoded.dictionary_encode()
    numbers = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    borders = np.cumsum([len(part.digests) for part in parts])[:-1]
    ids = [np.append(one, -1) for one in np.split(numbers, borders)]
    originals = pa.chunked_array(
        [chunk for part in parts for chunk in part.original_ids.chunks], pa.large_string()
    )
    return Distinct(
        _translated(ids, [part.ids for part in parts]), encoded.dictionary, originals
    ), ids


def _translated(
    ids: list[NDArray[np.int64]], of_parts: list[NDArray[np.int64]]
) -> NDArray[np.int64]:
    """Ids within the parts -> ids of all, one part after the other."""
    return np.concatenate([one[part] for one, part in zip(ids, of_parts, strict=True)])


def _drop_reasons(
    pairs: NDArray[np.int64], sources: NDArray[np.int64], query_groups: NDArray[np.int64]
) -> NDArray[np.int8]:
    """Why each pair is dropped: without text, of a text with itself, a repetition; 0 is kept.

    Args:
        pairs: int64 (N, 2) query_id, passage_id; -1 for an empty text.
        sources: int64 (N,), rising.
        query_groups: int64 (num queries,).

    Returns:
        int8 (N,): 0, or 1 + the place in `_REASONS`. Of equal pairs the first is kept.
    """
    reasons = np.zeros(len(pairs), np.int8)
    reasons[pairs[:, 1] < 0] = 2
    reasons[pairs[:, 0] < 0] = 1
    whole = np.flatnonzero(reasons == 0)
    itself = query_groups[pairs[whole, 0]] == pairs[whole, 1]
    reasons[whole[itself]] = 3
    whole = whole[~itself]
    _, first, place = np.unique(pairs[whole], axis=0, return_index=True, return_inverse=True)
    first_rows = whole[first[place.reshape(-1)]]
    repeated = first_rows != whole
    elsewhere = sources[first_rows] < sources[whole]
    reasons[whole[repeated]] = np.where(elsewhere[repeated], 5, 4)
    return reasons


def _pair_counts(part: _Part, reasons: NDArray[np.int8], number: int) -> dict[str, Any]:
    """Pairs of a source in, kept, dropped; `number` counts the sources from 0."""
    found = np.bincount(reasons, minlength=len(_REASONS) + 1).tolist()
    dropped = {**part.dropped, **dict(zip(_REASONS, found[1:], strict=True))}
    if number == 0:
        del dropped["in_an_earlier_source"]
    return {
        "pairs_in": len(reasons) + sum(part.dropped.values()),
        "pairs_kept": found[0],
        "pairs_dropped": dropped,
    }


def _sums(by_source: list[dict[str, Any]]) -> dict[str, Any]:
    """The counts of `_pair_counts` over all sources."""
    reasons = dict.fromkeys(reason for one in by_source for reason in one["pairs_dropped"])
    return {
        "pairs_in": sum(one["pairs_in"] for one in by_source),
        "pairs_kept": sum(one["pairs_kept"] for one in by_source),
        "pairs_dropped": {
            reason: sum(one["pairs_dropped"].get(reason, 0) for one in by_source)
            for reason in reasons
        },
    }


def _refuse_empty(source: PairSource, counts: dict[str, Any]) -> None:
    if not counts["pairs_kept"]:
        where = source.beir.qrels.path if source.beir else source.pairs and source.pairs.path
        reasons = _named(counts["pairs_dropped"]) if counts["pairs_in"] else "no rows"
        raise InputError(f"no usable pair in {where} ({reasons}); check its columns")


def _first_sources(texts_of: list[NDArray[np.int64]]) -> NDArray[np.int16]:
    """int16 by id: number of the first source that has the text."""
    first = np.zeros(1 + max(int(ids.max(initial=-1)) for ids in texts_of), np.int16)
    for number, ids in reversed(list(enumerate(texts_of))):
        first[ids] = number
    return first


def _num_with_two_prompts(texts_of: list[NDArray[np.int64]], prompts: list[str | None]) -> int:
    """Texts that stand in sources of different prompts."""
    distinct = list(dict.fromkeys(prompts))
    by_prompt = [
        np.unique(
            np.concatenate([ids for ids, p in zip(texts_of, prompts, strict=True) if p == one])
        )
        for one in distinct
    ]
    return int((np.bincount(np.concatenate(by_prompt)) > 1).sum())


def _known_negatives(
    query_ids: NDArray[np.int64], passage_ids: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The distinct (query_id, passage_id) of known negatives; empty texts are none."""
    found = np.stack([query_ids, passage_ids], axis=1)
    return np.unique(found[(found >= 0).all(axis=1)], axis=0)


def _report(artifact: Artifact, skipped: bool = False) -> StageReport:
    counts = artifact.result.counts
    lines = [
        f"pairs: {counts['pairs_in']:,} read, {share(counts['pairs_kept'], counts['pairs_in'])} "
        f"kept, dropped: {_named(counts['pairs_dropped'])}",
        f"texts: {counts['queries']:,} distinct queries, {counts['passages']:,} distinct passages "
        f"({counts['passages_only_in_pairs']:,} of them only in pairs)",
    ]
    for name, one in counts.get("sources", {}).items():
        lines.append(
            f"source {name}: {one['pairs_in']:,} pairs read, {one['pairs_kept']:,} kept, dropped: "
            f"{_named(one['pairs_dropped'])}"
        )
    for role, number in counts.get("texts_with_two_prompts", {}).items():
        if number:
            lines.append(
                f"{number:,} {role} texts stand in sources of different {role} prompts: they are "
                "embedded with that of the first, and train with that of each batch"
            )
    if counts["known_negatives"]:
        lines.append(f"{counts['known_negatives']:,} known negatives, candidates of their queries")
    return make_report(artifact, lines, skipped=skipped)


def _named(dropped: dict[str, int]) -> str:
    return ", ".join(f"{name} {n:,}" for name, n in dropped.items() if n) or "none"

"""The files of `texts/`: texts, ids of pairs and negatives, languages, sources."""

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stx_mine.errors import InputError
from stx_mine.inputs.config import Source
from stx_mine.inputs.pairs import PairSource, TextStream, TitledStream
from stx_mine.stages.ingest.chunker import Chunker
from stx_mine.stages.ingest.config import IngestConfig
from stx_mine.stages.ingest.core.source_texts import first_sources, num_with_two_prompts
from stx_mine.stages.ingest.counts import LanguageCounts, SourceCounts
from stx_mine.stages.ingest.documents import DocumentStream, write_chunks
from stx_mine.stages.ingest.ids import Numbered
from stx_mine.stages.ingest.named_documents import NamedDocuments, names_documents
from stx_mine.stages.ingest.numbering import Distinct
from stx_mine.stages.ingest.pairs import Ingested
from stx_mine.stages.ingest.positives import choose_positives
from stx_mine.stages.ingest.report import named_reasons
from stx_mine.store.documents import DOCUMENTS
from stx_mine.store.files import read_table, write_array
from stx_mine.store.languages import (
    LANGUAGE_FILES,
    LanguageTable,
    first_languages,
    number_languages,
)
from stx_mine.store.sources import SOURCE_FILES, SourceInfo, write_sources
from stx_mine.store.texts import (
    FIRST_CHUNKS,
    NEGATIVES,
    OTHER_POSITIVES,
    PAIRS,
    PASSAGES,
    QUERIES,
    QUERY_TEXTS,
    write_pairs,
    write_texts,
)


def files_of(config: IngestConfig, opened: list[PairSource]) -> list[str]:
    """The names of the files that an input makes."""
    files = [PASSAGES, QUERIES, PAIRS, QUERY_TEXTS]
    files += [NEGATIVES] if any(source.has_negatives for source in opened) else []
    files += SOURCE_FILES if config.sources else []
    files += LANGUAGE_FILES if any(source.names_languages for source in opened) else []
    files += [DOCUMENTS] if config.chunk else []
    has_chunks = bool(config.chunk) or any(map(names_documents, opened))
    files += [FIRST_CHUNKS] if has_chunks else []
    has_others = bool(config.chunk) or any(source.symmetric for source in opened)
    files += [OTHER_POSITIVES] if has_others else []
    return files


def write_queries(folder: Path, opened: list[PairSource], ingested: Ingested) -> None:
    """Write the distinct queries."""
    queries = chain.from_iterable(source.queries() for source in opened)
    write_texts(folder / QUERIES, _kept(queries, ingested.queries))


def write_passages(
    folder: Path,
    config: IngestConfig,
    opened: list[PairSource],
    ingested: Ingested,
    chunker: Chunker | None,
    named: NamedDocuments | None,
) -> Numbered:
    """Write the distinct passages, whole or cut; the queries are there already.

    Args:
        folder: Folder of the texts.
        config: The config.
        opened: The sources.
        ingested: What was read of them.
        chunker: Cuts; None for whole passages.
        named: The documents of which passages are chunks, as the input says; None for none.

    Returns:
        The pairs and negatives in ids of these passages.

    Raises:
        InputError: No pair is left.
    """
    passages = chain.from_iterable(source.titled_passages() for source in opened)
    of_document = None if named is None else named.firsts
    if chunker is None:
        whole = ((texts, ids) for texts, ids, _ in passages)
        write_texts(folder / PASSAGES, _kept(whole, ingested.passages))
        return Numbered.whole(ingested, of_document)
    documents = _with_first(passages, ingested.passages)
    chunked = write_chunks(folder, PASSAGES, documents, chunker, config.title == "every")
    texts = read_table(folder / QUERIES), read_table(folder / PASSAGES)
    positives = choose_positives(ingested.pairs, chunked, config.positive_chunk, *texts)
    numbered = Numbered.cut(ingested, chunked, positives, of_document)
    if not len(numbered.pairs):
        raise InputError(
            f"no usable pair is left ({named_reasons(numbered.counts)}); check the columns"
        )
    return numbered


def write_ids(folder: Path, numbered: Numbered, files: list[str]) -> None:
    """Write those of `files` that hold ids: pairs, negatives, other positives, equal texts."""
    for name, ids in (
        (PAIRS, numbered.pairs),
        (NEGATIVES, numbered.negatives),
        (OTHER_POSITIVES, numbered.other_positives),
    ):
        if name in files:
            write_pairs(folder / name, ids[:, 0], ids[:, 1])
    if numbered.first_chunks is not None:
        write_array(folder / FIRST_CHUNKS, numbered.first_chunks)
    write_array(folder / QUERY_TEXTS, numbered.query_texts)


def write_languages(
    folder: Path, opened: list[PairSource], ingested: Ingested, numbered: Numbered
) -> LanguageCounts:
    """Write the language of each text."""
    columns = {
        role: list(chain.from_iterable(source.languages(role) for source in opened))
        for role in ("query", "passage")
    }
    names, numbers = number_languages([*columns["query"], *columns["passage"]])
    border = sum(map(len, columns["query"]))
    queries, num_queries = first_languages(
        ingested.queries.ids, numbers[:border], len(ingested.queries.digests)
    )
    documents, num_documents = first_languages(
        ingested.passages.ids, numbers[border:], len(ingested.passages.digests)
    )
    table = LanguageTable(names, queries, documents[numbered.first_documents])
    table.write(folder)
    return LanguageCounts(table.counts(), num_queries + num_documents)


def write_source_files(
    folder: Path, sources: Sequence[Source], ingested: Ingested, numbered: Numbered
) -> SourceCounts:
    """Write the prompts of the sources, and the source of each pair and text."""
    infos = [SourceInfo(source.name, *source.prompts) for source in sources]
    texts_of = {"query": ingested.texts_of["query"], "passage": numbered.passages_of}
    numbers = {role: first_sources(ids) for role, ids in texts_of.items()}
    write_sources(folder, infos, {"pair": numbered.pair_sources, **numbers})
    return SourceCounts(
        sources={
            source.name: counts
            for source, counts in zip(sources, numbered.counts_by_source, strict=True)
        },
        texts_with_two_prompts={
            role: num_with_two_prompts(ids, [info.prompts[role] for info in infos])
            for role, ids in texts_of.items()
        },
    )


def _with_first(stream: TitledStream, distinct: Distinct) -> DocumentStream:
    first, start = distinct.first_rows(), 0
    for texts, original_ids, titles in stream:
        yield texts, original_ids, titles, first[start : start + len(texts)]
        start += len(texts)


def _kept(
    stream: TextStream, distinct: Distinct
) -> Iterator[tuple[pa.Array, pa.Array, NDArray[np.bool_]]]:
    first, start = distinct.first_rows(), 0
    for texts, original_ids in stream:
        yield texts, original_ids, first[start : start + len(texts)]
        start += len(texts)

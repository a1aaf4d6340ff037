"""Ingest: files in, distinct texts with ids, pairs and groups out; every dropped row counted."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stx_mine.engine.task_shards import task_shard_of
from stx_mine.errors import ConfigError, InputError
from stx_mine.inputs.pairs import PairSource, TextStream, TitledStream
from stx_mine.settings import key_fields, names_of
from stx_mine.stages.ingest.chunker import Chunker
from stx_mine.stages.ingest.chunking import DocumentStream, choose_positives, write_chunks
from stx_mine.stages.ingest.config import ChunkFields, IngestConfig
from stx_mine.stages.ingest.ids import Numbered
from stx_mine.stages.ingest.numbering import Distinct
from stx_mine.stages.ingest.pairs import Ingested, named_reasons, read_sources
from stx_mine.store.artifact import Artifact
from stx_mine.store.documents import DOCUMENTS
from stx_mine.store.files import read_table, write_array, write_table
from stx_mine.store.groups import make_groups
from stx_mine.store.languages import (
    LANGUAGE_FILES,
    LANGUAGES,
    LanguageTable,
    first_languages,
    number_languages,
)
from stx_mine.store.report import StageReport, make_report, percent
from stx_mine.store.run_dir import RunDir
from stx_mine.store.sources import SOURCE_FILES, SourceInfo, write_sources
from stx_mine.store.texts import (
    FIRST_CHUNKS,
    NEGATIVES,
    OTHER_POSITIVES,
    PAIR_SCHEMA,
    PAIRS,
    PASSAGES,
    QUERIES,
    QUERY_TEXTS,
    write_texts,
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
    opened = open_input(config)
    chunker = _chunker(config)
    run = RunDir(config.run_dir)
    with run.lock(task_shard_of(config), begins=True), run.exclusive():
        artifact = Artifact(
            run,
            "texts",
            config,
            fields=_key(config, opened, chunker),
            inputs={},
            overwrite=config.overwrite,
        )
        skipped = artifact.done
        if not skipped:
            _write(artifact, config, opened, read_sources(opened), chunker)
        make_groups(run, artifact.result)
        return _report(artifact, skipped)


def open_input(config: IngestConfig) -> list[PairSource]:
    """PAIRS, or the sources, in their order; nothing where neither is named.

    Raises:
        InputError: An input is missing or malformed.
    """
    if config.pairs is not None:
        opened = [PairSource.open(config.pairs, config, "train").with_languages(config)]
    else:
        opened = [
            PairSource.open(one.path, one, "train").with_languages(one)
            for one in config.sources or ()
        ]
    return [replace(one, titles=config.title != "none") for one in opened]


def _chunker(config: IngestConfig) -> Chunker | None:
    """What cuts long passages, if they are to be cut."""
    name = config.tokenizer or config.embedding_model
    if not config.chunk or name is None:
        return None
    prompts = [one.passage_prompt for one in config.sources or ()] or [None]
    tokens, overlap = config.chunk
    return Chunker.load(name, tokens, overlap, prompts, config.kept_tokens)


def _key(config: IngestConfig, opened: list[PairSource], chunker: Chunker | None) -> dict[str, Any]:
    """The settings that decide `texts/`; a file or a tokenizer counts by its content."""
    given = key_fields(config, "texts")
    if chunker is not None:
        given["tokenizer"] = chunker.digest()
    if config.sources is None:
        found = {**given, "content": opened[0].fingerprint()}
        return {name: v for name, v in found.items() if name not in ("pairs", "corpus", "sources")}
    found = {name: given[name] for name in names_of(ChunkFields)}
    found |= {"sources": [one.name for one in config.sources]}
    for one, source in zip(config.sources, opened, strict=True):
        of_source = {**key_fields(one, "texts"), "content": source.fingerprint()}
        for name, value in of_source.items():
            if name not in ("name", "path", "corpus"):
                found[f"{one.name}.{name}"] = value
    return found


def _write(
    artifact: Artifact,
    config: IngestConfig,
    opened: list[PairSource],
    found: Ingested,
    chunker: Chunker | None,
) -> None:
    files = [PASSAGES, QUERIES, PAIRS, QUERY_TEXTS]
    files += [NEGATIVES] if any(source.negative_columns for source in opened) else []
    files += SOURCE_FILES if config.sources else []
    files += LANGUAGE_FILES if any(one.names_languages for one in opened) else []
    files += [DOCUMENTS, OTHER_POSITIVES, FIRST_CHUNKS] if chunker else []
    artifact.begin(files)
    folder = artifact.folder
    queries = chain.from_iterable(source.queries() for source in opened)
    write_texts(folder / QUERIES, _kept(queries, found.queries))
    numbered = _write_passages(folder, config, opened, found, chunker)
    for name, ids in (
        (PAIRS, numbered.pairs),
        (NEGATIVES, numbered.negatives),
        (OTHER_POSITIVES, numbered.other_positives),
    ):
        if name in files:
            write_table(folder / name, pa.table([ids[:, 0], ids[:, 1]], schema=PAIR_SCHEMA))
    if numbered.first_chunks is not None:
        write_array(folder / FIRST_CHUNKS, numbered.first_chunks)
    write_array(folder / QUERY_TEXTS, numbered.query_texts)
    counts, extra = dict(numbered.counts), dict[str, Any]()
    if LANGUAGES in files:
        counts |= _write_languages(folder, opened, found, numbered)
    if config.sources:
        infos = [SourceInfo(one.name, *one.prompts) for one in config.sources]
        texts_of = {"query": found.texts_of["query"], "passage": numbered.passages_of}
        numbers = {role: _first_sources(ids) for role, ids in texts_of.items()}
        write_sources(folder, infos, {"pair": numbered.pair_sources, **numbers})
        extra["weights"] = [one.weight for one in config.sources]
        by_source = zip(config.sources, numbered.counts_by_source, strict=True)
        counts["sources"] = {one.name: of_source for one, of_source in by_source}
        counts["texts_with_two_prompts"] = {
            role: _num_with_two_prompts(ids, [one.prompts[role] for one in infos])
            for role, ids in texts_of.items()
        }
    artifact.finish(files, counts=counts, extra=extra)


def _write_passages(
    folder: Path,
    config: IngestConfig,
    opened: list[PairSource],
    found: Ingested,
    chunker: Chunker | None,
) -> Numbered:
    """Write the passages, whole or cut."""
    passages = chain.from_iterable(source.titled_passages() for source in opened)
    if chunker is None:
        whole = ((texts, ids) for texts, ids, _ in passages)
        write_texts(folder / PASSAGES, _kept(whole, found.passages))
        return Numbered.whole(found)
    documents = _with_first(passages, found.passages)
    chunked = write_chunks(folder, PASSAGES, documents, chunker, config.title == "every")
    texts = read_table(folder / QUERIES), read_table(folder / PASSAGES)
    positives = choose_positives(found.pairs, chunked, config.positive_chunk, *texts)
    numbered = Numbered.cut(found, chunked, positives)
    if not len(numbered.pairs):
        raise InputError(
            f"no usable pair is left ({named_reasons(numbered.counts['pairs_dropped'])}); check "
            "the columns"
        )
    return numbered


def _write_languages(
    folder: Path, opened: list[PairSource], found: Ingested, numbered: Numbered
) -> dict[str, Any]:
    """Write the language of each text; returns what there is to count."""
    columns = {
        role: list(chain.from_iterable(one.languages(role) for one in opened))
        for role in ("query", "passage")
    }
    names, numbers = number_languages([*columns["query"], *columns["passage"]])
    border = sum(map(len, columns["query"]))
    queries, two = first_languages(found.queries.ids, numbers[:border], len(found.queries.digests))
    documents, more = first_languages(
        found.passages.ids, numbers[border:], len(found.passages.digests)
    )
    table = LanguageTable(names, queries, documents[numbered.first_documents])
    table.write(folder)
    return {"languages": table.counts(), "texts_with_two_languages": two + more}


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


def _chunk_lines(artifact: Artifact) -> list[str]:
    """What was cut, what would have been lost, and which chunks are positives."""
    counts, fields = artifact.result.counts, artifact.result.content["config"]
    tokens, lost = counts["document_tokens"], counts["tokens_lost_otherwise"]
    lines = [
        f"chunks of at most {fields['chunk'][0]:,} tokens: "
        f"{percent(counts['documents_cut'], counts['documents'])} of these passages cut into "
        f"{counts['chunks']:,}, {counts['passages']:,} in all; the model would not have read "
        f"{percent(lost, tokens)} of {tokens:,} tokens, of "
        f"{counts['documents_truncated_otherwise']:,} passages"
    ]
    if counts["positives_by_words"] or counts["positives_without_words"]:
        lines.append(
            f"positives of several chunks: {counts['positives_by_words']:,} are the chunk that "
            f"shares most with their query by words, {counts['positives_without_words']:,} share "
            "no word with it and are the first chunk"
        )
    if counts["pair_rows"] > counts["pairs_kept"]:
        lines.append(f"{counts['pair_rows']:,} pairs to train on, one a chunk of each positive")
    return lines


def _report(artifact: Artifact, skipped: bool = False) -> StageReport:
    counts = artifact.result.counts
    given = counts.get("documents", counts["passages"])
    lines = [
        f"pairs: {counts['pairs_in']:,} read, {percent(counts['pairs_kept'], counts['pairs_in'])} "
        f"kept, dropped: {named_reasons(counts['pairs_dropped'])}",
        f"texts: {counts['queries']:,} distinct queries, {given:,} distinct passages "
        f"({counts['passages_only_in_pairs']:,} of them only in pairs)",
    ]
    for name, one in counts.get("sources", {}).items():
        lines.append(
            f"source {name}: {one['pairs_in']:,} pairs read, {one['pairs_kept']:,} kept, dropped: "
            f"{named_reasons(one['pairs_dropped'])}"
        )
    for role, of_role in counts.get("languages", {}).items():
        named = sorted(of_role.items(), key=lambda one: -one[1])
        lines.append(f"languages of {role}: {', '.join(f'{name} {n:,}' for name, n in named if n)}")
    if counts.get("texts_with_two_languages"):
        lines.append(
            f"{counts['texts_with_two_languages']:,} texts stand under several languages, "
            "the first of which counts"
        )
    lines += _chunk_lines(artifact) if "documents_cut" in counts else []
    for role, number in counts.get("texts_with_two_prompts", {}).items():
        if number:
            lines.append(
                f"{number:,} {role} texts stand in sources of different {role} prompts: they are "
                "embedded with that of the first, and train with that of each batch"
            )
    if counts["known_negatives"]:
        lines.append(f"{counts['known_negatives']:,} known negatives, candidates of their queries")
    return make_report(artifact, lines, skipped=skipped)

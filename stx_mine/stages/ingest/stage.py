"""Ingest: files in, distinct texts with ids, pairs and groups out; every dropped row counted."""

from dataclasses import replace
from typing import Any

from stx_mine import progress
from stx_mine.engine.task_shards import task_shard_of
from stx_mine.errors import ConfigError
from stx_mine.inputs.pairs import PairSource
from stx_mine.models.config import AS_IT_IS, ModelFields
from stx_mine.settings import key_fields, names_of
from stx_mine.stages.ingest.chunker import Chunker
from stx_mine.stages.ingest.config import ChunkFields, IngestConfig
from stx_mine.stages.ingest.named_documents import NamedDocuments
from stx_mine.stages.ingest.pairs import read_sources
from stx_mine.stages.ingest.report import ingest_report
from stx_mine.stages.ingest.text_checks import text_counts
from stx_mine.stages.ingest.text_files import (
    files_of,
    write_ids,
    write_languages,
    write_passages,
    write_queries,
    write_source_files,
)
from stx_mine.store.artifact import Artifact
from stx_mine.store.files import read_table
from stx_mine.store.groups import lost_grouping, make_groups
from stx_mine.store.manifest import refuse_damaged
from stx_mine.store.places import refuse_input_within
from stx_mine.store.run_dir import RunDir
from stx_mine.store.stage_report import StageReport
from stx_mine.store.texts import PASSAGES, QUERIES


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
    run, sources = RunDir(config.run_dir), config.sources or ()
    named = [config.pairs, config.corpus, *(one.path for one in sources)]
    named += [one.corpus for one in sources]
    refuse_input_within(run.folder("texts"), named)
    refuse_damaged(*named)
    opened = open_input(config)
    chunker = _chunker(config)
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
            _write(artifact, config, opened, chunker)
        lost = lost_grouping(run, artifact.result)
        make_groups(run, artifact.result, config)
        return ingest_report(artifact, config, opened, skipped, lost)


def open_input(config: IngestConfig) -> list[PairSource]:
    """PAIRS, or the sources, in their order; nothing where neither is named.

    Raises:
        InputError: An input is missing or malformed.
    """
    if config.pairs is not None:
        opened = [PairSource.open(config.pairs, config, "train").with_languages(config)]
    else:
        opened = [
            PairSource.open(source.path, source, "train").with_languages(source)
            for source in config.sources or ()
        ]
    return [replace(one, titles=config.title != "none") for one in opened]


def _chunker(config: IngestConfig) -> Chunker | None:
    """What cuts long passages, if they are to be cut."""
    name = config.tokenizer or config.embedding_model
    if not config.chunk or name is None:
        return None
    prompts = [source.passage_prompt for source in config.sources or ()] or [None]
    tokens, overlap = config.chunk
    reading = config.reading if isinstance(config, ModelFields) else AS_IT_IS
    if config.tokenizer is not None:
        reading = reading.of_another()
    return Chunker.load(name, tokens, overlap, prompts, config.kept_tokens, reading)


def _key(config: IngestConfig, opened: list[PairSource], chunker: Chunker | None) -> dict[str, Any]:
    """The settings that decide `texts/`; a file or a tokenizer counts by its content."""
    fields = key_fields(config, "texts")
    if chunker is not None:
        fields["tokenizer"] = chunker.digest()
    if config.sources is None:
        fields["content"] = opened[0].fingerprint()
        return {name: v for name, v in fields.items() if name not in ("pairs", "corpus", "sources")}
    key = {name: fields[name] for name in names_of(ChunkFields)}
    key["sources"] = [named.name for named in config.sources]
    for named, source in zip(config.sources, opened, strict=True):
        of_source = {**key_fields(named, "texts"), "content": source.fingerprint()}
        for name, value in of_source.items():
            if name not in ("name", "path", "corpus"):
                key[f"{named.name}.{name}"] = value
    return key


def _write(
    artifact: Artifact, config: IngestConfig, opened: list[PairSource], chunker: Chunker | None
) -> None:
    ingested = read_sources(opened)
    files = files_of(config, opened)
    artifact.begin(files)
    folder, extra = artifact.folder, dict[str, Any]()
    with progress.step("writing texts"):
        write_queries(folder, opened, ingested)
        named = NamedDocuments.of(opened, ingested.passages)
        numbered = write_passages(folder, config, opened, ingested, chunker, named)
    write_ids(folder, numbered, files)
    counts = numbered.counts
    if any(source.names_languages for source in opened):
        of_languages = write_languages(folder, opened, ingested, numbered)
        counts = replace(counts, of_languages=of_languages)
    if config.sources:
        of_sources = write_source_files(folder, config.sources, ingested, numbered)
        counts = replace(counts, of_sources=of_sources)
        extra["weights"] = [source.weight for source in config.sources]
    tables = {"queries": read_table(folder / QUERIES), "passages": read_table(folder / PASSAGES)}
    of_texts = text_counts(
        tables,
        numbered.pairs[:, 1],
        numbered.query_texts,
        numbered.negatives[:, 1],
        ingested.num_broken,
    )
    extra["decided"] = list(ingested.notes)
    if named is not None:
        extra["decided"].append(f"{named.note}, none of which is a negative of another one's query")
    artifact.finish(files, counts=replace(counts, of_texts=of_texts), extra=extra)

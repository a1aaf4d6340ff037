"""Ingest: files in, distinct texts with ids, pairs and groups out; every dropped row counted."""

from collections.abc import Iterator
from dataclasses import asdict
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stx_mine.artifacts.artifact import Artifact
from stx_mine.artifacts.files import write_array, write_table
from stx_mine.artifacts.pair_source import PairSource, TextStream
from stx_mine.artifacts.run_dir import RunDir
from stx_mine.artifacts.sources import SOURCE_FILES, SourceInfo, write_sources
from stx_mine.artifacts.texts import (
    NEGATIVES,
    PAIR_SCHEMA,
    PAIRS,
    PASSAGE_GROUPS,
    PASSAGES,
    QUERIES,
    QUERY_GROUPS,
    QUERY_TEXTS,
    write_texts,
)
from stx_mine.config import IngestConfig, key_fields
from stx_mine.engine.shares import share_of
from stx_mine.errors import ConfigError
from stx_mine.stages.distinct import Distinct
from stx_mine.stages.read_pairs import Ingested, named_reasons, read_sources
from stx_mine.stages.report import StageReport, make_report, share


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
    with run.lock(share_of(config), begins=True), run.exclusive():
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
    files = [PASSAGES, QUERIES, PAIRS, PASSAGE_GROUPS, QUERY_GROUPS, QUERY_TEXTS]
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
    write_array(folder / QUERY_TEXTS, found.query_groups)
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


def _report(artifact: Artifact, skipped: bool = False) -> StageReport:
    counts = artifact.result.counts
    lines = [
        f"pairs: {counts['pairs_in']:,} read, {share(counts['pairs_kept'], counts['pairs_in'])} "
        f"kept, dropped: {named_reasons(counts['pairs_dropped'])}",
        f"texts: {counts['queries']:,} distinct queries, {counts['passages']:,} distinct passages "
        f"({counts['passages_only_in_pairs']:,} of them only in pairs)",
    ]
    for name, one in counts.get("sources", {}).items():
        lines.append(
            f"source {name}: {one['pairs_in']:,} pairs read, {one['pairs_kept']:,} kept, dropped: "
            f"{named_reasons(one['pairs_dropped'])}"
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

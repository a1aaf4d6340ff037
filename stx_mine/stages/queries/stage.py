"""Queries: retrieval-like queries out of passages, as a file of pairs that `embed` reads."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

from stx_mine.engine.local import run_tasks
from stx_mine.errors import InputError
from stx_mine.settings import key_fields
from stx_mine.stages.queries.blocks import Rows, counts_of, missing_blocks, pairs_of
from stx_mine.stages.queries.config import QueriesConfig
from stx_mine.stages.queries.core.keywords import TermStatistics
from stx_mine.stages.queries.makers import (
    Maker,
    make_crops,
    make_generated,
    make_keywords,
    make_titles,
)
from stx_mine.stages.queries.passages import PassageSource
from stx_mine.stages.queries.report import queries_report
from stx_mine.store.artifact import Artifact
from stx_mine.store.files import read_array, read_table, write_array, write_table
from stx_mine.store.manifest import refuse_damaged
from stx_mine.store.places import refuse_input_within, remove_ours
from stx_mine.store.run_dir import RunDir
from stx_mine.store.stage_report import StageReport, listed
from stx_mine.store.tables import write_json_lines, write_parquet

if TYPE_CHECKING:
    from stx_mine.stages.queries.generator import QueryGenerator

_BLOCKS, _STATISTICS = "blocks", "blocks/terms.npy"


def run_queries(config: QueriesConfig) -> StageReport:
    """Write `queries/pairs.parquet` (or `.jsonl`).

    Raises:
        ConfigError: No passages are named, or options contradict one another.
        InputError: An input is missing or malformed, or no query can be made.
        ModelError: The generator cannot be loaded.
        ArtifactError: `queries/` was made from something else.
    """
    refuse_damaged(config.pairs, config.corpus)
    source, run = PassageSource.open(config), RunDir(config.run_dir)
    refuse_input_within(run.folder("queries"), (config.pairs, config.corpus))
    with run.lock(begins=True):
        generator = _generator(config)
        fields = {
            key: value
            for key, value in key_fields(config, "queries").items()
            if key not in ("pairs", "corpus", "generator")
        }
        fields["content"] = source.fingerprint()
        fields["generator"] = generator and generator.contract()
        artifact = Artifact(
            run, "queries", config, fields=fields, inputs={}, overwrite=config.overwrite
        )
        if artifact.done:
            return queries_report(artifact, config, skipped=True)
        _write(artifact, config, source, generator)
        return queries_report(artifact, config, skipped=False)


def _generator(config: QueriesConfig) -> "QueryGenerator | None":
    if config.generator is None:
        return None
    from stx_mine.stages.queries.generator import QueryGenerator, TokenSampling, read_prompt

    sampling = TokenSampling(
        prompt=None if config.prompt_file is None else read_prompt(config.prompt_file),
        max_passage_tokens=config.max_passage_tokens,
        max_new_tokens=config.max_new_tokens,
        temperature=config.temperature,
        top_p=config.top_p,
        batch_size=config.generate_batch_size,
    )
    return QueryGenerator.load(config.generator, config.device, sampling)


def _write(
    artifact: Artifact,
    config: QueriesConfig,
    source: PassageSource,
    generator: "QueryGenerator | None",
) -> None:
    rows = Rows.read(source, config.block_size)
    if not rows.first.any():
        raise InputError(
            f"expected passages in {config.pairs or config.corpus}, found none "
            f"({len(rows.numbers):,} rows are empty); check its columns"
        )
    num_blocks = -(-len(rows.numbers) // config.block_size)
    names = [f"{_BLOCKS}/{number:05d}.arrow" for number in range(num_blocks)]
    artifact.begin(names)
    makers = _makers(artifact, config, source, rows, generator)
    pending = artifact.pending(names)
    blocks = missing_blocks(source, config, rows, set(pending), names)

    def make(_: str) -> None:
        name, block, passages = next(blocks)
        write_table(artifact.folder / name, pairs_of(block, passages, config, makers))

    run_tasks(pending, make, "making queries")
    tables = [read_table(artifact.folder / name) for name in names]
    counts = counts_of(tables, rows)
    if not counts.pairs:
        remove_ours(artifact.folder)
        raise InputError(
            f"no query can be made of the {counts.rows_in:,} rows ("
            + "; ".join(f"{m}: {listed(one.dropped)}" for m, one in counts.made.methods.items())
            + "); give longer passages or a smaller --min-words"
        )
    file = f"pairs.{config.format}"
    write = write_parquet if config.format == "parquet" else write_json_lines
    write(artifact.folder / file, (table.replace_schema_metadata() for table in tables))
    artifact.finish([file], counts=counts)


def _makers(
    artifact: Artifact,
    config: QueriesConfig,
    source: PassageSource,
    rows: Rows,
    generator: "QueryGenerator | None",
) -> dict[str, Maker]:
    makers: dict[str, Maker] = {"crop": make_crops, "titles": make_titles}
    if "keywords" in config.method:
        statistics = _statistics(artifact, config, source, rows)
        makers["keywords"] = make_keywords(statistics, config)
    if generator is not None:
        makers["generate"] = make_generated(generator, config)
    return {method: makers[method] for method in config.method}


def _statistics(
    artifact: Artifact, config: QueriesConfig, source: PassageSource, rows: Rows
) -> TermStatistics:
    """Of the distinct passages, before titles are cut; kept for a resumed run."""
    if artifact.pending([_STATISTICS]):

        def texts() -> Iterator[str]:
            start = 0
            for block in source.blocks(config.block_size):
                first = pa.array(rows.first[start : start + len(block)])
                yield from block.column("passage").filter(first).to_pylist()
                start += len(block)

        write_array(artifact.folder / _STATISTICS, TermStatistics.of(texts()).to_array())
    return TermStatistics.from_array(read_array(artifact.folder / _STATISTICS))

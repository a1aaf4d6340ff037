"""Queries: retrieval-like queries out of passages, as a file of pairs that `embed` reads."""

from collections.abc import Callable, Iterator

import pyarrow as pa

from stx_mine import progress
from stx_mine.engine.local import run_tasks
from stx_mine.errors import InputError
from stx_mine.stages.queries.answer_log import ANSWERS, JUDGED, AnswerLog, earlier_answers
from stx_mine.stages.queries.asker import QueryAsker
from stx_mine.stages.queries.blocks import PairMaker, Rows, counts_of, missing_blocks
from stx_mine.stages.queries.chunked import ChunkedSource
from stx_mine.stages.queries.config import QueriesConfig
from stx_mine.stages.queries.core.keywords import TermStatistics
from stx_mine.stages.queries.core.windows import drawn_rows, windows
from stx_mine.stages.queries.counts import QueriesCounts, WrittenCounts
from stx_mine.stages.queries.makers import (
    Maker,
    Passage,
    make_crops,
    make_generated,
    make_keywords,
    make_titles,
    make_written,
)
from stx_mine.stages.queries.outputs import PASSAGES_FILE, QueryOutputs
from stx_mine.stages.queries.report import queries_report
from stx_mine.stages.queries.tools import QueryTools
from stx_mine.store.artifact import Artifact
from stx_mine.store.files import read_array, read_table, write_array, write_table
from stx_mine.store.manifest import refuse_damaged
from stx_mine.store.places import refuse_input_within, remove_ours
from stx_mine.store.run_dir import RunDir
from stx_mine.store.stage_report import StageReport, listed
from stx_mine.store.tables import write_json_lines, write_parquet

_BLOCKS, _STATISTICS = "blocks", "blocks/terms.npy"


def run_queries(config: QueriesConfig) -> StageReport:
    """Write `queries/pairs.parquet` (or `.jsonl`).

    Raises:
        ConfigError: No passages are named, or options contradict one another.
        InputError: An input is missing or malformed, or no query can be made.
        ModelError: A model cannot be loaded, or a server does not answer.
        ArtifactError: `queries/` was made from something else.
    """
    refuse_damaged(config.pairs, config.corpus)
    source, run = ChunkedSource.open(config), RunDir(config.run_dir)
    target = run.folder("queries")
    refuse_input_within(target, (config.pairs, config.corpus))
    with run.lock(begins=True):
        tools = QueryTools.open(config, target)
        fields = {**tools.key(config), "content": source.fingerprint()}
        artifact = Artifact(
            run, "queries", config, fields=fields, inputs={}, overwrite=config.overwrite
        )
        if artifact.done:
            return queries_report(artifact, config, skipped=True)
        _write(artifact, config, source, tools)
        return queries_report(artifact, config, skipped=False)


def _write(
    artifact: Artifact, config: QueriesConfig, source: ChunkedSource, tools: QueryTools
) -> None:
    rows = Rows.read(source, config.block_size)
    documents_cut = source.num_cut
    if not rows.first.any():
        raise InputError(
            f"expected passages in {config.pairs or config.corpus}, found none "
            f"({len(rows.numbers):,} rows are empty); check its columns"
        )
    names = [f"{_BLOCKS}/{number:05d}.arrow" for number in range(len(rows.starts))]
    earlier = earlier_answers(artifact.target, ANSWERS) if tools.asker else {}
    artifact.begin(names)
    pending = artifact.pending(names)
    makers = _makers(artifact, config, source, rows, tools)
    log = AnswerLog(artifact.folder / ANSWERS, earlier) if tools.asker else None
    try:
        writer = _writer(config, rows, tools.asker, log) if tools.asker and log else None
        maker = PairMaker(config, makers, writer)
        blocks = missing_blocks(source, config, rows, set(pending), names)

        def make(_: str) -> None:
            name, block, passages, start = next(blocks)
            write_table(artifact.folder / name, maker.pairs_of(block, passages, start))

        run_tasks(pending, make, "making queries")
    finally:
        if log is not None:
            log.close()
    outputs = QueryOutputs(config, source, rows, [read_table(artifact.folder / n) for n in names])
    _finish(artifact, outputs, tools, documents_cut)


def _finish(
    artifact: Artifact, outputs: QueryOutputs, tools: QueryTools, documents_cut: int
) -> None:
    """Filter the pairs of all blocks, and write what is left."""
    config, folder = outputs.config, artifact.folder
    kept = filtered = None
    if tools.filters.any:
        pairs = pa.concat_tables([one.replace_schema_metadata() for one in outputs.tables])
        kept, filtered = tools.filters.keep(pairs, outputs.others, folder)
    counts = counts_of(outputs.tables, outputs.rows, filtered, documents_cut)
    if not counts.pairs:
        if tools.asker is None:
            remove_ours(folder)
        raise InputError(_no_query(counts))
    file = f"pairs.{config.format}"
    write = write_parquet if config.format == "parquet" else write_json_lines
    write(folder / file, outputs.pairs(kept))
    files = [file]
    if config.chunk:
        write_parquet(folder / PASSAGES_FILE, outputs.passages())
        files.append(PASSAGES_FILE)
    files += [ANSWERS] if tools.asker else []
    files += [JUDGED] if tools.filters.judge else []
    artifact.finish(files, counts=counts)


def _no_query(counts: QueriesCounts) -> str:
    methods = counts.made.methods.items()
    reasons = [f"{method}: {listed(one.dropped)}" for method, one in methods if one.dropped]
    if counts.filtered is not None and counts.filtered.pairs_in:
        reasons.append(f"filters: {listed(counts.filtered.dropped)}")
    if counts.made.written is not None:
        return (
            f"no query is left of the {counts.rows_in:,} rows ({'; '.join(reasons)}); give another "
            "--prompt or a weaker filter, with --overwrite: what was answered stays"
        )
    return (
        f"no query can be made of the {counts.rows_in:,} rows ({'; '.join(reasons)}); give longer "
        "passages or a smaller --min-words"
    )


def _makers(
    artifact: Artifact,
    config: QueriesConfig,
    source: ChunkedSource,
    rows: Rows,
    tools: QueryTools,
) -> dict[str, Maker]:
    makers: dict[str, Maker] = {"crop": make_crops, "titles": make_titles}
    if "keywords" in config.method:
        statistics = _statistics(artifact, config, source, rows)
        makers["keywords"] = make_keywords(statistics, config)
    if tools.generator is not None:
        makers["generate"] = make_generated(tools.generator, config)
    if tools.asker is not None:
        makers["generate"] = make_written
    return {method: makers[method] for method in config.method}


def _writer(
    config: QueriesConfig, rows: Rows, asker: QueryAsker, log: AnswerLog
) -> Callable[[list[Passage], int], WrittenCounts]:
    """Has a server write queries of passages, within the budget."""
    wanted = rows.first & (set(config.kinds) != {"multi"})
    found = windows(rows.documents, rows.first & ("multi" in config.kinds))
    asked = drawn_rows(wanted, found, rows.numbers, config.max_calls, config.seed)
    progress.say(
        f"queries: {asked.num_asked:,} questions to {asker.chat.server.name}, those answered "
        "before are not asked again; --max-calls limits them"
    )
    return lambda passages, start: asker.write_for(passages, asked, start, log)


def _statistics(
    artifact: Artifact, config: QueriesConfig, source: ChunkedSource, rows: Rows
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

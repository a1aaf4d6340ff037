"""Export: the rows with their negatives in the layout of another trainer."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stx_mine.engine.local import run_tasks
from stx_mine.errors import InputError
from stx_mine.settings import key_fields
from stx_mine.stages.export.card import CardFacts, export_card
from stx_mine.stages.export.config import ExportConfig
from stx_mine.stages.export.core.mined_rows import MinedRows
from stx_mine.stages.export.counts import ExportCounts
from stx_mine.stages.export.layouts import chosen_layout
from stx_mine.stages.export.layouts.layout import Layout, num_broken, numbered
from stx_mine.stages.export.report import export_report
from stx_mine.stages.export.row_source import RowSource
from stx_mine.store.artifact import Artifact, require
from stx_mine.store.dataset_card import DATASET_CARD
from stx_mine.store.negatives import negatives_per_row, pool_files
from stx_mine.store.run_dir import RunDir
from stx_mine.store.sources import stored_sources
from stx_mine.store.stage_report import StageReport

# Rows are written once there are so many: the first row group decides how fast `datasets` reads a
# file.
_ROWS_AT_ONCE = 2_048
_BLOCKS_A_SHARD = 32


def run_export(config: ExportConfig) -> StageReport:
    """Write `exports/LAYOUT/`.

    Raises:
        ConfigError: k is larger than the pools.
        InputError: No row has as many negatives as the layout needs.
        ArtifactError: Negatives are missing or stale.
    """
    run = RunDir(config.run_dir, config.check)
    with run.lock():
        inputs = {name: require(run, name) for name in ("texts", "embeddings", "negatives")}
        k = negatives_per_row(inputs["negatives"], config.k)
        artifact = Artifact(
            run,
            "exports",
            config,
            fields={**key_fields(config, "exports"), "k": k},
            inputs={name: manifest.digest for name, manifest in inputs.items()},
            overwrite=config.overwrite,
            subfolder=config.to,
        )
        prompted = [
            source.name
            for source in stored_sources(inputs["texts"])
            if any(source.prompts.values())
        ]
        if artifact.done:
            return export_report(artifact, config, prompted, skipped=True)
        layout = chosen_layout(config)
        _write(artifact, config, layout, RowSource.open(inputs, k, layout.id_kind))
        return export_report(artifact, config, prompted, skipped=False)


@dataclass
class _Tally:
    """Counts over all files.

    Attributes:
        needs: Fewest negatives of a row that is kept.
        rows: int64 (k + 1,) rows by their number of negatives.
        lines: Lines of the files of lines.
    """

    needs: int
    rows: NDArray[np.int64]
    lines: int = 0


def _write(artifact: Artifact, config: ExportConfig, layout: Layout, source: RowSource) -> None:
    shards, beside = _shards(layout, source), layout.beside(source)
    files = [*shards, *beside]
    artifact.begin([*files, DATASET_CARD])
    needs = layout.needs(source.k, config.short_rows == "drop")
    tally = _Tally(needs, np.zeros(source.k + 1, np.int64))

    def write(name: str) -> None:
        path = artifact.folder / name
        if name in shards:
            lines = _lines(shards[name], config, layout, source, tally)
            tally.lines += layout.write(path, lines)
            return
        lines_beside = beside[name].write(path, beside[name].tables)
        # The file of lines is one of those beside where it holds no rows.
        tally.lines += lines_beside if name == layout.path else 0

    run_tasks([*shards, *beside], write, "writing")
    counts, ids = _counts(layout, source, tally), source.texts.explained()
    _refuse_empty(counts, config, needs)
    card = export_card(CardFacts(config.to, layout, counts, ids, source.k, source.model))
    artifact.finish(files, counts=counts, extra={"k": source.k, "ids": ids}, card=card)


def _shards(layout: Layout, source: RowSource) -> dict[str, list[str]]:
    """File of lines -> the files of pools whose rows it holds; none where it holds no rows."""
    blocks = pool_files(source.negatives)
    if layout.lines is None:
        return {}
    if "*" not in layout.path:
        return {layout.path: blocks}
    starts = range(0, len(blocks), _BLOCKS_A_SHARD)
    return {
        numbered(layout.path, number, len(starts)): blocks[start : start + _BLOCKS_A_SHARD]
        for number, start in enumerate(starts)
    }


def _lines(
    shard: list[str], config: ExportConfig, layout: Layout, source: RowSource, tally: _Tally
) -> Iterator[pa.Table]:
    """Yield the lines of some files of pools, at least one table; count their rows."""
    assert layout.lines is not None
    texts, kept = source.texts, list[MinedRows]()
    for rows in chain.from_iterable(map(source.rows, shard)):
        rows = rows.shared() if layout.per_query else rows
        lengths = rows.negatives.lengths()
        tally.rows += np.bincount(lengths, minlength=len(tally.rows))
        kept.append(rows.take(np.flatnonzero(lengths >= tally.needs)))
        if sum(map(len, kept)) >= _ROWS_AT_ONCE:
            yield layout.lines(MinedRows.concatenate(kept), texts, source.k, config.scores)
            kept = []
    if kept:
        yield layout.lines(MinedRows.concatenate(kept), texts, source.k, config.scores)


def _counts(layout: Layout, source: RowSource, tally: _Tally) -> ExportCounts:
    if layout.lines is None:
        return ExportCounts.without_rows(len(source.by_query), tally.lines)
    store = source.texts.store
    broken = num_broken(store.queries) + num_broken(store.passages) if layout.one_line else 0
    counts = ExportCounts.of(tally.rows, tally.needs, tally.lines, broken)
    assert counts.rows_in == len(source.by_query), "a pair is in no file of negatives"
    return counts


def _refuse_empty(counts: ExportCounts, config: ExportConfig, needs: int) -> None:
    if counts.rows_kept == 0:
        most = int(np.flatnonzero(counts.rows_by_negatives)[-1])
        raise InputError(
            f"--to {config.to} needs {needs} negatives per row, no row has more than {most}; "
            + (f"give --k {most}, or " if most else "")
            + "loosen the rules of mine"
        )

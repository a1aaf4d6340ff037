"""Export: the rows with their negatives in the layout of another trainer."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stx_mine.engine.local import run_tasks
from stx_mine.errors import InputError
from stx_mine.settings import key_fields
from stx_mine.stages.export.card import export_card
from stx_mine.stages.export.config import ExportConfig
from stx_mine.stages.export.core.mined_rows import MinedRows
from stx_mine.stages.export.counts import ExportCounts
from stx_mine.stages.export.layouts import LAYOUTS
from stx_mine.stages.export.report import export_report
from stx_mine.stages.export.row_source import RowSource
from stx_mine.store.artifact import Artifact, require
from stx_mine.store.dataset_card import DATASET_CARD
from stx_mine.store.negatives import negatives_per_row, pool_files
from stx_mine.store.run_dir import RunDir
from stx_mine.store.sources import stored_sources
from stx_mine.store.stage_report import StageReport
from stx_mine.store.tables import text_tables, write_json_lines, write_parquet
from stx_mine.store.texts import TextStore

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
    run = RunDir(config.run_dir)
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
            view=True,
            subfolder=config.to,
        )
        prompted = [
            source.name
            for source in stored_sources(inputs["texts"])
            if any(source.prompts.values())
        ]
        if artifact.done:
            return export_report(artifact, config, prompted, skipped=True)
        _write(artifact, config, RowSource.open(inputs, k))
        return export_report(artifact, config, prompted, skipped=False)


@dataclass
class _Tally:
    """Counts over all shards.

    Attributes:
        needs: Fewest negatives of a row that the layout can hold.
        rows: int64 (k + 1,) rows by their number of negatives.
        lines: Lines written.
    """

    needs: int
    rows: NDArray[np.int64]
    lines: int = 0


def _write(artifact: Artifact, config: ExportConfig, source: RowSource) -> None:
    layout, blocks = LAYOUTS[config.to], pool_files(source.negatives)
    num_shards = -(-len(blocks) // _BLOCKS_A_SHARD)
    tasks = {
        f"{layout.folder}/{_shard(number, num_shards)}{layout.suffix}": number * _BLOCKS_A_SHARD
        for number in range(num_shards)
    }
    texts = _text_tables(source.store) if config.to == "three-table" else {}
    files = [*tasks, *texts]
    artifact.begin([*files, DATASET_CARD])
    needs = source.k if layout.needs is None else layout.needs
    tally = _Tally(needs, np.zeros(source.k + 1, np.int64))
    write_lines = write_json_lines if layout.suffix == ".jsonl" else write_parquet

    def write(name: str) -> None:
        path = artifact.folder / name
        if name in texts:
            write_parquet(path, texts[name])
            return
        shard = blocks[tasks[name] : tasks[name] + _BLOCKS_A_SHARD]
        tally.lines += write_lines(path, _lines(shard, config, source, tally))

    run_tasks([*tasks, *texts], write, "export")
    counts = ExportCounts.of(tally.rows, needs, tally.lines)
    assert counts.rows_in == len(source.by_query), "a pair is in no file of negatives"
    _refuse_empty(counts, config, needs)
    folders = [layout.folder, *(Path(name).parts[0] for name in texts)]
    card = export_card(config.to, folders, counts, source.k, source.model)
    artifact.finish(files, counts=counts, extra={"k": source.k}, card=card)


def _lines(
    shard: list[str], config: ExportConfig, source: RowSource, tally: _Tally
) -> Iterator[pa.Table]:
    """Yield the lines of some files of pools, at least one table; count their rows."""
    layout, kept = LAYOUTS[config.to], list[MinedRows]()
    for rows in chain.from_iterable(map(source.rows, shard)):
        rows = rows.shared() if layout.per_query else rows
        lengths = rows.negatives.lengths()
        tally.rows += np.bincount(lengths, minlength=len(tally.rows))
        kept.append(rows.take(np.flatnonzero(lengths >= tally.needs)))
        if sum(map(len, kept)) >= _ROWS_AT_ONCE:
            yield layout.table(MinedRows.concatenate(kept), source.store, source.k, config.scores)
            kept = []
    if kept:
        yield layout.table(MinedRows.concatenate(kept), source.store, source.k, config.scores)


def _text_tables(store: TextStore) -> dict[str, Iterator[pa.Table]]:
    """File -> the texts of one role, of `three-table`."""
    return {
        f"queries/{_shard(0, 1)}.parquet": text_tables("query_id", store.queries),
        f"documents/{_shard(0, 1)}.parquet": text_tables("document_id", store.passages),
    }


def _refuse_empty(counts: ExportCounts, config: ExportConfig, needs: int) -> None:
    if counts.rows_kept == 0:
        most = int(np.flatnonzero(counts.rows_by_negatives)[-1])
        raise InputError(
            f"--to {config.to} needs {needs} negatives per row, no row has more than {most}; "
            + (f"give --k {most}, or " if most else "")
            + "loosen the rules of mine"
        )


def _shard(number: int, num_shards: int) -> str:
    return f"train-{number:05d}-of-{num_shards:05d}"

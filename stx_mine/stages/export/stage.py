"""Export: the rows with their negatives in the layout of another trainer."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stx_mine.engine.local import run_tasks
from stx_mine.errors import InputError
from stx_mine.search.score import score_hits
from stx_mine.settings import key_fields
from stx_mine.stages.export.card import export_card
from stx_mine.stages.export.config import ExportConfig
from stx_mine.stages.export.layouts import LAYOUTS, MinedRows
from stx_mine.store.artifact import Artifact, Manifest, require
from stx_mine.store.batches import CARD
from stx_mine.store.files import atomic
from stx_mine.store.negatives import PoolBlock, negatives_a_row, pool_files, rows_of
from stx_mine.store.report import StageReport, make_report, percent
from stx_mine.store.run_dir import RunDir
from stx_mine.store.sources import stored_sources
from stx_mine.store.tables import text_tables, write_json_lines, write_parquet
from stx_mine.store.texts import TextStore
from stx_mine.store.vectors import Vectors

# Rows are read some queries at a time, and written once there are so many of them: the first row
# group decides how fast `datasets` reads a file.
_QUERIES_AT_ONCE = _ROWS_AT_ONCE = 2_048
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
        k = negatives_a_row(inputs["negatives"], config.k)
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
            one.name for one in stored_sources(inputs["texts"]) if any(one.prompts.values())
        ]
        if artifact.done:
            return _report(artifact, config, prompted, skipped=True)
        _write(artifact, config, _Source.open(inputs, k))
        return _report(artifact, config, prompted)


@dataclass(frozen=True)
class _Source:
    """Where rows come from.

    Attributes:
        negatives: The manifest of `negatives/`.
        model: Name of the model that mined.
        store: Texts and pairs.
        queries: Vectors of the queries.
        passages: Vectors of the passages.
        by_query: int64 (N,) numbers of the pairs that are rows, by query_id, then number.
        sorted_queries: int64 (N,) their query_ids.
        k: Negatives of a row at most.
    """

    negatives: Manifest
    model: str
    store: TextStore
    queries: Vectors
    passages: Vectors
    by_query: NDArray[np.int64]
    sorted_queries: NDArray[np.int64]
    k: int

    @classmethod
    def open(cls, inputs: dict[str, Manifest], k: int) -> "_Source":
        store, embeddings = TextStore.open(inputs["texts"]), inputs["embeddings"]
        rows = rows_of(inputs["negatives"], store.num_pairs)
        by_query = rows[np.argsort(store.pair_query_ids[rows], kind="stable")]
        return cls(
            inputs["negatives"],
            embeddings.extra["miner"],
            store,
            Vectors.open(embeddings, "queries"),
            Vectors.open(embeddings, "passages"),
            by_query,
            store.pair_query_ids[by_query],
            k,
        )

    def rows(self, name: str) -> Iterator[MinedRows]:
        """Yield the rows of one file of pools, some queries at a time; once if it has none."""
        block = PoolBlock.read(self.negatives, name)
        asked, end = np.unique(block.query_ids), self.store.num_queries
        for start in range(0, max(len(asked), 1), _QUERIES_AT_ONCE):
            some = asked[start : start + _QUERIES_AT_ONCE]
            first = np.searchsorted(self.sorted_queries, some.min(initial=end))
            last = np.searchsorted(self.sorted_queries, some.max(initial=-1), "right")
            yield self._rows(block, self.by_query[first:last])

    def _rows(self, block: PoolBlock, pairs: NDArray[np.int64]) -> MinedRows:
        query_ids = self.store.pair_query_ids[pairs]
        positive_ids = self.store.pair_passage_ids[pairs]
        scores = score_hits(
            self.queries.take(query_ids),
            self.passages.take(positive_ids),
            np.arange(len(pairs))[:, None],
            self.queries.similarity,
        )[:, 0]
        wanted = pairs if self.negatives.extra["per_pair"] else query_ids
        assert np.isin(wanted, block.unit_ids).all(), "a pair without a pool"
        units = np.searchsorted(block.unit_ids, wanted)
        negatives, places = block.pools.take(units, self.k)
        return MinedRows(query_ids, positive_ids, scores, negatives, block.scores[places])


@dataclass
class _Tally:
    """Counts over all shards.

    Attributes:
        needs: Negatives without which the layout cannot hold a row.
        rows: int64 (k + 1,) rows by their number of negatives.
        lines: Lines written.
    """

    needs: int
    rows: NDArray[np.int64]
    lines: int = 0

    def counts(self) -> dict[str, Any]:
        """Rows in = kept + dropped."""
        dropped = self.rows[: self.needs]
        return {
            "rows_in": int(self.rows.sum()),
            "rows_kept": int(self.rows[self.needs :].sum()),
            "rows_dropped": {
                "no_negative": int(dropped[:1].sum()),
                "fewer_than_k": int(dropped[1:].sum()),
            },
            "rows_ragged": int(self.rows[self.needs : -1].sum()),
            "rows_by_negatives": self.rows.tolist(),
            "lines": self.lines,
        }


def _write(artifact: Artifact, config: ExportConfig, source: _Source) -> None:
    layout, blocks = LAYOUTS[config.to], pool_files(source.negatives)
    num_shards = -(-len(blocks) // _BLOCKS_A_SHARD)
    tasks = {
        f"{layout.folder}/{_shard(number, num_shards)}{layout.suffix}": number * _BLOCKS_A_SHARD
        for number in range(num_shards)
    }
    texts = _text_tables(source.store) if config.to == "three-table" else {}
    files = [*tasks, *texts, CARD]
    artifact.begin(files)
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
    counts = tally.counts()
    assert counts["rows_in"] == len(source.by_query), "a pair is in no file of negatives"
    _refuse_empty(counts, config, needs)
    facts = {**counts, "k": source.k, "model": source.model}
    folders = [layout.folder, *(Path(name).parts[0] for name in texts)]
    with atomic(artifact.folder / CARD) as path:
        path.write_text(export_card(config.to, folders, facts), "utf-8")
    artifact.finish(files, counts=counts, extra={"k": source.k})


def _lines(
    shard: list[str], config: ExportConfig, source: _Source, tally: _Tally
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


def _refuse_empty(counts: dict[str, Any], config: ExportConfig, needs: int) -> None:
    if counts["rows_kept"] == 0:
        most = int(np.flatnonzero(counts["rows_by_negatives"])[-1])
        raise InputError(
            f"--to {config.to} needs {needs} negatives a row, no row has more than {most}; "
            + (f"give --k {most}, or " if most else "")
            + "loosen the rules of mine"
        )


def _shard(number: int, num_shards: int) -> str:
    return f"train-{number:05d}-of-{num_shards:05d}"


def _report(
    artifact: Artifact, config: ExportConfig, prompted: list[str], skipped: bool = False
) -> StageReport:
    counts, k = artifact.result.counts, artifact.result.extra["k"]
    rows = counts["rows_in"]
    lines = [
        f"{config.to}: {counts['lines']:,} lines of {percent(counts['rows_kept'], rows)} of "
        f"{rows:,} rows, at most {k} negatives each"
    ]
    warnings = []
    if prompted:
        warnings.append(
            f"the prompts of {', '.join(prompted)} are not in the rows, and no layout says which "
            "source a row is from; give them to your trainer, or train with `stx-mine train`"
        )
    dropped = counts["rows_dropped"]
    if dropped["no_negative"]:
        lines.append(f"{percent(dropped['no_negative'], rows)} have no negative and are left out")
    if dropped["fewer_than_k"]:
        fewer = max(1, k // 2)
        held = sum(counts["rows_by_negatives"][fewer:])
        warnings.append(
            f"{percent(dropped['fewer_than_k'], rows)} have fewer than k={k} negatives and are "
            f"left out; --k {fewer} would hold {held:,} rows, --to triplet holds all that have any"
        )
    if counts["rows_ragged"]:
        lines.append(f"{percent(counts['rows_ragged'], rows)} have fewer than k={k} and are kept")
    return make_report(artifact, lines, warnings, skipped=skipped)

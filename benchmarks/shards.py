"""Part of `benchmarks.pack`: writing shards of texts, and one list column of negatives beside it.

Times are CPU seconds of one thread: binding, gathering the texts, compressing and writing (the
last page lies in the cache of the file system). A slot is one text of one row, however often the
text repeats.
"""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stx_mine.stages.pack.builder import Packer
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.shard_files import group_rows, write_shard
from stx_mine.store.artifact import require
from stx_mine.store.batches import negative_columns, text_columns
from stx_mine.store.groups import TextGroups
from stx_mine.store.run_dir import RunDir
from stx_mine.store.texts import TextStore

SHARD_ROWS = PackConfig.shard_rows
REPEATS = 3


@dataclass(frozen=True)
class Writing:
    """One shard of `merge` batches.

    Attributes:
        batch: B.
        rows: Rows of the shard, and `group_rows` of them a row group.
        slots_mb: Texts of all slots, in 10^6 bytes of UTF-8.
        distinct_mb: Distinct texts of the shard.
        file_mb: The shard.
        list_file_mb: The same texts with the negatives in one list column.
        seconds: To make and write it; the fastest of 3 times.
        list_write_s: To write the same texts with one list column (without making it).
        texts_write_s: To write the texts as we do, beside it.
        plain_chunks: Column chunks of texts that hold no dictionary, or more than one text twice.
    """

    batch: int
    rows: int
    group_rows: int
    slots_mb: float
    distinct_mb: float
    file_mb: float
    list_file_mb: float
    seconds: float
    texts_write_s: float
    list_write_s: float
    plain_chunks: int

    @property
    def mb_per_s(self) -> float:
        """Text of all slots, in 10^6 bytes a second."""
        return self.slots_mb / self.seconds


def measure(run_dir: str, batch_size: int, num_negatives: int) -> Writing:
    """Make and write the first shard of a mined run, on one thread."""
    run = RunDir(run_dir)
    config = PackConfig(run_dir=run_dir, batch_size=batch_size, k=num_negatives)
    packer = Packer.open(
        config,
        num_negatives,
        TextStore.open(require(run, "texts")),
        TextGroups.open(require(run, "groups")),
        require(run, "negatives"),
        require(run, "embeddings"),
    )
    rows_PB = packer.assign().rows_PB[: max(1, SHARD_ROWS // batch_size)]
    footer = {"batch_size": batch_size}
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        path, other = Path(folder, "shard.parquet"), Path(folder, "other.parquet")
        for _ in range(REPEATS):
            start = time.process_time()
            table = packer.table(rows_PB, 0, range(len(rows_PB)))
            write_shard(path, table, footer, packer.with_texts)
            seconds.append(time.process_time() - start)
        texts = packer.with_texts(table).select(text_columns(num_negatives))
        slots, distinct = _megabytes(texts)
        texts_write_s = _seconds_to_write(other, texts, batch_size)
        list_write_s = _seconds_to_write(other, _with_list(texts, num_negatives), batch_size)
        return Writing(
            batch_size,
            rows_PB.size,
            group_rows(batch_size),
            slots,
            distinct,
            path.stat().st_size / 1e6,
            other.stat().st_size / 1e6,
            min(seconds),
            texts_write_s,
            list_write_s,
            _plain_chunks(path, texts, group_rows(batch_size)),
        )


def _megabytes(texts: pa.Table) -> tuple[float, float]:
    every = pa.chunked_array([chunk for column in texts.columns for chunk in column.chunks])
    sizes = (pc.sum(pc.binary_length(one)).as_py() for one in (every, pc.unique(every)))
    slots, distinct = (size / 1e6 for size in sizes)
    return slots, distinct


def _with_list(texts: pa.Table, num_negatives: int) -> pa.Table:
    """Anchor, positive, and the list of negatives of each row."""
    columns = [texts.column(name).combine_chunks() for name in negative_columns(num_negatives)]
    flat = pa.concat_arrays([chunk for one in columns for chunk in _chunks(one)])
    places = np.arange(len(flat)).reshape(num_negatives, -1).T.ravel()
    offsets = pa.array(np.arange(0, len(flat) + 1, num_negatives), pa.int32())
    lists = pa.ListArray.from_arrays(offsets, flat.take(pa.array(places)))
    return texts.select(["anchor", "positive"]).append_column("negatives", lists)


def _chunks(column: pa.Array | pa.ChunkedArray) -> list[pa.Array]:
    return column.chunks if isinstance(column, pa.ChunkedArray) else [column]


def _seconds_to_write(path: Path, table: pa.Table, batch_size: int) -> float:
    """As `write_shard` writes texts; the fastest of 3 times."""
    seconds = []
    for _ in range(REPEATS):
        start = time.process_time()
        pq.write_table(
            table,
            path,
            row_group_size=group_rows(batch_size),
            compression="zstd",
            dictionary_pagesize_limit=1 << 28,
            write_page_index=True,
        )
        seconds.append(time.process_time() - start)
    return min(seconds)


def _plain_chunks(path: Path, texts: pa.Table, rows: int) -> int:
    """Chunks of texts that are larger than their distinct texts with lengths, and numbers."""
    found = 0
    metadata = pq.read_metadata(path)
    for group in range(metadata.num_row_groups):
        for number, column in enumerate(texts.slice(group * rows, rows).columns):
            distinct = pc.unique(column).drop_null()
            most = (pc.sum(pc.binary_length(distinct)).as_py() or 0) + 4 * (len(distinct) + rows)
            chunk = metadata.row_group(group).column(number)
            found += not chunk.has_dictionary_page or chunk.total_uncompressed_size > most + 4_096
    return found

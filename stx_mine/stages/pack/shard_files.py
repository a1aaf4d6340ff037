"""The files of `batches/`, written: shards and their compression, and what lies beside them."""

import json
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stx_mine.core.ragged import Ragged
from stx_mine.store.batches import FOOTER_KEY, list_column
from stx_mine.store.files import atomic, write_table

_DICTIONARY_BYTES = 1 << 28
_MIN_GROUP_ROWS, _MAX_GROUPS = 1_024, 8
# Uncompressed, which viewers of the hub read at once.
_MOST_GROUP_BYTES = 100_000_000


def write_all_texts(path: Path, texts: list[pa.Table]) -> None:
    """Write all texts, for shards that hold ids alone; row number = id.

    Args:
        path: The file.
        texts: Tables with a column `text`: of the passages, then of the queries.
    """
    write_table(path, pa.concat_tables([table.select(["text"]) for table in texts]))


def shard_path(packing: int, shard: int, num_shards: int) -> str:
    """Path of a shard below the folder of batches."""
    return f"epoch-{packing:03d}/train-{shard:05d}-of-{num_shards:05d}.parquet"


def group_rows(batch_size: int) -> int:
    """Rows of a Parquet row group: an equal part of a large batch, or several small batches.

    Returns:
        batch_size / g for the largest divisor g <= 8 that leaves at least 1,024 rows, or a
        multiple of batch_size of about 1,024 rows where it is smaller than that.
    """
    if batch_size < _MIN_GROUP_ROWS:
        return batch_size * max(1, _MIN_GROUP_ROWS // batch_size)
    parts = [
        parts
        for parts in range(1, _MAX_GROUPS + 1)
        if batch_size % parts == 0 and batch_size // parts >= _MIN_GROUP_ROWS
    ]
    return batch_size // max(parts)


def write_shard(
    path: Path,
    rows: pa.Table,
    footer: dict[str, Any],
    finish: Callable[[pa.Table], pa.Table] = lambda rows: rows,
) -> None:
    """Write whole batches atomically; a text is stored once per column chunk.

    A row group has the rows that `group_rows` says, or equal parts of them where they would be more
    than 100 MB in memory. Pages are indexed, so that a reader may take some rows of a group.

    Args:
        path: The file.
        rows: The rows of the batches.
        footer: What the file says of itself.
        finish: Makes of the rows of a row group what is written, so that no more texts than those
            of a group are held.
    """
    size = group_rows(footer["batch_size"])
    groups = (finish(rows.slice(start, size)) for start in range(0, rows.num_rows, size))
    first = next(groups)
    schema = first.schema.with_metadata({FOOTER_KEY: json.dumps(footer).encode()})
    texts = [field.name for field in schema if pa.types.is_large_string(field.type)]
    with (
        atomic(path) as temporary,
        pq.ParquetWriter(
            temporary,
            schema,
            compression="zstd",
            use_dictionary=texts,
            dictionary_pagesize_limit=_DICTIONARY_BYTES,
            write_page_index=True,
        ) as writer,
    ):
        for group in chain([first], groups):
            parts = max(1, -(-group.nbytes // _MOST_GROUP_BYTES))
            writer.write_table(group.cast(schema), row_group_size=-(-group.num_rows // parts))


def write_positives(
    path: Path, anchor_ids: NDArray[np.int64], positives: Ragged, near: Ragged
) -> None:
    """Write anchor -> groups of all its known positives, and of near positives."""
    lists = {"positive_ids": list_column(positives), "near_ids": list_column(near)}
    table = pa.table({"anchor_id": anchor_ids, **lists})
    with atomic(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def write_groups(path: Path, texts: NDArray[np.int64], groups: NDArray[np.int64]) -> None:
    """Write the group of each text that is of another text's group."""
    with atomic(path) as temporary:
        pq.write_table(pa.table({"text_id": texts, "group": groups}), temporary, compression="zstd")


def score_column(offsets: NDArray[np.int64], scores: NDArray[np.float32]) -> pa.Array:
    """Scores of each row as an Arrow column, null for NaN; `ragged_scores` reads it back."""
    values = pa.array(scores, pa.float32(), from_pandas=True)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)

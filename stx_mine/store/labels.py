"""(text, label) data on disk: input files, and the table of labels beside the shards."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stx_mine.core.ragged import Ragged
from stx_mine.errors import InputError
from stx_mine.store.batches import list_column, ragged_column
from stx_mine.store.files import atomic

LABELS = "labels.parquet"
SHARD_COLUMNS = ("text", "label", "text_id")


def write_labels(path: Path, names: pa.Array, texts: Ragged) -> None:
    """Write each label with its name and the ids of all its texts; row number = label."""
    columns = [pa.array(np.arange(len(texts))), names, list_column(texts)]
    table = pa.table(columns, names=["label", "name", "text_ids"])
    with atomic(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_labels(folder: Path) -> tuple[pa.ChunkedArray, Ragged]:
    """The name and the ids of all texts of each label; row number = label.

    Raises:
        InputError: The file is missing.
    """
    if not (folder / LABELS).exists():
        raise InputError(f"expected {LABELS} in {folder}, found none; pack again")
    table = pq.read_table(folder / LABELS)
    return table.column("name"), ragged_column(table, "text_ids")

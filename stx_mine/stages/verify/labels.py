"""Verify packed (text, label) batches, some at a time, from what lies beside the shards."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stx_mine.errors import InputError
from stx_mine.stages.verify.batch_blocks import BatchBlock, ShardReader
from stx_mine.stages.verify.core.batches import (
    SHOWN_TEXT,
    Broken,
    Violation,
    check_texts,
    in_order,
)
from stx_mine.stages.verify.core.labels import LabelTable, check_label_batches
from stx_mine.store.batches import POSITIVES, BatchShard, ragged_column
from stx_mine.store.labels import SHARD_COLUMNS, read_labels

_SHOWN_ROWS = 5
_TEXT, _LABEL, _ID = SHARD_COLUMNS


def check_label_packings(folder: Path, packings: list[list[BatchShard]]) -> Iterator[str]:
    """Say what is wrong in batches of the layout `labels`.

    Args:
        folder: The folder of the batches, with the tables that `pack` wrote beside them.
        packings: Shards of each packing.

    Yields:
        A sentence per violation, in the order of the batches.

    Raises:
        InputError: What lies beside the shards is missing.
    """
    names, members = read_labels(folder)
    path = folder / POSITIVES
    if not path.exists():
        raise InputError(f"expected {POSITIVES} in {folder}, found none; pack again")
    positives = pq.read_table(path)
    anchors = positives.column("anchor_id").to_numpy()
    table = LabelTable.of(members, anchors, ragged_column(positives, "positive_ids"))
    for shards in packings:
        seen = [np.empty((0, 2), np.int64)]
        for shard in shards:
            reader = ShardReader(shard, (_LABEL, _ID), (_TEXT,))
            for block in reader.blocks():
                labels, ids = (block.table.column(name).to_numpy() for name in (_LABEL, _ID))
                found = list(_checks(shard, block, labels, ids, table))
                for violation in in_order(found, shard.batch_size):
                    place = shard.path.relative_to(folder)
                    yield f"{place} {_sentence(reader, block, names, violation)}"
                seen.append(np.stack([labels, ids], axis=1))
        rows, counts = np.unique(np.concatenate(seen), axis=0, return_counts=True)
        for label, text in rows[counts > 1]:
            packing = shards[0].path.parent.name
            yield f"{packing}: text {text} of label {label} is in the packing more than once"


def _checks(
    shard: BatchShard,
    block: BatchBlock,
    labels: NDArray[np.int64],
    ids: NDArray[np.int64],
    table: LabelTable,
) -> Iterator[Broken]:
    assert shard.texts_per_label is not None
    size = shard.batch_size
    yield check_label_batches(ids, labels, table, shard.texts_per_label, size)
    yield Broken.of(np.flatnonzero(block.numbers_NS[:, 0] < 0), "the text is empty")
    filled_NS = np.ones((len(ids), 1), bool)
    yield check_texts(ids[:, None], block.numbers_NS, filled_NS, size)


def _sentence(
    reader: ShardReader, block: BatchBlock, names: pa.ChunkedArray, violation: Violation
) -> str:
    """The violation, the row's text and label, and the rows that hold the texts concerned."""
    size = reader.shard.batch_size
    batch, row = divmod(violation.row, size)
    text = reader.text(block.first * size + violation.row, _TEXT)
    label = block.table.column(_LABEL)[violation.row].as_py()
    name = names[label].as_py() if 0 <= label < len(names) else "?"
    ids = block.table.column(_ID).to_numpy()[batch * size : (batch + 1) * size]
    holders = np.flatnonzero(np.isin(ids, violation.ids)).tolist()
    more = " ..." if len(holders) > _SHOWN_ROWS else ""
    shown = ", ".join(map(str, holders[:_SHOWN_ROWS]))
    where = f" (rows {shown}{more})" if holders else ""
    return (
        f"batch {block.first + batch} row {row}: {violation.what}{where}; text "
        f"{text[:SHOWN_TEXT]!r}, label {label} {name[:SHOWN_TEXT]!r}"
    )

"""Verify packed (text, label) batches, batch by batch, from what lies beside the shards."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stx_mine.core.ragged import Ragged, ragged_sets
from stx_mine.errors import InputError
from stx_mine.stages.verify.core.batches import SHOWN_TEXT, Violation, check_texts
from stx_mine.stages.verify.core.labels import check_label_batch
from stx_mine.store.batches import POSITIVES, BatchShard, ragged_column
from stx_mine.store.columns import number_values
from stx_mine.store.digests import text_digests
from stx_mine.store.labels import read_labels


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
    known = _known_positives(folder)
    for shards in packings:
        seen: list[NDArray[np.int64]] = []
        for shard in shards:
            for number in range(shard.num_batches):
                table = shard.batch(number)
                for violation in _check_batch(shard, table, members, known):
                    place = f"{shard.path.relative_to(folder)} batch {number}"
                    yield _sentence(place, table, names, violation)
                columns = [table.column(name).to_numpy() for name in ("label", "text_id")]
                seen.append(np.stack(columns, axis=1))
        rows, counts = np.unique(np.concatenate(seen), axis=0, return_counts=True)
        for label, text in rows[counts > 1]:
            packing = shards[0].path.parent.name
            yield f"{packing}: text {text} of label {label} is in the packing more than once"


def _known_positives(folder: Path) -> Ragged:
    """Ids of the known positives of every text; row number = id."""
    path = folder / POSITIVES
    if not path.exists():
        raise InputError(f"expected {POSITIVES} in {folder}, found none; pack again")
    table = pq.read_table(path)
    anchors = table.column("anchor_id").to_numpy()
    positives = ragged_column(table, "positive_ids")
    rows = np.repeat(anchors, positives.lengths())
    return ragged_sets(rows, positives.values, int(anchors.max(initial=-1)) + 1)


def _check_batch(
    shard: BatchShard, table: pa.Table, members: Ragged, known: Ragged
) -> Iterator[Violation]:
    assert shard.texts_per_label is not None
    text_ids, labels = (table.column(name).to_numpy() for name in ("text_id", "label"))
    yield from check_label_batch(text_ids, labels, members, known, shard.texts_per_label)
    digests = text_digests(table.column("text").combine_chunks())
    for row in np.flatnonzero(digests.is_null().to_numpy(zero_copy_only=False)):
        yield Violation(int(row), "the text is empty", ())
    yield from check_texts(np.arange(len(labels)), text_ids, number_values(digests)[0])


def _sentence(place: str, table: pa.Table, names: pa.ChunkedArray, violation: Violation) -> str:
    """The violation, the row's text and label, and the rows that hold the texts concerned."""
    row = violation.row
    text = table.column("text")[row].as_py() or ""
    label = table.column("label")[row].as_py()
    name = names[label].as_py() if 0 <= label < len(names) else "?"
    ids = table.column("text_id").to_numpy()
    holders = np.flatnonzero(np.isin(ids, violation.ids)).tolist()
    where = f" (rows {', '.join(map(str, holders))})" if holders else ""
    return (
        f"{place} row {row}: {violation.what}{where}; text {text[:SHOWN_TEXT]!r}, label {label} "
        f"{name[:SHOWN_TEXT]!r}"
    )

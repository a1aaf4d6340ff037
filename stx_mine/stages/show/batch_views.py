"""Views of packed batches."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from stx_mine.errors import ConfigError
from stx_mine.stages.show.views import BatchView, RowView
from stx_mine.store.artifact import require
from stx_mine.store.batches import list_packings, ragged_column, slot_text_ids, text_columns
from stx_mine.store.run_dir import RunDir


class BatchMakeUp(NamedTuple):
    """What a batch is made of.

    Attributes:
        num_slots: Texts in all places of its rows.
        num_texts: Distinct texts.
        num_random: Negatives that were drawn, since pools were short.
        num_ignored: Texts that losses of rows leave out, together.
    """

    num_slots: int
    num_texts: int
    num_random: int
    num_ignored: int


def batch_view(run: RunDir, words: str, limit: int) -> BatchView:
    """A batch, with its first rows.

    Args:
        run: The run.
        words: EPOCH:BATCH.
        limit: Rows.

    Raises:
        ConfigError: There is no such batch, or its rows are of texts and labels.
        ArtifactError: Nothing is packed.
    """
    epoch, number = map(int, words.split(":"))
    packings = list_packings(require(run, "batches").folder)
    shards = packings[epoch] if epoch < len(packings) else []
    left = number
    for shard in shards:
        if left < shard.num_batches:
            break
        left -= shard.num_batches
    else:
        held = sum(shard.num_batches for shard in shards)
        have = f"{held:,} batches in it" if shards else f"{len(packings)} epochs"
        raise ConfigError(f"there is no batch --batch {words}, found {have}; both count from 0")
    if shard.texts_per_label is not None:
        raise ConfigError(
            "--batch shows rows of pairs, found batches of texts and labels; look at the Parquet "
            f"files in {shard.path.parent}"
        )
    table = shard.batch(left)
    ignored = ragged_column(table, "ignore_ids").lengths()
    first = table.slice(0, limit).select(text_columns(shard.num_negatives)).to_pylist()
    rows = tuple(
        RowView(
            row["anchor"],
            row["positive"],
            tuple(text for name, text in list(row.items())[2:] if text is not None),
            int(number),
        )
        for row, number in zip(first, ignored, strict=False)
    )
    return BatchView(
        epoch,
        number,
        table.num_rows,
        *make_up(table, shard.num_negatives),
        rows,
    )


def make_up(table: pa.Table, num_negatives: int) -> BatchMakeUp:
    """The numbers of a batch.

    Args:
        table: Its rows, with the columns of ids.
        num_negatives: Columns of negatives.
    """
    slots = slot_text_ids(table, num_negatives)
    places = np.concatenate([table.column("anchor_id").to_numpy()[None], slots])
    return BatchMakeUp(
        int((places >= 0).sum()),
        len(np.unique(places[places >= 0])),
        int(table.column("num_random_negatives").to_numpy().sum()),
        len(ragged_column(table, "ignore_ids").values),
    )

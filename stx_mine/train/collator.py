"""Collator: rows of a packed batch in, features of its distinct texts and their roles out.

Where several processes train, each gets the features of its share of the batch's distinct texts
(share r of W: texts r, r + W, r + 2W ...) and the roles of its own rows.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from stx_mine.artifacts.batches import Shard, negative_columns, ragged_column, slot_groups
from stx_mine.models.tokenise import Role, Tokeniser


@dataclass
class PackedCollator:
    """Reads a packed batch and tokenises each distinct text once.

    Attributes:
        shards: Shards of all packings, in order.
        tokenise: Turns texts of a role into model inputs.
        valid_label_columns: sentence-transformers asks every collator for it.
    """

    shards: list[Shard]
    tokenise: Tokeniser
    valid_label_columns: list[str] = field(default_factory=lambda: ["label"])

    def __post_init__(self) -> None:
        self._first_batches = np.cumsum([0, *(shard.num_batches for shard in self.shards)])

    def __call__(self, features: list[dict[str, int]]) -> dict[str, Any]:
        """Features of one packed batch, or of an equal part of it.

        Args:
            features: `{"row": number}` of B / W rows of one packed batch, in order; slice r of W.

        Returns:
            `anchor_*` and `passage_*` (model inputs of share r of the distinct texts; their
            numbers differ), and `label`: a dict of int64 tensors for the B / W rows:
            `anchors` (B / W,) row -> distinct anchor; `targets` (B / W,) row -> distinct passage;
            `negatives` (B / W, K) distinct passages, -1 pads; `ignored` (2, n) pairs of a row
            (from 0) and a distinct passage that the row must not see;
            and for the whole batch, each (): `num_rows`, `num_anchors` and `num_passages`
            (distinct), `num_negatives` (of all rows).
        """
        size, num_rows = self.shards[0].batch_size, len(features)
        batch, first = divmod(features[0]["row"], size)
        assert first % num_rows == size % num_rows == 0, "no equal part of a packed batch"
        assert features[-1]["row"] == batch * size + first + num_rows - 1
        return self.collate(self.read(batch), first // num_rows, size // num_rows)

    def read(self, batch: int) -> pa.Table:
        """A batch by its number over all packings."""
        shard = int(np.searchsorted(self._first_batches, batch, side="right")) - 1
        return self.shards[shard].batch(batch - int(self._first_batches[shard]))

    def collate(self, table: pa.Table, share: int = 0, num_shares: int = 1) -> dict[str, Any]:
        """Model inputs and roles of share `share` of `num_shares` of a batch."""
        num_negatives = self.shards[0].num_negatives
        anchors, anchor_texts = distinct(
            table.column("anchor_id").to_numpy()[None], [table.column("anchor")]
        )
        slots = slot_groups(table, num_negatives)
        names = ["positive", *negative_columns(num_negatives)]
        passages, passage_texts = distinct(slots, [table.column(name) for name in names])
        batch: dict[str, Any] = {}
        roles: dict[str, tuple[pa.ChunkedArray, Role]] = {
            "anchor": (anchor_texts, "query"),
            "passage": (passage_texts, "passage"),
        }
        prompts = self._prompts(table)
        for prefix, (texts, role) in roles.items():
            own_texts = texts.take(_share(len(texts), share, num_shares)).to_pylist()
            for name, value in self.tokenise(own_texts, role, prompts.get(role)).items():
                batch[f"{prefix}_{name}"] = value
        ids = np.unique(slots[slots >= 0])
        num_rows = table.num_rows // num_shares
        own = slice(share * num_rows, (share + 1) * num_rows)
        labels = {
            "anchors": anchors[0, own],
            "targets": passages[0, own],
            "negatives": passages[1:, own].T,
            "ignored": _ignored(table.slice(own.start, num_rows), ids),
            "num_rows": table.num_rows,
            "num_anchors": len(anchor_texts),
            "num_passages": len(passage_texts),
            "num_negatives": int((passages[1:] >= 0).sum()),
        }
        batch["label"] = {name: torch.tensor(value) for name, value in labels.items()}
        return batch

    def _prompts(self, table: pa.Table) -> dict[str, str | None]:
        """Role -> prompt of a batch: its rows are of one source, or of sources of equal prompts."""
        by_name = {one.name: one.prompts for one in self.shards[0].sources}
        return by_name[table.column("source")[0].as_py()] if by_name else {}


def distinct(
    ids_SB: NDArray[np.int64], columns: list[pa.ChunkedArray]
) -> tuple[NDArray[np.int64], pa.ChunkedArray]:
    """Each distinct text once, and where it stands.

    Args:
        ids_SB: int64 (slots, B) group in each slot; -1 where it is empty.
        columns: The texts of each slot, (B,) each.

    Returns:
        int64 (slots, B) numbers of the texts, -1 for empty; the texts in order of their group.
    """
    flat = ids_SB.reshape(-1)
    filled = np.flatnonzero(flat >= 0)
    _, first, inverse = np.unique(flat[filled], return_index=True, return_inverse=True)
    chunks = [chunk for column in columns for chunk in column.chunks]
    texts = pa.chunked_array(chunks, columns[0].type).take(pa.array(filled[first]))
    numbers = np.full(len(flat), -1, np.int64)
    numbers[filled] = inverse
    return numbers.reshape(ids_SB.shape), texts


def _share(num_texts: int, share: int, num_shares: int) -> NDArray[np.int64]:
    """Texts of a share. All shares are of one length: the last text fills up the shorter ones."""
    return np.minimum(np.arange(share, share + num_texts, num_shares), num_texts - 1)


def _ignored(table: pa.Table, ids: NDArray[np.int64]) -> NDArray[np.int64]:
    ignored = ragged_column(table, "ignore_ids")
    rows = np.repeat(np.arange(table.num_rows), ignored.lengths())
    return np.stack([rows, np.searchsorted(ids, ignored.values)])

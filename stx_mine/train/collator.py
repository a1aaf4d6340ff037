"""Collator: rows of a packed batch in, features of its distinct texts and their roles out."""

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
        """Features of one packed batch.

        Args:
            features: `{"row": number}` of all rows of one packed batch, in order.

        Returns:
            `anchor_*` and `passage_*` (model inputs of distinct texts; their numbers differ), and
            `label`: a dict of int64 tensors
            `anchors` (B,) row -> distinct anchor; `targets` (B,) row -> distinct passage;
            `negatives` (B, K) distinct passages, -1 pads; `ignored` (2, n) pairs of a row and a
            distinct passage that the row must not see.
        """
        size = self.shards[0].batch_size
        first = features[0]["row"]
        assert first % size == 0 and features[-1]["row"] == first + size - 1
        return self.collate(self.read(first // size))

    def read(self, batch: int) -> pa.Table:
        """A batch by its number over all packings."""
        shard = int(np.searchsorted(self._first_batches, batch, side="right")) - 1
        return self.shards[shard].batch(batch - int(self._first_batches[shard]))

    def collate(self, table: pa.Table) -> dict[str, Any]:
        """Model inputs and roles of a batch."""
        num_negatives = self.shards[0].num_negatives
        anchor_texts, anchors = distinct(
            table.column("anchor_id").to_numpy()[None], [table.column("anchor")]
        )
        slots = slot_groups(table, num_negatives)
        names = ["positive", *negative_columns(num_negatives)]
        passage_texts, passages = distinct(slots, [table.column(name) for name in names])
        batch: dict[str, Any] = {}
        roles: dict[str, tuple[list[str], Role]] = {
            "anchor": (anchor_texts, "query"),
            "passage": (passage_texts, "passage"),
        }
        prompts = self._prompts(table)
        for prefix, (texts, role) in roles.items():
            for name, value in self.tokenise(texts, role, prompts.get(role)).items():
                batch[f"{prefix}_{name}"] = value
        ids = np.unique(slots[slots >= 0])
        batch["label"] = {
            "anchors": torch.from_numpy(anchors[0]),
            "targets": torch.from_numpy(passages[0]),
            "negatives": torch.from_numpy(np.ascontiguousarray(passages[1:].T)),
            "ignored": torch.from_numpy(_ignored(table, ids)),
        }
        return batch

    def _prompts(self, table: pa.Table) -> dict[str, str | None]:
        """Role -> prompt of a batch: its rows are of one source, or of sources of equal prompts."""
        by_name = {one.name: one.prompts for one in self.shards[0].sources}
        return by_name[table.column("source")[0].as_py()] if by_name else {}


def distinct(
    ids_SB: NDArray[np.int64], columns: list[pa.ChunkedArray]
) -> tuple[list[str], NDArray[np.int64]]:
    """Each distinct text once, and where it stands.

    Args:
        ids_SB: int64 (slots, B) group in each slot; -1 where it is empty.
        columns: The texts of each slot, (B,) each.

    Returns:
        The texts in order of their group, and int64 (slots, B) numbers into them; -1 for empty.
    """
    flat = ids_SB.reshape(-1)
    filled = np.flatnonzero(flat >= 0)
    _, first, inverse = np.unique(flat[filled], return_index=True, return_inverse=True)
    chunks = [chunk for column in columns for chunk in column.chunks]
    texts = pa.chunked_array(chunks, columns[0].type).take(pa.array(filled[first]))
    numbers = np.full(len(flat), -1, np.int64)
    numbers[filled] = inverse
    return texts.to_pylist(), numbers.reshape(ids_SB.shape)


def _ignored(table: pa.Table, ids: NDArray[np.int64]) -> NDArray[np.int64]:
    ignored = ragged_column(table, "ignore_ids")
    rows = np.repeat(np.arange(table.num_rows), ignored.lengths())
    return np.stack([rows, np.searchsorted(ids, ignored.values)])

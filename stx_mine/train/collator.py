"""Collator: rows of a packed batch in, features of its distinct texts and their roles out.

Where several processes train, each gets the features of its share of the batch's distinct texts
(share r of W: texts r, r + W, r + 2W ...) and the roles of its own rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from stx_mine.artifacts.batches import Shard, negative_columns, ragged_column, slot_groups
from stx_mine.models.tokenise import Role, Tokeniser
from stx_mine.ragged import Ragged

Weight = Literal["one", "count", "logq"]


@dataclass
class PackedCollator:
    """Reads a packed batch and tokenises each distinct text once.

    Attributes:
        shards: Shards of all packings, in order.
        tokenise: Turns texts of a role into model inputs.
        weight: How much a text of the batch counts: `one`; `count`: as often as it stands there;
            `logq`: by the inverse of the share of batches that it stands in (Yi et al. 2019).
        symmetric: Whether the roles tell which anchors are right for each positive.
        num_shared: Random distinct passages of the batch that all rows share.
        seed: Seed of what is shared.
        valid_label_columns: sentence-transformers asks every collator for it.
    """

    shards: list[Shard]
    tokenise: Tokeniser
    weight: Weight = "one"
    symmetric: bool = False
    num_shared: int = 0
    seed: int = 0
    valid_label_columns: list[str] = field(default_factory=lambda: ["label"])

    def __post_init__(self) -> None:
        self._first_batches = np.cumsum([0, *(shard.num_batches for shard in self.shards)])
        self._rareness = text_rareness(self.shards) if self.weight == "logq" else None

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
            (distinct), `num_negatives` (of all rows); `shared` (S,) distinct passages.
            Where `symmetric`: `ignored_anchors` (2, n) pairs of a row and another distinct anchor
            for which the row's positive is right too. Where `weight` is not `one`:
            `anchor_log_weights`, `passage_log_weights` (float32) of the distinct texts.
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
        ignored = _ignored(table, ids)
        num_rows = table.num_rows // num_shares
        own = slice(share * num_rows, (share + 1) * num_rows)
        labels = {
            "anchors": anchors[0, own],
            "targets": passages[0, own],
            "negatives": passages[1:, own].T,
            "ignored": _of_rows(ignored, own),
            "num_rows": table.num_rows,
            "num_anchors": len(anchor_texts),
            "num_passages": len(passage_texts),
            "num_negatives": int((passages[1:] >= 0).sum()),
            "shared": self._shared(table, len(ids)),
        }
        if self.symmetric:
            labels["ignored_anchors"] = other_right_anchors(anchors[0], passages[0], ignored, own)
        if self.weight != "one":
            anchor_ids = np.unique(table.column("anchor_id").to_numpy())
            labels["anchor_log_weights"] = self._log_weights(anchors, anchor_ids, 0)
            labels["passage_log_weights"] = self._log_weights(passages, ids, 1)
        batch["label"] = {name: torch.tensor(value) for name, value in labels.items()}
        return batch

    def _prompts(self, table: pa.Table) -> dict[str, str | None]:
        """Role -> prompt of a batch: its rows are of one source, or of sources of equal prompts."""
        by_name = {one.name: one.prompts for one in self.shards[0].sources}
        return by_name[table.column("source")[0].as_py()] if by_name else {}

    def _shared(self, table: pa.Table, num_passages: int) -> NDArray[np.int64]:
        generator = np.random.default_rng((self.seed, table.column("row_id")[0].as_py()))
        size = min(self.num_shared, num_passages)
        return np.sort(generator.choice(num_passages, size, replace=False)).astype(np.int64)

    def _log_weights(
        self, numbers: NDArray[np.int64], ids: NDArray[np.int64], role: int
    ) -> NDArray[np.float32]:
        if self._rareness is None:
            weights = np.bincount(numbers[numbers >= 0], minlength=len(ids)).astype(np.float64)
        else:
            weights = self._rareness[role][ids]
        return np.log(weights).astype(np.float32)


def text_rareness(shards: list[Shard]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Batches / batches that a text stands in, of anchors and of passages, at their group.

    Groups that stand in no batch have infinity.
    """
    num_groups = 1 + max(int(one.max()) for shard in shards for one in _batch_ids(shard))
    counts = np.zeros((2, num_groups))
    num_batches = sum(shard.num_batches for shard in shards)
    for shard in shards:
        for number, ids in enumerate(_batch_ids(shard)):
            counts[number % 2, ids] += 1
    with np.errstate(divide="ignore"):
        anchors, passages = num_batches / counts
    return anchors, passages


def _batch_ids(shard: Shard) -> Iterator[NDArray[np.int64]]:
    """Distinct anchors, then distinct passages, of each batch of a shard."""
    ids = shard.ids()
    for start in range(0, len(ids), shard.batch_size):
        table = ids.slice(start, shard.batch_size)
        slots = slot_groups(table, shard.num_negatives)
        yield np.unique(table.column("anchor_id").to_numpy())
        yield np.unique(slots[slots >= 0])


def other_right_anchors(
    anchors_B: NDArray[np.int64],
    targets_B: NDArray[np.int64],
    ignored: NDArray[np.int64],
    own: slice,
) -> NDArray[np.int64]:
    """Anchors for which the positive of a row is right, other than the row's own.

    Args:
        anchors_B: int64 (B,) row -> distinct anchor.
        targets_B: int64 (B,) row -> distinct passage.
        ignored: int64 (2, n) pairs of a row and another passage that is right for its anchor.
        own: The rows to look at.

    Returns:
        int64 (2, m) pairs of a row (from 0 in `own`) and a distinct anchor, sorted by row.
    """
    passages = np.concatenate([targets_B, ignored[1]])
    anchors = np.concatenate([anchors_B, anchors_B[ignored[0]]])
    num_anchors = int(anchors_B.max()) + 1
    passages, anchors = np.divmod(np.unique(passages * num_anchors + anchors), num_anchors)
    offsets = np.searchsorted(passages, np.arange(passages.max() + 2))
    right, _ = Ragged(offsets.astype(np.int64), anchors).take(targets_B[own])
    rows = np.repeat(np.arange(len(right)), right.lengths())
    others = right.values != anchors_B[own][rows]
    return np.stack([rows[others], right.values[others]])


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


def _of_rows(pairs: NDArray[np.int64], rows: slice) -> NDArray[np.int64]:
    """Pairs, sorted by row, of some rows; these are numbered from 0."""
    first, last = np.searchsorted(pairs[0], [rows.start, rows.stop])
    found: NDArray[np.int64] = pairs[:, first:last] - np.array([[rows.start], [0]])
    return found

"""Collator: rows of a packed batch in, features of its distinct texts and their roles out.

Where several processes train, each gets the features of its share of the batch's distinct texts
(share r of W: texts r, r + W, r + 2W ...) and the roles of its own rows.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from stx_mine.core.groups import members_of
from stx_mine.core.role import Role
from stx_mine.stages.train.batch_collator import BatchCollator, rank_texts
from stx_mine.stages.train.core.hidden_texts import (
    BatchRoles,
    hidden_anchors,
    hidden_passages,
    other_right_anchors,
)
from stx_mine.stages.train.known_tokens import RememberingTokeniser
from stx_mine.store.avoided import AvoidedGroups, read_text_groups
from stx_mine.store.batches import (
    BatchShard,
    negative_columns,
    ragged_column,
    ragged_scores,
    slot_text_ids,
)

Weight = Literal["one", "count", "logq"]
_ROLES: dict[str, Role] = {"anchor": "query", "passage": "passage"}


@dataclass
class PackedCollator(BatchCollator):
    """Reads a packed batch and takes each distinct text once.

    Attributes:
        weight: How much a text of the batch counts: `one`; `count`: as often as it stands there;
            `logq`: by the inverse of the share of batches that it stands in (Yi et al. 2019).
        symmetric: Whether the roles tell which anchors are right for each positive.
        num_shared: Random distinct passages of the batch that all rows share.
        seed: Seed of what is shared.
        guide: Tokenises for the model that guides the loss, if one does.
        scores: Whether the scores of a teacher are wanted.
        interactions: What else rows are compared with, as `PackedMNRLoss` has it.
    """

    weight: Weight = "one"
    symmetric: bool = False
    num_shared: int = 0
    seed: int = 0
    guide: RememberingTokeniser | None = None
    scores: bool = False
    interactions: Collection[str] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        self._rareness = text_rareness(self.shards) if self.weight == "logq" else None
        folder = self.shards[0].path.parent.parent
        if self.symmetric or self.interactions:
            self._groups = read_text_groups(folder)
        if self.interactions:
            self._avoided = AvoidedGroups.open(folder)

    def collate(self, table: pa.Table, rank: int = 0, num_ranks: int = 1) -> dict[str, Any]:
        """Model inputs and roles of share `rank` of `num_ranks` of a batch.

        Returns:
            `anchor_*` and `passage_*` (model inputs of share r of the distinct texts; their
            numbers differ), `guide_anchor_*` and `guide_passage_*` where there is a guide, and
            `label`: a dict of int64 tensors for the B / W rows:
            `anchors` (B / W,) row -> distinct anchor; `targets` (B / W,) row -> distinct passage;
            `negatives` (B / W, K) distinct passages, -1 pads; `ignored` (2, n) pairs of a row
            (from 0) and a distinct passage that the row must not see;
            and for the whole batch, each (): `num_rows`, `num_anchors` and `num_passages`
            (distinct), `num_negatives` (of all rows); `shared` (S,) distinct passages.
            Where `symmetric`, or positives are compared with anchors: `ignored_anchors` (2, n)
            pairs of a row and another distinct anchor for which the row's positive is right too.
            For the other `interactions`: `hidden_anchors`, `hidden_passages` (2, n) pairs of a row
            and a text that is no negative of its anchor, or of its positive, their own included.
            Where `weight` is not `one`: `anchor_log_weights`, `passage_log_weights` (float32) of
            the distinct texts. Where `scores`: `scores` (B / W, 1 + K) float32 of the positive and
            the negatives, 0 pads, NaN where the teacher has none; and for the whole batch, each
            (): `num_scored_rows` whose positive and any negative have scores, and
            `num_scored_negatives` of these rows.
        """
        num_negatives = self.shards[0].num_negatives
        anchors, anchor_texts = distinct(
            table.column("anchor_id").to_numpy()[None], [table.column("anchor")]
        )
        slots = slot_text_ids(table, num_negatives)
        names = ["positive", *negative_columns(num_negatives)]
        passages, passage_texts = distinct(slots, [table.column(name) for name in names])
        own_texts = {
            "anchor": anchor_texts.take(rank_texts(len(anchor_texts), rank, num_ranks)),
            "passage": passage_texts.take(rank_texts(len(passage_texts), rank, num_ranks)),
        }
        batch = self._inputs(own_texts, self.prompts(table))
        ids = np.unique(slots[slots >= 0])
        ignored = _ignored(table, ids)
        num_rows = table.num_rows // num_ranks
        own = slice(rank * num_rows, (rank + 1) * num_rows)
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
        anchor_ids = np.unique(table.column("anchor_id").to_numpy())
        if self.symmetric or self.interactions:
            roles = BatchRoles(anchors[0], passages, ignored, self._groups.of(anchor_ids))
            labels |= self._hidden(roles, own, anchor_ids, ids)
        if self.weight != "one":
            labels["anchor_log_weights"] = self._log_weights(anchors, anchor_ids, 0)
            labels["passage_log_weights"] = self._log_weights(passages, ids, 1)
        if self.scores:
            labels |= _score_labels(table, passages.T, own)
        batch["label"] = {name: torch.tensor(value) for name, value in labels.items()}
        return batch

    def _inputs(
        self, texts: dict[str, pa.ChunkedArray], prompts: dict[str, str | None]
    ) -> dict[str, Any]:
        """Inputs of the model, then those of the guide with its own prompts."""
        inputs, guiding = {}, {}
        for prefix, some in texts.items():
            words, role = some.to_pylist(), _ROLES[prefix]
            for name, value in self.tokenise(words, role, prompts.get(role)).items():
                inputs[f"{prefix}_{name}"] = value
            for name, value in self.guide(words, role).items() if self.guide else ():
                guiding[f"guide_{prefix}_{name}"] = value
        return inputs | guiding

    def _hidden(
        self,
        roles: BatchRoles,
        own: slice,
        anchor_ids: NDArray[np.int64],
        passage_ids: NDArray[np.int64],
    ) -> dict[str, NDArray[np.int64]]:
        """What rows are not compared with, of anchors, and of passages beside their positive."""
        found = {}
        if self.symmetric or "passage-query" in self.interactions:
            found["ignored_anchors"] = other_right_anchors(roles, own)
        if {"query-query", "passage-passage"} & set(self.interactions):
            rows = np.searchsorted(self._avoided.anchors, anchor_ids)
            known, near = (one.take(rows)[0] for one in (self._avoided.known, self._avoided.near))
        if "query-query" in self.interactions:
            found["hidden_anchors"] = hidden_anchors(roles, own, known, near)
        if "passage-passage" in self.interactions:
            groups = self._groups.of(passage_ids)
            right = members_of(known, np.arange(len(passage_ids)), groups)
            found["hidden_passages"] = hidden_passages(roles, own, right)
        return found

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


def text_rareness(shards: list[BatchShard]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
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


def _batch_ids(shard: BatchShard) -> Iterator[NDArray[np.int64]]:
    """Distinct anchors, then distinct passages, of each batch of a shard."""
    ids = shard.ids()
    for start in range(0, len(ids), shard.batch_size):
        table = ids.slice(start, shard.batch_size)
        slots = slot_text_ids(table, shard.num_negatives)
        yield np.unique(table.column("anchor_id").to_numpy())
        yield np.unique(slots[slots >= 0])


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


def padded_scores(table: pa.Table, num_slots: int) -> NDArray[np.float32]:
    """float32 (B, num_slots): scores of the positive and the negatives of each row.

    0 pads; NaN stands for a score that the teacher does not have.
    """
    offsets, scores = ragged_scores(table)
    padded = np.zeros((table.num_rows, num_slots), np.float32)
    padded[np.arange(num_slots) < np.diff(offsets)[:, None]] = scores
    return padded


def _score_labels(
    table: pa.Table, slots_BN: NDArray[np.int64], own: slice
) -> dict[str, NDArray[np.float32] | int]:
    """Scores of some rows, and how many rows and negatives of the batch have scores.

    Args:
        table: The batch.
        slots_BN: The positive and the negatives of each row; -1 for none.
        own: The rows to take.
    """
    scores = padded_scores(table, slots_BN.shape[1])
    there = ~np.isnan(scores) & (slots_BN >= 0)
    scored = there[:, 1:] & there[:, :1]
    return {
        "scores": scores[own],
        "num_scored_negatives": int(scored.sum()),
        "num_scored_rows": int(scored.any(1).sum()),
    }


def _ignored(table: pa.Table, ids: NDArray[np.int64]) -> NDArray[np.int64]:
    ignored = ragged_column(table, "ignore_ids")
    rows = np.repeat(np.arange(table.num_rows), ignored.lengths())
    return np.stack([rows, np.searchsorted(ids, ignored.values)])


def _of_rows(pairs: NDArray[np.int64], rows: slice) -> NDArray[np.int64]:
    """Pairs, sorted by row, of some rows; these are numbered from 0."""
    first, last = np.searchsorted(pairs[0], [rows.start, rows.stop])
    found: NDArray[np.int64] = pairs[:, first:last] - np.array([[rows.start], [0]])
    return found

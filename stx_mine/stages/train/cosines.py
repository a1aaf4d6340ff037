"""Cosines of a fixed sample of rows: of positives, of own negatives, of others in the batch.

Shape letters: R rows of the sample from one batch, A distinct anchors, M distinct passages, K
negatives a row, D dimensions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from torch.nn import functional

from stx_mine.core.role import Role
from stx_mine.models.tokenise import Tokeniser
from stx_mine.stages.train.collator import distinct
from stx_mine.stages.train.held_back import some_rows
from stx_mine.stages.train.losses.embedding import MiniBatches, PrefixedFeatures, embed, on_device
from stx_mine.store.batches import BatchShard, negative_columns, ragged_column, slot_text_ids

PASSAGE_KINDS = ("positive", "hard", "random")
_BATCHES, _MOST_ROWS, _FEWEST_ROWS = 4, 256, 16
# A forward pass is about a third of a training step, so this share of its rows is 2% of its work.
_SHARE_OF_ROWS = 0.06


@dataclass(frozen=True)
class RowSample:
    """Some rows of one batch, tokenised.

    Attributes:
        features: Model inputs of the distinct anchors and of the distinct passages.
        anchors_R: int64 (R,) row -> distinct anchor.
        slots_SR: int64 (1 + K, R) distinct passage of the positive and of each negative; -1 pads.
        random_RM: bool (R, M) passages that stand in the batch for other rows, and are not known
            to be right for this one.
    """

    features: dict[Role, PrefixedFeatures]
    anchors_R: NDArray[np.int64]
    slots_SR: NDArray[np.int64]
    random_RM: NDArray[np.bool_]

    @classmethod
    def of(
        cls, shard: BatchShard, number: int, rows: NDArray[np.int64], tokenise: Tokeniser
    ) -> "RowSample":
        """Rows of batch `number` of a shard."""
        table = some_rows(shard.batch(number), rows, shard.num_negatives)
        slots = slot_text_ids(table, shard.num_negatives)
        anchors, anchor_texts = distinct(
            table.column("anchor_id").to_numpy()[None], [table.column("anchor")]
        )
        names = ["positive", *negative_columns(shard.num_negatives)]
        passages, passage_texts = distinct(slots, [table.column(name) for name in names])
        random = np.ones((table.num_rows, len(passage_texts)), bool)
        for slot in passages:
            filled = np.flatnonzero(slot >= 0)
            random[filled, slot[filled]] = False
        ignored = ragged_column(table, "ignore_ids")
        owners = np.repeat(np.arange(table.num_rows), ignored.lengths())
        random[owners, np.searchsorted(np.unique(slots[slots >= 0]), ignored.values)] = False
        by_name = {source.name: source.prompts for source in shard.sources}
        prompts = by_name[table.column("source")[0].as_py()] if by_name else {}
        texts: dict[Role, Any] = {"query": anchor_texts, "passage": passage_texts}
        features = {
            role: tokenise(some.to_pylist(), role, prompts.get(role))
            for role, some in texts.items()
        }
        return cls(features, anchors[0], passages, random)

    def cosines(self, anchors_AD: torch.Tensor, passages_MD: torch.Tensor) -> list[NDArray[Any]]:
        """float32 values of each of `PASSAGE_KINDS`, flat.

        Args:
            anchors_AD: (A, D) embeddings of the distinct anchors, of any length.
            passages_MD: (M, D) embeddings of the distinct passages.
        """
        units = (functional.normalize(one.float(), dim=1) for one in (anchors_AD, passages_MD))
        anchors, passages = (unit.cpu().numpy() for unit in units)
        scores_RM = anchors[self.anchors_R] @ passages.T
        rows = np.arange(len(scores_RM))
        slots, places = np.nonzero(self.slots_SR[1:] >= 0)
        return [
            scores_RM[rows, self.slots_SR[0]],
            scores_RM[places, self.slots_SR[1:][slots, places]],
            scores_RM[self.random_RM],
        ]


def sample_rows(
    batches: Sequence[tuple[BatchShard, int]], num_rows: int, tokenise: Tokeniser
) -> list[RowSample]:
    """Rows at equal distances in up to four batches at equal distances.

    Args:
        batches: (shard, number within it) of the batches there are.
        num_rows: Rows in all, about.
        tokenise: Of the model that trains.
    """
    chosen = _spread(len(batches), _BATCHES)
    each = -(-num_rows // len(chosen))
    return [
        RowSample.of(shard, number, _spread(shard.batch_size, each), tokenise)
        for shard, number in (batches[one] for one in chosen)
    ]


def rows_to_sample(num_steps: int, batch_size: int, num_measurements: int) -> int:
    """Rows of the sample: up to 256, fewer where they would cost 2% of the training.

    Args:
        num_steps: Steps of the run.
        batch_size: Rows a step.
        num_measurements: How often the sample is embedded.
    """
    affordable = int(_SHARE_OF_ROWS * num_steps * batch_size / num_measurements)
    return min(_MOST_ROWS, max(_FEWEST_ROWS, affordable))


def measure_cosines(
    model: SentenceTransformer, sample: Sequence[RowSample], mini_batches: MiniBatches
) -> dict[str, dict[str, Any]]:
    """Mean and deciles of the cosines of each kind; kinds without any value are absent.

    Args:
        model: In evaluation mode.
        sample: The rows.
        mini_batches: What goes through the network at one time.
    """
    found: list[list[NDArray[Any]]] = [[] for _ in PASSAGE_KINDS]
    with torch.no_grad():
        for rows in sample:
            anchors, passages = (
                embed(model, on_device(rows.features[role], model.device), mini_batches)
                for role in ("query", "passage")
            )
            for kind, values in zip(found, rows.cosines(anchors, passages), strict=True):
                kind.append(values)
    together = {kind: np.concatenate(one) for kind, one in zip(PASSAGE_KINDS, found, strict=True)}
    return {kind: summary(values) for kind, values in together.items() if len(values)}


def summary(values: NDArray[Any]) -> dict[str, Any]:
    """The mean and the nine deciles of some values, interpolated linearly."""
    deciles = np.quantile(values.astype(np.float64), np.arange(1, 10) / 10)
    return {"mean": float(values.mean(dtype=np.float64)), "deciles": deciles.tolist()}


def _spread(num: int, wanted: int) -> NDArray[np.int64]:
    """`wanted` different numbers below `num` at equal distances; all of them if there are fewer."""
    wanted = min(num, wanted)
    return (2 * np.arange(wanted) + 1) * num // (2 * wanted)

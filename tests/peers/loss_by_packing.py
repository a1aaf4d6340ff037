"""The cached loss of sentence-transformers, made of the loss over packed batches."""

from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor
from torch.nn import functional

from stx_mine.stages.train.losses.embedding import MiniBatches
from stx_mine.stages.train.losses.mnr import PackedMNRLoss

# Tokens of a text in the peer's tests.
WIDTH = 5


class CachedMultipleNegativesRankingLoss(PackedMNRLoss):
    """As the peer's, for rows of which no text repeats: those are a packed batch as they stand."""

    def __init__(self, model: SentenceTransformer, mini_batch_size: int) -> None:
        mini_batches = MiniBatches(mini_batch_size * WIDTH)
        super().__init__(model, 1 / 20, chunk_rows=mini_batch_size, mini_batches=mini_batches)

    def forward(self, features: list[dict[str, Any]], labels: Tensor) -> Tensor:
        anchors, *columns = features
        rows = torch.arange(len(anchors["input_ids"]))
        packed = {
            "anchors": rows,
            "targets": rows,
            "ignored": torch.empty((2, 0), dtype=torch.int64),
            "num_anchors": torch.tensor(len(rows)),
            "num_passages": torch.tensor(len(rows) * len(columns)),
        }
        return super().forward([anchors, stacked(columns)], packed)


def stacked(columns: list[dict[str, Any]]) -> dict[str, Any]:
    """The inputs of all columns, one below the other, padded to the widest."""
    widest = max(column["input_ids"].shape[1] for column in columns)
    return {
        name: torch.cat(
            [functional.pad(one[name], (0, widest - one[name].shape[1])) for one in columns]
        )
        if isinstance(value, Tensor)
        else value
        for name, value in columns[0].items()
    }

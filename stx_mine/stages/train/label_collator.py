"""Collator of (text, label) batches: their texts in, features and labels out."""

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import torch

from stx_mine.stages.train.batch_collator import BatchCollator, rank_texts


@dataclass
class LabelCollator(BatchCollator):
    """Reads a batch in the layout `labels`; no text stands in it twice."""

    def collate(self, table: pa.Table, rank: int = 0, num_ranks: int = 1) -> dict[str, Any]:
        """Model inputs of share `rank` of `num_ranks`, and the labels of the whole batch.

        Returns:
            `text_*` (model inputs of texts r, r + W, r + 2W ...), and `label`: a dict with
            `labels` int64 (B,) and `num_rows` () of the batch.
        """
        texts = table.column("text").take(rank_texts(table.num_rows, rank, num_ranks))
        inputs = self.tokenise(texts.to_pylist(), "text")
        batch: dict[str, Any] = {f"text_{name}": value for name, value in inputs.items()}
        labels = torch.tensor(table.column("label").to_numpy())
        batch["label"] = {"labels": labels, "num_rows": torch.tensor(table.num_rows)}
        return batch

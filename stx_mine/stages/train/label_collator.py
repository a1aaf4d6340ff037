"""Collator of (text, label) batches: their texts in, features and labels out."""

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import torch

from stx_mine.stages.train.batch_collator import BatchCollator, share_of


@dataclass
class LabelCollator(BatchCollator):
    """Reads a batch in the layout `labels`; no text stands in it twice."""

    def collate(self, table: pa.Table, share: int = 0, num_shares: int = 1) -> dict[str, Any]:
        """Model inputs of share `share` of `num_shares`, and the labels of the whole batch.

        Returns:
            `text_*` (model inputs of texts r, r + W, r + 2W ...), and `label`: a dict with
            `labels` int64 (B,) and `num_rows` () of the batch.
        """
        texts = table.column("text").take(share_of(table.num_rows, share, num_shares))
        inputs = self.tokenise(texts.to_pylist(), "text")
        batch: dict[str, Any] = {f"text_{name}": value for name, value in inputs.items()}
        labels = torch.tensor(table.column("label").to_numpy())
        batch["label"] = {"labels": labels, "num_rows": torch.tensor(table.num_rows)}
        return batch

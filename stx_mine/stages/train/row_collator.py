"""Collator of rows as they stand, a column a slot, for the library's losses over rows."""

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from stx_mine.core.role import Role
from stx_mine.stages.train.batch_collator import BatchCollator
from stx_mine.store.batches import text_columns


@dataclass
class RowCollator(BatchCollator):
    """Reads a batch of full rows and tokenises every slot of every row."""

    def collate(self, table: pa.Table, rank: int = 0, num_ranks: int = 1) -> dict[str, Any]:
        """Model inputs of each column of a whole batch: `anchor_*`, `positive_*`, `negative_1_*`.

        The library's losses want no labels of rows; there is no `label`.
        """
        assert num_ranks == 1, "rows as they stand are of one process"
        batch: dict[str, Any] = {}
        prompts = self.prompts(table)
        for column in text_columns(self.shards[0].num_negatives):
            role: Role = "query" if column == "anchor" else "passage"
            texts = table.column(column).to_pylist()
            for name, value in self.tokenise(texts, role, prompts.get(role)).items():
                batch[f"{column}_{name}"] = value
        return batch

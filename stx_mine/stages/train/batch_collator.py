"""The frame of every collator: finds a packed batch by its rows, and the share of a process."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stx_mine.models.tokenise import Tokeniser
from stx_mine.stages.train.known_tokens import RememberingTokeniser
from stx_mine.store.batches import BatchShard


@dataclass
class BatchCollator(ABC):
    """Reads packed batches; what becomes of one is up to the loss.

    Attributes:
        shards: Shards of all packings, in order.
        tokenise: Turns texts of a role into model inputs.
        valid_label_columns: sentence-transformers asks every collator for it.
    """

    shards: list[BatchShard]
    tokenise: Tokeniser | RememberingTokeniser
    valid_label_columns: list[str] = field(default_factory=lambda: ["label"], kw_only=True)

    def __post_init__(self) -> None:
        self._first_batches = np.cumsum([0, *(shard.num_batches for shard in self.shards)])

    def __call__(self, features: list[dict[str, int]]) -> dict[str, Any]:
        """Features of one packed batch, or of an equal part of it.

        Args:
            features: `{"row": number}` of B / W rows of one packed batch, in order; slice r of W.
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

    @abstractmethod
    def collate(self, table: pa.Table, rank: int = 0, num_ranks: int = 1) -> dict[str, Any]:
        """Model inputs, and `label`, of share `rank` of `num_ranks` of a batch."""

    def prompts(self, table: pa.Table) -> dict[str, str | None]:
        """Role -> prompt of a batch: its rows are of one source, or of sources of equal prompts."""
        by_name = {source.name: source.prompts for source in self.shards[0].sources}
        return by_name[table.column("source")[0].as_py()] if by_name else {}


def rank_texts(num_texts: int, rank: int, num_ranks: int) -> NDArray[np.int64]:
    """Texts of a share. All shares are of one length: the last text fills up the shorter ones."""
    return np.minimum(np.arange(rank, rank + num_texts, num_ranks), num_texts - 1)

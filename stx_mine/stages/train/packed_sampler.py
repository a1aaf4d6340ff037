"""A batch sampler that keeps packed batches whole. It needs torch alone, nothing of stx-mine.

Use it with plain sentence-transformers, whose default sampler shuffles rows and so destroys any
packing:

    from functools import partial
    args = SentenceTransformerTrainingArguments(
        ..., per_device_train_batch_size=1024, batch_sampler=PackedBatchSampler)

With several processes give the packed batch size and let each process take its equal part:

    per_device_train_batch_size=1024 // num_processes,
    batch_sampler=partial(PackedBatchSampler, packed_batch_size=1024)
"""

from collections.abc import Iterator, Sized
from typing import Any

import torch
from torch.utils.data import Sampler


class PackedBatchSampler(Sampler[list[int]]):  # type: ignore[misc]
    """Yield the rows of packed batches, batch after batch, each cut into equal slices.

    Row `[i * B, (i + 1) * B)` of the dataset are packed batch i. A pass reads one packing: the
    first passes read the packings in their order, later ones read them again with the batches
    in a new random order. Nothing ever moves a row from one batch to another.
    """

    def __init__(
        self,
        dataset: Sized,
        batch_size: int,
        drop_last: bool = True,
        valid_label_columns: list[str] | None = None,
        generator: torch.Generator | None = None,
        seed: int = 0,
        packed_batch_size: int | None = None,
        num_packings: int = 1,
        num_passes: int = 1,
    ) -> None:
        """Take the arguments that SentenceTransformerTrainer gives, and the shape of the packing.

        Args:
            dataset: The rows of all packings, one after the other.
            batch_size: Rows of a slice: what one process sees in one step.
            drop_last: Ignored: packed batches are always whole.
            valid_label_columns: Ignored.
            generator: Ignored: the order follows from `seed` and the pass.
            seed: Seed of the order of batches.
            packed_batch_size: Rows of a packed batch; None: `batch_size`.
            num_packings: Packings in the dataset, all of the same length.
            num_passes: Packings that one iteration reads.

        Raises:
            ValueError: The sizes do not divide one another.
        """
        self.batch_size, self.drop_last, self.seed = batch_size, drop_last, seed
        self.packed_batch_size = packed_batch_size or batch_size
        self.num_packings, self.num_passes, self.epoch = num_packings, num_passes, 0
        rows = len(dataset)
        if self.packed_batch_size % batch_size:
            raise ValueError(
                f"the packed batch size {self.packed_batch_size} must be a multiple of the batch "
                f"size {batch_size}; change per_device_train_batch_size or the number of processes"
            )
        if rows % (self.packed_batch_size * num_packings):
            raise ValueError(
                f"{rows} rows are no whole number of packed batches of {self.packed_batch_size} "
                f"in {num_packings} packings; give the batch size that the data was packed with"
            )
        self.batches_per_pass = rows // (self.packed_batch_size * num_packings)

    def set_epoch(self, epoch: int) -> None:
        """Tell which pass the next iteration begins with."""
        self.epoch = epoch

    def __len__(self) -> int:
        slices = self.packed_batch_size // self.batch_size
        return self.num_passes * self.batches_per_pass * slices

    def __iter__(self) -> Iterator[list[int]]:
        for number in range(self.epoch, self.epoch + self.num_passes):
            first_batch = (number % self.num_packings) * self.batches_per_pass
            for batch in self._order(number):
                start = (first_batch + batch) * self.packed_batch_size
                for offset in range(0, self.packed_batch_size, self.batch_size):
                    yield list(range(start + offset, start + offset + self.batch_size))

    def _order(self, number: int) -> list[int]:
        if number < self.num_packings:
            return list(range(self.batches_per_pass))
        generator = torch.Generator().manual_seed(self.seed + number)
        order: list[Any] = torch.randperm(self.batches_per_pass, generator=generator).tolist()
        return order

"""A batch sampler that keeps packed batches whole. It needs torch alone, nothing of stx-mine.

Use it with plain sentence-transformers, whose default sampler shuffles rows and so destroys any
packing:

    from functools import partial
    args = SentenceTransformerTrainingArguments(
        ..., per_device_train_batch_size=1024, batch_sampler=PackedBatchSampler)

With several processes give the packed batch size and let each process take its equal part:

    per_device_train_batch_size=1024 // num_processes,
    batch_sampler=partial(PackedBatchSampler, packed_batch_size=1024)

The rows must be what any trainer may read: those of `stx-mine pack --policy strict` or `--layout
labels`, in the configuration that `load_dataset(DIR, split="train")` gives.
"""

from collections.abc import Iterator, Sized
from typing import Any

import torch
from torch.utils.data import Sampler

# Columns of packed batches that are no inputs of a model.
_IDS = ("ignore_ids", "row_id", "anchor_id", "positive_id", "negative_ids", "text_id")
# What `Dataset.info.description` says of batches that need a mask, whatever columns are taken.
_NEEDS_A_MASK = "policy merge"
# Rows that are looked at before training: enough to tell how the batches were packed.
_LOOKED_AT = 65_536


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
            ValueError: The sizes do not divide one another, or the rows are not for any trainer:
                they hold ids, repeat texts in a batch, or a slice has one label only.
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
        names = getattr(dataset, "column_names", None)
        if isinstance(names, list):
            _refuse_columns(names, str(getattr(getattr(dataset, "info", None), "description", "")))
            self._refuse_batches(dataset, names)

    def _refuse_batches(self, dataset: Any, names: list[str]) -> None:
        """Refuse the first batches where they repeat a text or a slice has one label.

        Raises:
            ValueError: That is so.
        """
        size = self.packed_batch_size
        for start in range(0, min(len(dataset), max(_LOOKED_AT, size)), size):
            batch = dataset[start : start + size]
            seen: set[str] = set()
            for name in names:
                for text in batch[name] if name != "dataset_name" else ():
                    if isinstance(text, str) and text in seen:
                        raise ValueError(
                            f"expected batches without a repeated text, found {text[:60]!r} twice "
                            f"in batch {start // size}: it would be its own negative; pack with "
                            "`stx-mine pack --policy strict --overwrite`, or train on batches of "
                            "the policy merge with `stx-mine train`, which masks what repeats"
                        )
                    if isinstance(text, str):
                        seen.add(text)
            for first in range(0, size if "label" in names else 0, self.batch_size):
                labels = batch["label"][first : first + self.batch_size]
                if all(isinstance(one, int) for one in labels) and len(set(labels)) == 1:
                    raise ValueError(
                        f"expected two labels or more in every step, found {labels[0]} alone in "
                        f"rows {start + first} to {start + first + self.batch_size - 1}, from "
                        "which no loss learns; give a larger per_device_train_batch_size, or pack "
                        "with a smaller --texts-per-label"
                    )

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


def _refuse_columns(names: list[str], description: str) -> None:
    """Refuse columns that only the losses of stx-mine read, and batches that need a mask.

    Raises:
        ValueError: That is so.
    """
    found = [name for name in _IDS if name in names]
    if found and not {"anchor", "text"} & set(names):
        raise ValueError(
            f"expected columns of texts, found ids alone ({', '.join(found)}), which only "
            "`stx-mine train` reads; pack with `stx-mine pack --layout inline --policy strict "
            "--overwrite`"
        )
    if _NEEDS_A_MASK in description:
        raise ValueError(
            "expected batches of the policy strict, found the policy merge, which repeats texts in "
            "a batch and leaves known positives in it for `stx-mine train` to mask; pack with "
            "`stx-mine pack --policy strict --overwrite`, or train with `stx-mine train`"
        )
    if found:
        raise ValueError(
            f"expected columns of texts alone, found {', '.join(found)}: what `stx-mine train` "
            "reads is no input of a model. Of batches of the policy strict, or of labels, take "
            'what load_dataset(DIR, split="train") gives; pack others with `stx-mine pack --policy '
            "strict --overwrite`"
        )

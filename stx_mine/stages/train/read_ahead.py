"""Make the next packed batch in a thread while the model trains on this one.

A thread, not a worker process: reading, tokenising and sorting release the interpreter, nothing is
copied between processes, and the model that the tokeniser belongs to is not loaded twice.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from stx_mine.stages.train.packed_sampler import PackedBatchSampler

BatchRows = list[dict[str, int]]


class ReadAhead:
    """A collator that has the batch ready that its sampler yields next.

    What it returns is what the inner collator returns; a wrong guess costs time alone.
    """

    def __init__(
        self, collator: Callable[[BatchRows], dict[str, Any]], packed_batch_size: int
    ) -> None:
        """Wrap a collator.

        Args:
            collator: Takes the rows of an equal part of a packed batch.
            packed_batch_size: Rows of a packed batch.
        """
        self.collator, self.packed_batch_size = collator, packed_batch_size
        self.valid_label_columns = collator.valid_label_columns  # type: ignore[attr-defined]
        self._pool = ThreadPoolExecutor(1, "read-ahead")
        self._next_row: int | None = None
        self._ahead: tuple[BatchRows, Future[dict[str, Any]]] | None = None

    def __enter__(self) -> "ReadAhead":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def expect(self, row: int | None) -> None:
        """Hear the first row that the sampler yields next; None: it ends."""
        self._next_row = row

    def __call__(self, features: BatchRows) -> dict[str, Any]:
        """The batch, made ahead if it was foreseen; begins with the next one."""
        self.settle()
        if self._ahead is not None and self._ahead[0] == features:
            batch = self._ahead[1].result()
        else:
            batch = self.collator(features)
        self._ahead = None
        if self._next_row is not None:
            # Of the next batch, the part that this process has of this one.
            part = features[0]["row"] % self.packed_batch_size
            first = self._next_row // self.packed_batch_size * self.packed_batch_size + part
            rows = [{"row": row} for row in range(first, first + len(features))]
            self._ahead = rows, self._pool.submit(self.collator, rows)
        return batch

    def settle(self) -> None:
        """Wait until the thread is idle: a tokeniser serves one thread at a time."""
        if self._ahead is not None:
            self._ahead[1].exception()


class ForeseeingSampler(PackedBatchSampler):
    """A PackedBatchSampler that tells `ahead` which row comes after the batch that it yields.

    The Trainer writes what makes a sampler into its checkpoints, so that `ahead` is no argument.
    """

    ahead: ReadAhead

    def __iter__(self) -> Iterator[list[int]]:
        batches = super().__iter__()
        batch = next(batches, None)
        while batch is not None:
            following = next(batches, None)
            self.ahead.expect(None if following is None else following[0])
            yield batch
            batch = following


class Settle(TrainerCallback):  # type: ignore[misc]
    """Lets the thread finish before the model encodes or is saved, which use the tokeniser."""

    def __init__(self, ahead: ReadAhead) -> None:
        self.ahead = ahead

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Wait where the Trainer evaluates or saves next."""
        if control.should_evaluate or control.should_save:
            self.ahead.settle()

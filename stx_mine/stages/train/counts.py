"""Counts of `train`."""

from dataclasses import dataclass
from typing import Any

from stx_mine.store.counts import Counts


@dataclass(frozen=True, kw_only=True)
class TrainCounts(Counts):
    """What a training did.

    Attributes:
        steps: Steps that were trained.
        steps_planned: Steps of the schedule; more than `steps` where training stopped early.
        packings: Packings that were read.
        passes: Passes over the rows that the schedule has.
        batch_size: Rows per step, over all processes.
        processes: Processes that shared every batch.
        rows_seen: Rows trained on, counted in every pass.
        rows_held_back: Rows that are never trained on.
        learning_rate: Peak rate.
        first_loss: Training loss of the first line of the log that has one.
        last_loss: Training loss of the last such line.
        seconds: Seconds since training began, over all starts.
        masked_by_guide: Share of all (row, passage) of the batches that the guide masked, in
            [0, 1]; None, and absent from the manifest, without a guide.
    """

    steps: int
    steps_planned: int
    packings: int
    passes: int
    batch_size: int
    processes: int
    rows_seen: int
    rows_held_back: int
    learning_rate: float
    first_loss: float
    last_loss: float
    seconds: float
    masked_by_guide: float | None = None

    def to_json(self) -> dict[str, Any]:
        """As the manifest of `model/` holds them."""
        counts = super().to_json()
        if self.masked_by_guide is None:
            del counts["masked_by_guide"]
        return counts

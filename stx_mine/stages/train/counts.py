"""Counts of `train`."""

from dataclasses import dataclass
from typing import Any

from stx_mine.stages.train.held_back import HeldBack
from stx_mine.stages.train.schedule import Schedule
from stx_mine.store.counts import Counts
from stx_mine.store.training_log import TERM


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
        first_loss: Training loss of the first step, which is that of the model as it came.
        last_loss: Training loss of the last such line.
        seconds: Seconds since training began, over all starts.
        masked_by_guide: Share of all (row, passage) of the batches that the guide masked, in
            [0, 1]; None, and absent from the manifest, without a guide.
        masked_by_own_scores: The same of what the model itself masked.
        terms: Of a sum of losses: name -> its weighted term in the first and in the last such
            line; None, and absent, where the loss is no sum.
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
    masked_by_own_scores: float | None = None
    terms: dict[str, list[float]] | None = None

    @classmethod
    def of_run(
        cls,
        kept: HeldBack,
        schedule: Schedule,
        steps: int,
        log: list[dict[str, Any]],
        num_processes: int,
        masked: dict[str, float],
    ) -> "TrainCounts":
        """The counts of a run that ended.

        Args:
            kept: The batches that it trained on, and those held back.
            schedule: How long and how fast.
            steps: Steps that were trained.
            log: The lines of the training log.
            num_processes: Processes that shared every batch.
            masked: Shares that were masked, by the names above.
        """
        lines = [line for line in log if "loss" in line]
        terms = {
            name.removeprefix(TERM): [lines[0][name], lines[-1][name]]
            for name in lines[0]
            if name.startswith(TERM)
        }
        return cls(
            steps=steps,
            steps_planned=schedule.num_steps(kept.packings),
            packings=len(kept.packings),
            passes=schedule.num_passes,
            batch_size=kept.packings[0][0].batch_size,
            processes=num_processes,
            rows_seen=kept.rows_of_steps(steps, schedule.num_passes, schedule.seed),
            rows_held_back=kept.num_rows,
            learning_rate=schedule.learning_rate,
            first_loss=lines[0]["loss"],
            last_loss=lines[-1]["loss"],
            seconds=log[-1]["seconds"],
            terms=terms or None,
            **masked,
        )

    def to_json(self) -> dict[str, Any]:
        """As the manifest of `model/` holds them."""
        return {name: one for name, one in super().to_json().items() if one is not None}

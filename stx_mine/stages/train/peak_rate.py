"""The peak learning rate of a run: as asked for, by default, or probed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sentence_transformers import SentenceTransformer
from torch import nn

from stx_mine.models.load import is_static
from stx_mine.stages.train.batch_collator import BatchCollator
from stx_mine.stages.train.config import TrainConfig
from stx_mine.stages.train.core.learning_rate import default_learning_rate
from stx_mine.stages.train.probe import probe
from stx_mine.stages.train.processes import Processes
from stx_mine.stages.train.schedule import Schedule
from stx_mine.stages.train.trainer import count_parameters
from stx_mine.store.batches import BatchShard


@dataclass(frozen=True)
class PeakRate:
    """What was chosen; the plan of `model/` keeps it for a run that is resumed.

    Attributes:
        learning_rate: The peak rate, above 0.
        learning_rate_reason: Why, to stand in parentheses after it.
    """

    learning_rate: float
    learning_rate_reason: str


def choose_rate(
    config: TrainConfig,
    model: SentenceTransformer,
    loss: nn.Module,
    packings: list[list[BatchShard]],
    collator: BatchCollator,
    processes: Processes,
    options: Mapping[str, Any],
) -> PeakRate:
    """Choose the peak rate.

    Args:
        config: Says how.
        model: The model; it has the same weights afterwards.
        loss: Its loss.
        packings: Shards of each packing.
        collator: Reads them.
        processes: They share every batch of a probe.
        options: More keywords for the Trainer's arguments.

    Raises:
        ConfigError: A probe is asked for and there are too few batches, or every rate diverges.
    """
    if not isinstance(config.learning_rate, str):
        return PeakRate(config.learning_rate, "as asked")
    size = packings[0][0].batch_size
    rate, reason = default_learning_rate(size, count_parameters(model), is_static(model))
    if config.learning_rate == "probe":
        schedule = Schedule.of(config, packings, rate)
        rate, reason = probe(
            model, loss, packings, collator, schedule, processes.size, options
        ).choose()
    return PeakRate(rate, reason)

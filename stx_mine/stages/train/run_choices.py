"""What a run chooses by itself: the precision of its network, and its peak learning rate."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sentence_transformers import SentenceTransformer
from torch import nn

from stx_mine.models.load import is_static
from stx_mine.stages.train.batch_collator import BatchCollator
from stx_mine.stages.train.config import TrainConfig
from stx_mine.stages.train.core.learning_rate import default_learning_rate
from stx_mine.stages.train.losses.embedding import MiniBatches
from stx_mine.stages.train.precision import TrainingPrecision, faster_precision
from stx_mine.stages.train.probe import probe
from stx_mine.stages.train.processes import Processes
from stx_mine.stages.train.schedule import Schedule
from stx_mine.stages.train.trainer import count_parameters
from stx_mine.stages.train.trainer_options import precision_arguments
from stx_mine.store.batches import BatchShard


@dataclass(frozen=True)
class RunChoices:
    """What was chosen; the plan of `model/` keeps it for a run that is resumed.

    Attributes:
        learning_rate: The peak rate, above 0.
        learning_rate_reason: Why, to stand in parentheses after it.
        precision: What the network computes in.
        precision_reason: The same for it.
    """

    learning_rate: float
    learning_rate_reason: str
    precision: TrainingPrecision
    precision_reason: str


def choose_for_run(
    config: TrainConfig,
    model: SentenceTransformer,
    loss: nn.Module,
    packings: list[list[BatchShard]],
    collator: BatchCollator,
    processes: Processes,
    options: Mapping[str, Any],
) -> RunChoices:
    """Choose what the config leaves open.

    Args:
        config: Says how.
        model: The model; it has the same weights afterwards.
        loss: Its loss.
        packings: Shards of each packing.
        collator: Reads them.
        processes: They share every batch of a probe, and all of them choose the same.
        options: More keywords for the Trainer's arguments.

    Raises:
        ConfigError: A probe is asked for and there are too few batches, or every rate diverges.
    """
    precision, precision_reason = _precision(config, model, packings, collator)
    size = packings[0][0].batch_size
    schedule = Schedule.of(config, packings, learning_rate=0.0)
    rate, rate_reason = default_learning_rate(
        size,
        schedule.num_steps(packings),
        count_parameters(model),
        is_static(model),
        "mnr" in (config.loss, *config.kind.terms),
    )
    if config.learning_rate == "probe":
        options = {**options, **precision_arguments(precision)}
        schedule = replace(schedule, learning_rate=rate)
        found = probe(model, loss, packings, collator, schedule, processes.size, options)
        rate, rate_reason = found.choose()
    elif not isinstance(config.learning_rate, str):
        rate, rate_reason = config.learning_rate, "as asked"
    return RunChoices(rate, rate_reason, precision, precision_reason)


def _precision(
    config: TrainConfig,
    model: SentenceTransformer,
    packings: list[list[BatchShard]],
    collator: BatchCollator,
) -> tuple[TrainingPrecision, str]:
    if config.precision != "auto":
        return config.precision, "as asked"
    if is_static(model):
        return "float32", "a static model has no network to compute in another"
    return faster_precision(
        model, packings[0][0], collator.tokenise, MiniBatches.of(config, model.device)
    )

"""Options of `estimate`."""

from dataclasses import dataclass

from stx_mine.models.config import ModelFields
from stx_mine.settings import WHERE, ReadingConfig, option
from stx_mine.stages.train.config import Interaction
from stx_mine.stages.train.losses.config import StepFields


@dataclass(frozen=True, kw_only=True)
class EstimateConfig(ModelFields, StepFields, ReadingConfig):
    """What a training step will embed, score, hold and take, before anything is trained."""

    batch_size: int | None = option(
        None,
        "Rows per step (default: of batches/, or 2,048).",
        "estimates",
        minimum=2,
        group="Step",
    )
    k: int | None = option(
        None,
        "Negatives per row (default: of batches/, of mine, or 8).",
        "estimates",
        minimum=0,
        group="Step",
    )
    epochs: int | None = option(
        None,
        "Passes over the rows (default: the packings there are).",
        "estimates",
        minimum=1,
        group="Step",
    )
    interactions: tuple[Interaction, ...] = option(
        (),
        "What `train --interactions` adds to the softmax of a row; repeatable.",
        "estimates",
        group="Step",
    )
    model: str | None = option(
        None,
        "The model to train (default: the one that embedded round 1).",
        "estimates",
        group="Model",
    )
    max_length: int | None = option(
        None,
        "Tokens kept of a text (default: as it was embedded).",
        "estimates",
        minimum=1,
        group="Model",
    )
    time: bool = option(
        False,
        "Time a few mini-batches of the model, to estimate seconds too.",
        "estimates",
        group=WHERE,
    )
    device: str | None = option(
        None, "cpu, cuda, mps ... (default: the best one seen).", group=WHERE
    )

"""What a training has to have come to before its model is published."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from transformers import TrainingArguments

from stx_mine.errors import TrainingError
from stx_mine.stages.train.core.rising_loss import rising_loss
from stx_mine.stages.train.evaluations import BestEvaluation

_NOTHING = "nothing was published"


def refuse_outcome(
    log: Sequence[Mapping[str, Any]], best: BestEvaluation | None, rate: float
) -> list[str]:
    """Refuse a training whose loss rose, unless evaluations kept weights that are better.

    Args:
        log: The lines of the training log.
        best: What the evaluations found; None where there were none.
        rate: The peak learning rate.

    Returns:
        A warning where a better model was kept before the loss rose.

    Raises:
        TrainingError: The loss rose, and the weights at the end are what there is.
    """
    rise = rising_loss(log)
    if rise is None:
        return []
    words = f"the training loss rose from {rise.before:.4f} to {rise.after:.4f}"
    advice = f"give a lower --learning-rate (it was {rate:.3g}), or look at the data"
    if best is not None and best.best > best.untrained:
        return [
            f"{words} in {rise.steps:,} steps; the weights that are kept are of step "
            f"{best.best_step:,}; {advice}"
        ]
    raise TrainingError(
        f"{words} in {rise.steps:,} steps: training made the model worse, so {_NOTHING}; {advice}, "
        "with --overwrite"
    )


def broken_loss(step: int, loss: float, arguments: TrainingArguments) -> TrainingError:
    """The end of a training whose loss is not finite, from which no weight recovers."""
    half = "bf16" if arguments.bf16 else "fp16" if arguments.fp16 else None
    wider = f", or another --precision (it was {half})" if half else ""
    return TrainingError(
        f"the training loss is {loss} at step {step:,}: training stopped, and {_NOTHING}; give a "
        f"lower --learning-rate (it was {arguments.learning_rate:.3g}){wider}, with --overwrite"
    )


def finish_weights(model: SentenceTransformer, save_dtype: str) -> None:
    """Give the weights the number format that they are saved in, and see that all are numbers.

    Raises:
        TrainingError: Some are not, as they are or in that format.
    """
    refuse_infinite(model)
    model.to(getattr(torch, save_dtype))
    refuse_infinite(model, f"in {save_dtype}", "give --save-dtype float32 or bfloat16")


def refuse_infinite(
    model: SentenceTransformer,
    when: str = "after training",
    advice: str = "give a lower --learning-rate",
) -> None:
    """Refuse weights that are no numbers.

    Args:
        model: The model.
        when: For the message.
        advice: What to do.

    Raises:
        TrainingError: Some are not.
    """
    wrong = [
        name
        for name, weight in model.state_dict().items()
        if weight.is_floating_point() and not bool(weight.isfinite().all())
    ]
    if wrong:
        raise TrainingError(
            f"{len(wrong)} weights of the model are not finite {when} ({', '.join(wrong[:2])}), so "
            f"{_NOTHING}; {advice}, with --overwrite"
        )

"""The default learning rate, with the reason for it."""

from math import sqrt

# Of static models that other rows of a batch teach: the rate of a run of so many steps or fewer,
# and the most at 64 rows; measured at 6 to 1,630 steps.
_STATIC, _STATIC_STEPS, _STATIC_SMALL = 0.1, 50, 0.05
# Of static models with another loss.
_STATIC_OTHER = 0.0022
# At as many passes a batch of half the size has twice the steps.
_STATIC_POWER, _POWER = 0.25, 0.5
_REFERENCE_BATCH, _SMALL_PARAMETERS = 64, 150_000_000
# Of transformers: the rate at 64 rows, and at most; of small ones as measured with MiniLM.
_SMALL, _LARGE = (1.5e-4, 2e-4), (5e-5, 5e-5)


def default_learning_rate(
    batch_size: int, num_steps: int, num_parameters: int, static: bool, ranks: bool = True
) -> tuple[float, str]:
    """Of static models by the steps of the run, of others by the batch size.

    The fewer steps a static model has, the larger they may be, but in small batches; else rows a
    step made no difference that could be told at as many steps. What was not measured so follows
    the square root of the batch size (Krizhevsky 2014; Malladi et al. 2022, for Adam).

    Args:
        batch_size: Rows that one optimizer step sees.
        num_steps: Optimizer steps of the run, at least 1.
        num_parameters: Trainable parameters.
        static: Whether the model is a table of token embeddings.
        ranks: Whether the loss ranks the passages of a batch, as MNR does.

    Returns:
        The peak rate, and a sentence that says why.
    """
    if static and ranks:
        by_steps = float(_STATIC * min(1.0, _STATIC_STEPS / num_steps) ** _STATIC_POWER)
        by_size = _STATIC_SMALL * sqrt(batch_size / _REFERENCE_BATCH)
        if by_size < by_steps:
            words = f"{_STATIC_SMALL:g} x sqrt({batch_size:,} / {_REFERENCE_BATCH})"
        elif num_steps > _STATIC_STEPS:
            words = f"{_STATIC:g} x ({_STATIC_STEPS} / {num_steps:,} steps)^(1/4)"
        else:
            words = f"at most {_STATIC_STEPS} steps"
        return min(by_steps, by_size), f"{words}, for a static model"
    if static:
        rate = _STATIC_OTHER * sqrt(batch_size)
        return rate, f"{_STATIC_OTHER} x sqrt({batch_size:,}), for a static model and this loss"
    rate, most = _SMALL if num_parameters <= _SMALL_PARAMETERS else _LARGE
    scaled = rate * sqrt(batch_size / _REFERENCE_BATCH)
    millions = num_parameters / 1e6
    return min(scaled, most), (
        f"{rate:g} x sqrt({batch_size:,} / {_REFERENCE_BATCH}), at most {most:g} for "
        f"{millions:.0f}M parameters"
    )


def rate_of_size(rate: float, batch_size: int, other_size: int, static: bool) -> float:
    """What a rate for batches of one size is for those of another, at as many passes."""
    power = _STATIC_POWER if static else _POWER
    return float(rate * (other_size / batch_size) ** power)

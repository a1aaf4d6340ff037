"""The default learning rate, with the reason for it."""

from math import sqrt

_STATIC = 0.0022
_REFERENCE_BATCH, _SMALL_PARAMETERS = 64, 150_000_000
# Of transformers: the rate at 64 rows, and at most; of small ones as measured with MiniLM.
_SMALL, _LARGE = (1.5e-4, 2e-4), (5e-5, 5e-5)


def default_learning_rate(batch_size: int, num_parameters: int, static: bool) -> tuple[float, str]:
    """Square-root scaling with the batch size (Krizhevsky 2014; Malladi et al. 2022, for Adam).

    Args:
        batch_size: Rows that one optimizer step sees.
        num_parameters: Trainable parameters.
        static: Whether the model is a table of token embeddings.

    Returns:
        The peak rate, and a sentence that says why.
    """
    if static:
        rate = _STATIC * sqrt(batch_size)
        return rate, f"{_STATIC} x sqrt({batch_size:,}), for a static model"
    rate, most = _SMALL if num_parameters <= _SMALL_PARAMETERS else _LARGE
    scaled = rate * sqrt(batch_size / _REFERENCE_BATCH)
    millions = num_parameters / 1e6
    return min(scaled, most), (
        f"{rate:g} x sqrt({batch_size:,} / {_REFERENCE_BATCH}), at most {most:g} for "
        f"{millions:.0f}M parameters"
    )

"""Whether the training loss of a run rose: training that harms a model instead of teaching it.

The losses of batches differ, so that a rise counts only where it is well above what batches differ
by, as the log itself shows. A false alarm throws a good model away, and costs more than a miss.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log
from statistics import fmean, median
from typing import Any

# Fewer lines do not tell a rise from what batches differ by; in a short run all later lines have to
# lie above its beginning.
_FEWEST_LINES, _SHORT = 6, 12
# The end is a quarter of the run; the beginning is its first line, or its first quarter.
_PART = 4
# A rise is at least so much of the loss before, so much in itself, and so many standard errors.
_LEAST_SHARE, _LEAST_RISE, _LEAST_ERRORS = 0.2, 0.05, 5.0
# Second differences of noise of standard deviation 1 have sqrt(6); their median, and what the third
# largest of a few dozen is about, in standard deviations.
_FEW = 4
_BENDS, _MEDIAN, _LARGE = 6**0.5, 0.6745, 2.0


@dataclass(frozen=True)
class LossRise:
    """A loss that rose.

    Attributes:
        before: The loss at the beginning.
        after: The loss at the end.
        steps: Steps of the run.
    """

    before: float
    after: float
    steps: int


def rising_loss(entries: Sequence[Mapping[str, Any]]) -> LossRise | None:
    """The rise of the training loss over a run; None where it did not rise beyond doubt.

    The end is the last quarter of the lines. It is compared with the first line, which a rate that
    is far too high has not touched yet, and with the first quarter, by median and mean: a few hard
    batches move the one, easy and hard ones in turn the other. What lines differ by is
    taken from their second differences, which neither a trend nor one jump moves, of the losses or
    of their logarithms.

    Args:
        entries: In the order of their steps, with `step`, and `loss` where it was logged (the
            mean since the entry before).
    """
    lines = [
        (int(one["step"]), float(one["loss"])) for one in entries if one.get("loss") is not None
    ]
    if len(lines) < _FEWEST_LINES:
        return None
    losses, steps = [loss for _, loss in lines], [step for step, _ in lines]
    counts = [after - before for before, after in zip([0, *steps], steps, strict=False)]
    size = max(1, len(lines) // _PART)
    scales = [losses]
    if min(losses) > 0:
        # Where a loss is several times what it was, batches differ by several times as much.
        scales.append([log(loss) for loss in losses])
    for part in (1, size):
        before, after = _before(losses[:part]), _after(losses[-size:])
        enough = after - before > max(_LEAST_SHARE * abs(before), _LEAST_RISE)
        lasting = len(lines) >= _SHORT or min(losses[part:]) > before
        clear = any(_is_clear(values, counts, part, size) for values in scales)
        if enough and lasting and clear:
            return LossRise(before, after, steps[-1])
    return None


def _is_clear(values: list[float], counts: list[int], part: int, size: int) -> bool:
    """Whether the end lies above the beginning by more than what lines differ by.

    Args:
        values: Of each line.
        counts: Steps that each is the mean of.
        part: Lines of the beginning.
        size: Lines of the end.
    """
    bends = [abs(a - 2 * b + c) for a, b, c in zip(values, values[1:], values[2:], strict=False)]
    # One jump makes two large bends. Of one step: a line is the mean of several, and varies less.
    noise = max(median(bends) / _MEDIAN, sorted(bends)[-3] / _LARGE) / _BENDS
    noise *= max(1.0, median(counts)) ** 0.5
    # Few lines tell little of what they differ by.
    noise *= 1 + _FEW / (len(values) - _FEW)
    first, last = sum(counts[:part]), sum(counts[-size:])
    error = noise * (1 / max(1, first) + 1 / max(1, last)) ** 0.5
    rise: float = _after(values[-size:]) - _before(values[:part])
    return bool(rise > _LEAST_ERRORS * error)


def _before(values: list[float]) -> float:
    return max(median(values), fmean(values))


def _after(values: list[float]) -> float:
    return min(median(values), fmean(values))

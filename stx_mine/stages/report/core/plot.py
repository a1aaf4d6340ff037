"""Where a plot draws what: ticks, and lines as paths of SVG."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, isfinite, log10

# In units of the drawing, which scales with the page; text of 12 units is readable on a phone.
WIDTH, HEIGHT = 420, 250
LEFT, RIGHT, TOP, BOTTOM = 48, 14, 12, 40


@dataclass(frozen=True)
class PlotLine:
    """A line of a plot.

    Attributes:
        name: What it shows.
        x: Where its points lie, rising.
        y: Their values; None where there is none, which leaves a gap.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float | None]


@dataclass(frozen=True)
class Plot:
    """What a plot shows.

    Attributes:
        title: Its title.
        says: What it shows, as sentences for those who do not see it.
        x_label: What the horizontal axis measures.
        y_label: What the vertical axis measures.
        lines: Its lines.
        mark: Where a vertical line stands; None for none.
        mark_label: What that line marks.
        y_percent: Whether values are shares.
        steps: Whether each value holds up to the next point.
    """

    title: str
    says: str
    x_label: str
    y_label: str
    lines: tuple[PlotLine, ...]
    mark: float | None = None
    mark_label: str = ""
    y_percent: bool = False
    steps: bool = False


@dataclass(frozen=True)
class DrawnPlot:
    """A plot with places.

    Attributes:
        plot: What it shows.
        x_ticks: (place, label) along the horizontal axis.
        y_ticks: The same along the vertical one.
        paths: The path of each line.
        mark: Where the mark stands; None for none.
    """

    plot: Plot
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    paths: list[str]
    mark: float | None


def drawn(plot: Plot) -> DrawnPlot:
    """A plot with places; it has a point at least."""
    xs = [x for line in plot.lines for x in line.x]
    xs += [] if plot.mark is None else [plot.mark]
    ys = [y for line in plot.lines for y in line.y if y is not None and isfinite(y)]
    if plot.y_percent:
        ys.append(0.0)
    x_low, x_high = _widened(xs)
    y_ticks = nice_ticks(*_widened(ys), 5)
    y_low, y_high = min(*_widened(ys), y_ticks[0]), max(*_widened(ys), y_ticks[-1])

    def place_x(value: float) -> float:
        return round(LEFT + (value - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT), 1)

    def place_y(value: float) -> float:
        return round(TOP + (y_high - value) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM), 1)

    def path(line: PlotLine) -> str:
        words, last = list[str](), None
        for x, y in zip(line.x, line.y, strict=True):
            if y is None or not isfinite(y):
                last = None
                continue
            if last is not None and plot.steps:
                words.append(f"H{place_x(x)}")
            words.append(f"{'M' if last is None else 'L'}{place_x(x)},{place_y(y)}")
            last = y
        return "".join(words)

    return DrawnPlot(
        plot,
        [(place_x(one), tick_label(one)) for one in nice_ticks(x_low, x_high, 6)],
        [
            (place_y(one), f"{tick_label(100 * one)}%" if plot.y_percent else tick_label(one))
            for one in y_ticks
        ],
        [path(line) for line in plot.lines],
        None if plot.mark is None else place_x(plot.mark),
    )


def _widened(values: Sequence[float]) -> tuple[float, float]:
    """The smallest and the largest value, apart from each other."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    if high - low > 1e-9 * max(abs(low), abs(high)):
        return low, high
    half = abs(low) / 2 or 0.5
    return low - half, high + half


def nice_ticks(low: float, high: float, most: int) -> list[float]:
    """Round values within [low, high]: at least one, at most `most + 2`."""
    rough = (high - low) / (most + 1)
    power = 10.0 ** floor(log10(rough))
    step = next(one * power for one in (1, 2, 5, 10) if one * power >= rough * 0.999)
    first, last = ceil(low / step - 1e-9), floor(high / step + 1e-9)
    return [one * step for one in range(first, last + 1)] or [low]


def tick_label(value: float) -> str:
    """A value in few characters."""
    if abs(value) >= 10_000:
        return f"{value / 1000:,.4g}k" if abs(value) < 1e6 else f"{value / 1e6:,.4g}M"
    return f"{round(value, 10):.4g}" if value else "0"

"""The pure decisions of `report`: curves as naive loops count them, plots within their frame."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stx_mine.core.ragged import Ragged, offsets_of
from stx_mine.stages.report.core.curves import (
    margin_curve,
    ranks_of,
    score_edges,
    scores_by_rank,
    shares_by_bin,
)
from stx_mine.stages.report.core.plot import (
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Plot,
    PlotLine,
    drawn,
    nice_ticks,
)
from stx_mine.stages.report.mined_facts import doubling_classes

SCORES = st.integers(-8, 8).map(lambda whole: np.float32(whole / 8))
HITS = st.lists(st.tuples(SCORES, st.sampled_from(["may", "always", "never"])), max_size=6)
UNITS = st.lists(st.tuples(SCORES, HITS, st.integers(0, 3)), min_size=1, max_size=6)


def ragged(units) -> Ragged:
    offsets = offsets_of([len(hits) for _, hits, _ in units])
    return Ragged(offsets, np.zeros(offsets[-1], np.int64))


@given(UNITS, st.integers(1, 4), st.sampled_from([-0.25, 0.0, 0.05, 0.5]))
def test_a_margin_leaves_what_naive_loops_count(units, k, margin) -> None:
    hits = [one for _, some, _ in units for one in some]
    found = margin_curve(
        [margin],
        np.array([positive for positive, _, _ in units], np.float32),
        ragged(units),
        np.array([score for score, _ in hits], np.float32),
        np.array([kind != "never" for _, kind in hits], bool),
        np.array([kind == "always" for _, kind in hits], bool),
        np.array([rows for _, _, rows in units]),
        k=k,
    )
    negatives = []
    for positive, some, rows in units:
        limit = positive - abs(positive) * np.float32(margin)
        passed = [kind == "always" or (kind == "may" and score <= limit) for score, kind in some]
        negatives += [sum(passed)] * rows
    total = max(1, len(negatives))
    assert found.negatives == [pytest.approx(sum(min(one, k) for one in negatives) / total)]
    assert found.full == [pytest.approx(sum(one >= k for one in negatives) / total)]
    assert found.empty == [pytest.approx(sum(one == 0 for one in negatives) / total)]


@given(UNITS)
def test_ranks_count_candidates_of_their_unit(units) -> None:
    hits = [one for _, some, _ in units for one in some]
    candidates = np.array([kind != "never" for _, kind in hits], bool)
    expected = []
    for _, some, _ in units:
        seen = 0
        for _, kind in some:
            expected.append(seen if kind != "never" else -1)
            seen += kind != "never"
    ranks = ranks_of(ragged(units), candidates)
    assert ranks.tolist() == expected
    scores = np.array([score for score, _ in hits], np.float32)
    shown, curves = scores_by_rank(ranks, scores, 100)
    assert shown == sorted({rank for rank in expected if rank >= 0})
    for place, rank in enumerate(shown):
        of_rank = [score for score, one in zip(scores, expected, strict=True) if one == rank]
        for curve, share in zip(curves, (0.1, 0.5, 0.9), strict=True):
            assert curve[place] == pytest.approx(np.quantile(of_rank, share), abs=1e-6)


def test_few_ranks_of_many_are_shown() -> None:
    shown, curves = scores_by_rank(np.arange(1_000), np.linspace(1, 0, 1_000, dtype="f4"), 60)
    assert (len(shown), shown[0], shown[-1]) == (60, 0, 999)
    assert curves[1][0] == 1
    assert scores_by_rank(np.full(3, -1), np.zeros(3, np.float32), 60) == ([], [[], [], []])


@given(st.lists(SCORES, min_size=1, max_size=30), st.integers(1, 10))
def test_every_score_is_in_one_bin(scores, bins) -> None:
    array = np.array(scores, np.float32)
    edges = score_edges([array, np.array([np.nan, np.inf], np.float32)], bins)
    assert len(edges) == bins + 1
    assert sum(shares_by_bin(array, edges)) == pytest.approx(1)
    assert shares_by_bin(array[:0], edges) == [0] * bins
    assert score_edges([array[:0]], bins) == []


@given(st.lists(st.integers(1, 5_000), max_size=50))
def test_classes_double(numbers) -> None:
    found = doubling_classes(np.array(numbers, np.int64))
    assert [
        (low, high, sum(low <= one <= high for one in numbers)) for low, high, _ in found
    ] == found
    assert sum(number for _, _, number in found) == len(numbers)
    assert all(high == 2 * low - 1 for low, high, _ in found)


NUMBERS = st.floats(-1e7, 1e7).filter(lambda one: one == 0 or abs(one) > 1e-6)


@given(
    st.lists(st.tuples(NUMBERS, NUMBERS | st.none()), min_size=1, max_size=20),
    NUMBERS | st.none(),
    st.booleans(),
)
def test_a_plot_stays_within_its_frame(points, mark, is_percent) -> None:
    points = sorted(points, key=lambda one: one[0])
    line = PlotLine("one", [x for x, _ in points], [y for _, y in points])
    plot = Plot("t", "s", "x", "y", (line,), mark, "m", y_percent=is_percent, steps=True)
    found = drawn(plot)
    words = re.findall(r"[MLH][-\d.,e]+", "".join(found.paths))
    assert sum(word[0] in "ML" for word in words) == sum(y is not None for _, y in points)
    for word in words:
        values = [float(one) for one in word[1:].split(",")]
        assert LEFT <= values[0] <= WIDTH - RIGHT
        assert word[0] == "H" or TOP <= values[1] <= HEIGHT
    assert found.x_ticks
    assert found.y_ticks
    assert all(TOP - 1 <= place <= HEIGHT for place, _ in found.y_ticks)
    assert mark is None or LEFT <= found.mark <= WIDTH - RIGHT


@given(NUMBERS, st.floats(1e-3, 1e6))
def test_ticks_are_round_and_within(low, width) -> None:
    ticks = nice_ticks(low, low + width, 5)
    assert 1 <= len(ticks) <= 7
    assert all(low - 1e-6 * width <= one <= low + width * (1 + 1e-6) for one in ticks)

"""Which policy is taken: by simulated seeds and queries, whose truth is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stx_mine.stages.tune.core.ranking import (
    TOLERANCE,
    PolicyScores,
    chosen,
    gap,
    ranked,
    seed_deviation,
)


def simulated(name, truth, seconds=1.0, seeds=3, queries=1_000, deviation=0.004, rng=None):
    """Queries of different difficulty, that all policies share, and a shift for each seed."""
    difficulty = np.random.default_rng(7).normal(0, 0.3, queries)
    shift = rng.normal(0, deviation, (seeds, 1))
    noise = rng.normal(0, 0.1, (seeds, queries))
    return PolicyScores(name, truth + difficulty + shift + noise, seconds)


def test_intervals_hold_the_truth_as_often_as_they_say():
    rng, held = np.random.default_rng(0), 0
    for _ in range(300):
        one, other = (simulated(name, truth, rng=rng) for name, truth in (("a", 0.41), ("b", 0.4)))
        found = gap(one, other, 0.004)
        held += found.low <= 0.01 <= found.high
    assert held / 300 > 0.93


def test_the_deviation_of_a_seed_is_that_which_was_simulated():
    rng = np.random.default_rng(1)
    some = [simulated(str(n), 0.4, deviation=0.02, rng=rng) for n in range(200)]
    assert seed_deviation(some) == pytest.approx(0.02, rel=0.15)
    # One seed each tells nothing, and equal ones cannot make it nothing.
    assert seed_deviation([PolicyScores("a", np.zeros((1, 5)), 1.0)]) == 0.004
    assert seed_deviation([PolicyScores("a", np.zeros((3, 5)), 1.0)]) == 0.002


def test_a_gap_is_that_of_the_queries_and_turns_with_its_sides():
    rng = np.random.default_rng(2)
    one, other = (simulated(name, truth, rng=rng) for name, truth in (("a", 0.5), ("b", 0.4)))
    found, back = gap(one, other, 0.004), gap(other, one, 0.004)
    assert found.mean == pytest.approx(one.values_SQ.mean() - other.values_SQ.mean())
    assert (found.low, found.high) == pytest.approx((-back.high, -back.low))
    assert found.tells
    assert back.tells
    # More seeds, narrower.
    assert gap(one, other, 0.02).low < found.low


def test_the_cheaper_one_is_taken_where_they_cannot_be_told_apart():
    rng = np.random.default_rng(3)
    dear, cheap = (
        simulated(name, 0.4, seconds, rng=rng) for name, seconds in (("dear", 60), ("cheap", 9))
    )
    cheap = PolicyScores("cheap", cheap.values_SQ - cheap.mean + dear.mean - TOLERANCE / 2, 9.0)
    assert chosen([dear, cheap]).name == "cheap"
    # Not where it is worse by more than is worth nothing, even if few queries leave that open.
    worse = PolicyScores("cheap", dear.values_SQ - 3 * TOLERANCE, 9.0)
    assert chosen([dear, worse]).name == "dear"


@given(
    st.lists(
        st.tuples(st.floats(0, 1), st.floats(1, 100), st.integers(1, 4)), min_size=1, max_size=6
    ),
    st.integers(0, 100),
)
def test_what_is_taken_is_never_far_below_the_best(policies, seed):
    rng = np.random.default_rng(seed)
    some = [
        simulated(str(number), truth, seconds, seeds, queries=20, rng=rng)
        for number, (truth, seconds, seeds) in enumerate(policies)
    ]
    taken, best = chosen(some), ranked(some)[0]
    assert taken.mean >= best.mean - TOLERANCE
    assert taken.seconds <= best.seconds
    assert [one.mean for one in ranked(some)] == sorted((o.mean for o in some), reverse=True)

"""Pure decisions of `audit`: intervals, what is hidden, strata, cells."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stx_mine.core.intervals import (
    Z,
    clustered_rate,
    stratified_rate,
    wilson_interval,
)
from stx_mine.stages.audit.core.cells import as_cell, of_cell
from stx_mine.stages.audit.core.hiding import choose_hidden
from stx_mine.stages.audit.core.strata import FIRST_OF_STRATUM, sample_sizes, stratum_of

# Newcombe 1998, Statistics in Medicine 17, table I, method 3: the score interval of Wilson.
NEWCOMBE = [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)]
NEWCOMBE += [(1, 29, 0.0061, 0.1718)]


@pytest.mark.parametrize(("successes", "size", "low", "high"), NEWCOMBE)
def test_wilsons_interval_has_the_published_ends(
    successes: int, size: int, low: float, high: float
) -> None:
    found = wilson_interval(successes / size, size)
    assert found == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_ends_are_the_shares_that_the_test_just_does_not_rule_out(case) -> None:
    successes, size = case
    rate = successes / size
    for end in wilson_interval(rate, size):
        assert (rate - end) ** 2 == pytest.approx(Z**2 * end * (1 - end) / size, abs=1e-9)


@given(
    false=st.lists(st.integers(0, 9), min_size=1, max_size=5),
    copies=st.integers(1, 5),
)
def test_strata_that_are_alike_are_one_sample(false: list[int], copies: int) -> None:
    wrong, size = false[0], 10
    some = [np.full(copies, value) for value in (wrong, size, 1_000)]
    whole = wilson_interval(wrong / size, size * copies)
    found = stratified_rate(*some)
    assert found == pytest.approx((wrong / size, *whole))


def binomial(rate: float, size: int) -> np.ndarray:
    """The chance of each count, by the recurrence of Bernoulli trials."""
    chances = np.zeros(size + 1)
    chances[0] = 1
    for _ in range(size):
        chances = (1 - rate) * chances + rate * np.append(0, chances[:-1])
    return chances


@pytest.mark.parametrize(
    ("rates", "sampled", "sizes"),
    [
        ((0.1, 0.1, 0.1), (10, 12, 8), (500, 600, 400)),
        ((0.4, 0.1, 0.02), (10, 10, 10), (100, 300, 600)),
        ((0.02, 0.02, 0.02), (20, 10, 10), (300, 300, 400)),
        ((0.6, 0.3, 0.05), (12, 6, 12), (900, 300, 300)),
    ],
)
def test_the_interval_by_strata_covers_the_truth_as_often_as_it_says(rates, sampled, sizes) -> None:
    truth = np.dot(rates, sizes) / np.sum(sizes)
    chances = [binomial(*pair) for pair in zip(rates, sampled, strict=True)]
    covered = 0.0
    for counts in itertools.product(*(range(size + 1) for size in sampled)):
        found = stratified_rate(*map(np.array, (counts, sampled, sizes)))
        assert 0 <= found.low <= found.rate <= found.high <= 1
        if found.low <= truth <= found.high:
            covered += np.prod([one[count] for one, count in zip(chances, counts, strict=True)])
    # Counts are few: that of one sample of 40 varies as much.
    assert 0.91 < covered <= 1


def test_a_stratum_without_a_sample_may_hold_anything() -> None:
    found = stratified_rate(np.array([2, 0]), np.array([20, 0]), np.array([300, 100]))
    low, high = wilson_interval(0.1, 20)
    assert found == pytest.approx((0.1, 0.75 * low, 0.75 * high + 0.25))


def test_members_of_a_cluster_that_are_alike_count_once() -> None:
    rng = np.random.default_rng(0)
    false = rng.integers(0, 2, 50)
    whole = clustered_rate(8 * false, np.full(50, 8))
    assert whole == pytest.approx(clustered_rate(false, np.ones(50, np.int64)))
    plain = wilson_interval(false.mean(), 49)
    assert (whole.low, whole.high) == pytest.approx(plain)
    # Half of it false in each: nothing to be learnt of another cluster.
    even = clustered_rate(np.full(50, 4), np.full(50, 8))
    assert (even.low, even.high) == pytest.approx(wilson_interval(0.5, 400))


def test_the_interval_of_clusters_covers_the_truth_where_they_differ() -> None:
    rng = np.random.default_rng(1)
    covered = []
    for _ in range(400):
        rates = rng.beta(0.5, 4.5, 120)
        counts = rng.integers(1, 9, 120)
        found = clustered_rate(rng.binomial(counts, rates), counts)
        covered.append(found.low <= 0.1 <= found.high)
    assert 0.92 < np.mean(covered) < 0.99


def test_clusters_without_a_member_play_no_part() -> None:
    assert clustered_rate(np.array([1, 0, 0]), np.array([4, 0, 4])) == clustered_rate(
        np.array([1, 0]), np.array([4, 4])
    )
    assert clustered_rate(np.zeros(2, int), np.zeros(2, int)) == (0, 0, 1)


POSITIVES = st.dictionaries(
    st.integers(0, 30), st.sets(st.integers(0, 50), min_size=1, max_size=9), max_size=12
)


@settings(deadline=None)
@given(POSITIVES, st.floats(0.01, 1), st.integers(0, 1000), st.integers(1, 12))
def test_a_share_of_the_positives_of_queries_with_several_is_hidden(
    positives: dict[int, set[int]], share: float, seed: int, most: int
) -> None:
    rows = [(query, group) for query in sorted(positives) for group in sorted(positives[query])]
    arrays = [np.array([row[one] for row in rows], np.int64) for one in (0, 1)]
    hidden = choose_hidden(*arrays, share, seed, most)
    per_query = {query: 0 for query in positives}
    for (query, _), is_hidden in zip(rows, hidden, strict=True):
        per_query[query] += is_hidden
    several = [query for query, groups in positives.items() if len(groups) > 1]
    drawn = [query for query, number in per_query.items() if number]
    assert len(drawn) == min(most, len(several))
    for query in drawn:
        whole = len(positives[query])
        assert per_query[query] == min(max(1, int(share * whole + 0.5)), whole - 1)
    # What is drawn of a query does not depend on the others.
    if drawn:
        alone = arrays[0] == drawn[0]
        again = choose_hidden(arrays[0][alone], arrays[1][alone], share, seed, most)
        assert again.tolist() == hidden[alone].tolist()


@given(st.lists(st.integers(0, 300), min_size=1, max_size=8), st.integers(1, 2000))
def test_a_sample_takes_of_every_stratum(sizes: list[int], wanted: int) -> None:
    if not sum(sizes):
        return
    drawn = sample_sizes(np.array(sizes), wanted)
    assert drawn.sum() == min(wanted, sum(sizes))
    assert (drawn <= sizes).all()
    used = sum(size > 0 for size in sizes)
    for size, number in zip(sizes, drawn, strict=True):
        assert number >= min(size, 10, wanted // used)


def test_strata_are_ranges_of_ranks() -> None:
    firsts = [*FIRST_OF_STRATUM.tolist(), 1 << 30]
    ranks = np.arange(200, dtype=np.int32)
    for rank, stratum in zip(ranks, stratum_of(ranks), strict=True):
        assert firsts[stratum] <= rank < firsts[stratum + 1]


@given(st.text())
def test_a_cell_is_no_formula_and_comes_back_as_it_was(text: str) -> None:
    cell = as_cell(text)
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"))
    assert of_cell(cell) == text

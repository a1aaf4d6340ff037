"""Assignment of rows to batches: whole batches, even spread, strict batches against an oracle."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stx_mine.core.assign import assign_merge, assign_strict, draw_order
from stx_mine.core.bind import bind_clean, bind_top, ignored_groups
from stx_mine.core.forbidden import forbidden_groups

EMPTY = np.empty(0, np.int64)


@st.composite
def pair_sets(draw, max_rows=60):
    """Distinct pairs with shared anchors, shared positives, and texts in both roles."""
    rng = np.random.default_rng(draw(st.integers(0, 100_000)))
    num_queries, num_passages = draw(st.integers(1, 25)), draw(st.integers(2, 25))
    count = draw(st.integers(2, max_rows))
    pairs = np.unique(
        np.stack(
            [rng.integers(0, num_queries, count), rng.integers(0, num_passages, count)], axis=1
        ),
        axis=0,
    )
    both_roles = rng.random(num_queries) < 0.2
    query_groups = num_passages + np.arange(num_queries)
    # A query may have a passage's text, but never that of its own positive.
    for query in np.flatnonzero(both_roles):
        free = np.setdiff1d(np.arange(num_passages), pairs[pairs[:, 0] == query, 1])
        free = np.setdiff1d(free, query_groups[:query])
        if len(free):
            query_groups[query] = rng.choice(free)
    return make_rows(pairs, query_groups, num_passages)


def make_rows(pairs, query_groups, num_passages):
    passage_groups = np.arange(num_passages)
    forbidden = forbidden_groups(pairs[:, 0], pairs[:, 1], query_groups, passage_groups)
    return {
        "query_ids": np.ascontiguousarray(pairs[:, 0]),
        "anchor_groups": query_groups[pairs[:, 0]],
        "positive_groups": np.ascontiguousarray(pairs[:, 1]),
        "passage_groups": passage_groups,
        "forbidden": forbidden,
        "num_groups": num_passages + len(query_groups),
    }


def merge(rows, batch_size, seed, first=EMPTY):
    rng = np.random.default_rng(seed)
    order = draw_order(np.arange(len(rows["query_ids"])), first, rng)
    groups = rows["anchor_groups"], rows["positive_groups"]
    return assign_merge(*groups, batch_size, order, rng)


def strict(rows, batch_size, seed=0):
    order = draw_order(np.arange(len(rows["query_ids"])), EMPTY, np.random.default_rng(seed))
    names = ("query_ids", "anchor_groups", "positive_groups", "forbidden", "num_groups")
    return assign_strict(*(rows[name] for name in names), batch_size, order)


def conflict(rows, one, two):
    """Whether two rows may not meet in a strict batch."""
    texts = [{rows["anchor_groups"][r], rows["positive_groups"][r]} for r in (one, two)]
    if texts[0] & texts[1]:
        return True
    forbidden = [set(rows["forbidden"].row(rows["query_ids"][r])) for r in (one, two)]
    return bool(forbidden[0] & texts[1]) or bool(forbidden[1] & texts[0])


@settings(deadline=None, max_examples=100)
@given(pair_sets(), st.integers(2, 12), st.integers(0, 99))
def test_merge_makes_every_batch_there_can_be(rows, batch_size, seed):
    num_rows = len(rows["query_ids"])
    found = merge(rows, batch_size, seed)
    assert found.rows_PB.shape == (num_rows // batch_size, batch_size)
    everything = np.concatenate([found.rows_PB.ravel(), found.left_out])
    np.testing.assert_array_equal(np.sort(everything), np.arange(num_rows))
    # Rows of one positive are spread: at most ceil(m / P) of the m used rows in a batch.
    for batch in found.rows_PB:
        groups, counts = np.unique(rows["positive_groups"][batch], return_counts=True)
        used = rows["positive_groups"][found.rows_PB.ravel()]
        for group, count in zip(groups, counts, strict=True):
            assert count <= -(-(used == group).sum() // len(found.rows_PB))


def test_merge_spreads_repeated_anchors_too():
    rng = np.random.default_rng(0)
    queries = np.concatenate([np.repeat(np.arange(20), 16), np.arange(20, 1_300)])
    passages = rng.permutation(len(queries))
    pairs = np.stack([queries, passages], axis=1)
    rows = make_rows(pairs, len(queries) + np.arange(1_300), len(queries))
    found = merge(rows, 100, 1)
    most = max(
        np.unique(rows["anchor_groups"][b], return_counts=True)[1].max() for b in found.rows_PB
    )
    assert most == 1


def test_rows_left_out_come_first_in_the_next_packing():
    rows = make_rows(np.stack([np.arange(25), np.arange(25)], 1), 25 + np.arange(25), 25)
    one = merge(rows, 10, 0)
    two = merge(rows, 10, 1, first=one.left_out)
    assert len(one.left_out) == 5
    assert set(one.left_out) <= set(two.rows_PB.ravel())


def test_who_meets_whom_is_what_chance_gives():
    num_rows, batch_size, packings = 60, 10, 2_000
    rows = make_rows(
        np.stack([np.arange(num_rows)] * 2, 1), num_rows + np.arange(num_rows), num_rows
    )
    meets = np.zeros((num_rows, num_rows))
    for seed in range(packings):
        for batch in merge(rows, batch_size, seed).rows_PB:
            meets[np.ix_(batch, batch)] += 1
    rate = meets[np.triu_indices(num_rows, 1)] / packings
    expected = (batch_size - 1) / (num_rows - 1)
    spread = np.sqrt(expected * (1 - expected) / packings)
    assert abs(rate.mean() - expected) < 1e-9
    assert abs(rate - expected).max() < 5 * spread


@settings(deadline=None, max_examples=150)
@given(pair_sets(), st.integers(2, 8), st.integers(0, 99))
def test_strict_batches_hold_no_conflict(rows, batch_size, seed):
    found = strict(rows, batch_size, seed)
    everything = np.concatenate([found.rows_PB.ravel(), found.left_out])
    np.testing.assert_array_equal(np.sort(everything), np.arange(len(rows["query_ids"])))
    for batch in found.rows_PB:
        assert not any(conflict(rows, one, two) for one, two in combinations(batch, 2))


def test_strict_fills_all_batches_where_texts_repeat_moderately():
    rng = np.random.default_rng(0)
    pairs = np.stack([np.arange(2_000), rng.integers(0, 1_200, 2_000)], axis=1)
    rows = make_rows(pairs, 1_200 + np.arange(2_000), 1_200)
    assert len(strict(rows, 100).rows_PB) >= 19


def test_the_same_seed_gives_the_same_packing():
    rows = make_rows(np.stack([np.arange(90) % 40, np.arange(90)], 1), 90 + np.arange(40), 90)
    assert np.array_equal(merge(rows, 8, 5).rows_PB, merge(rows, 8, 5).rows_PB)
    assert not np.array_equal(merge(rows, 8, 5).rows_PB, merge(rows, 8, 6).rows_PB)


def test_truncation_leaves_no_row_behind():
    rows = make_rows(np.stack([np.arange(30)] * 2, 1), 30 + np.arange(30), 30)
    short = merge(rows, 7, 0).truncated(2)
    assert short.rows_PB.shape == (2, 7)
    assert len(np.union1d(short.rows_PB.ravel(), short.left_out)) == 30


@settings(deadline=None, max_examples=100)
@given(pair_sets(), st.integers(1, 4), st.integers(0, 99))
def test_bound_negatives_keep_a_strict_batch_clean(rows, num_negatives, seed):
    found = strict(rows, 3, seed)
    if not len(found.rows_PB):
        return
    batch = found.rows_PB[0]
    rng = np.random.default_rng(seed)
    num_passages = len(rows["passage_groups"])
    pools = rng.integers(-1, num_passages, (3, 6)).astype(np.int32)
    pools = -np.sort(-pools, axis=1)
    queries = rows["query_ids"][batch]
    negatives, num_random = bind_clean(
        pools,
        num_negatives,
        queries,
        rows["anchor_groups"][batch],
        rows["positive_groups"][batch],
        rows["passage_groups"],
        rows["forbidden"],
        rows["num_groups"],
        seed,
    )
    real = negatives[negatives >= 0]
    texts = [*rows["anchor_groups"][batch], *rows["positive_groups"][batch], *real]
    assert len(set(texts)) == len(texts)
    for query in queries:
        assert not set(rows["forbidden"].row(query)) & set(real)
    for row in range(3):
        mined = sum(one in pools[row] for one in negatives[row] if one >= 0)
        assert num_random[row] >= (negatives[row] >= 0).sum() - mined
    # Nothing is left unfilled while a clean passage exists.
    if (negatives < 0).any():
        closed = set(texts).union(*(rows["forbidden"].row(query) for query in queries))
        assert closed >= set(range(num_passages))


def test_merge_takes_the_top_of_the_pool():
    pools = np.array([[4, 3, 2], [7, -1, -1]], np.int32)
    assert bind_top(pools, 2).tolist() == [[4, 3], [7, -1]]


@settings(deadline=None, max_examples=100)
@given(pair_sets(), st.integers(0, 99))
def test_ignored_groups_are_all_other_positives_in_the_batch(rows, seed):
    rng = np.random.default_rng(seed)
    count = len(rows["query_ids"])
    batch = rng.permutation(count)[: max(2, count // 2)]
    negatives = rng.integers(-1, len(rows["passage_groups"]), (len(batch), 2))
    queries, positives = rows["query_ids"][batch], rows["positive_groups"][batch]
    found = ignored_groups(queries, positives, negatives, rows["forbidden"], rows["num_groups"])
    present = set(positives) | set(negatives[negatives >= 0])
    for row, (query, positive) in enumerate(zip(queries, positives, strict=True)):
        expected = (set(rows["forbidden"].row(query)) & present) - {positive}
        assert found.row(row).tolist() == sorted(expected)


def test_an_order_that_names_rows_keeps_every_row():
    order = draw_order(np.arange(10), np.array([7, 2]), np.random.default_rng(0))
    assert set(order[:2]) == {2, 7}
    assert sorted(order) == list(range(10))


@pytest.mark.parametrize("batch_size", [2, 7])
def test_all_rows_share_one_positive(batch_size):
    pairs = np.stack([np.arange(14), np.zeros(14, int)], 1)
    rows = make_rows(pairs, 3 + np.arange(14), 3)
    assert len(merge(rows, batch_size, 0).rows_PB) == 14 // batch_size
    assert len(strict(rows, batch_size).rows_PB) == 0

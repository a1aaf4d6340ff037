"""Binding and forbidding, text by text, as naive loops over lists do it."""

import numpy as np
import pytest
from cores import ragged
from hypothesis import given, settings
from hypothesis import strategies as st

from stx_mine.core.forbidden import forbidden_groups, num_forbidden_passages, positive_groups
from stx_mine.core.random import mix
from stx_mine.stages.pack.core.bind import (
    bind_clean,
    bind_top,
    ignored_passages,
    pools_without,
    rotated,
)

PASSAGES, QUERIES = 9, 4
NUM_GROUPS = PASSAGES + QUERIES


def padded(pools, width):
    return np.array([[*pool, *[-1] * (width - len(pool))] for pool in pools], np.int32)


passages = st.integers(0, PASSAGES - 1)
pools_lists = st.lists(st.lists(passages, unique=True, max_size=5), min_size=1, max_size=5)
avoided_lists = st.lists(
    st.sets(st.integers(0, NUM_GROUPS - 1), max_size=5).map(sorted),
    min_size=QUERIES,
    max_size=QUERIES,
)


@st.composite
def group_arrays(draw):
    """The group of each passage: the smallest id of its members."""
    groups = np.arange(PASSAGES)
    for passage in draw(st.sets(passages, max_size=4)):
        groups[passage] = groups[draw(st.integers(0, passage))]
    return groups


@settings(deadline=None)
@given(pools_lists, avoided_lists, group_arrays(), st.data())
def test_pools_keep_what_their_query_does_not_avoid_in_order(pools, avoided, groups, data):
    queries = data.draw(
        st.lists(st.integers(0, QUERIES - 1), min_size=len(pools), max_size=len(pools))
    )
    found = pools_without(padded(pools, 5), np.array(queries), groups, ragged(avoided), NUM_GROUPS)
    for row, pool, query in zip(found.tolist(), pools, queries, strict=True):
        kept = [one for one in pool if groups[one] not in avoided[query]]
        assert row == kept + [-1] * (5 - len(kept))
    assert bind_top(padded(pools, 5), 3).tolist() == padded(pools, 5)[:, :3].tolist()


@given(pools_lists, st.integers(0, 12))
def test_rotated_pools_are_the_same_lists_from_another_place(pools, steps):
    for row, pool in zip(rotated(padded(pools, 5), steps).tolist(), pools, strict=True):
        turn = steps % len(pool) if pool else 0
        assert row == [*pool[turn:], *pool[:turn]] + [-1] * (5 - len(pool))


@settings(deadline=None)
@given(avoided_lists, group_arrays(), st.data())
def test_what_is_ignored_is_what_is_forbidden_and_there(forbidden, groups, data):
    rows = data.draw(st.lists(st.tuples(st.integers(0, QUERIES - 1), passages), min_size=1))
    negatives = data.draw(
        st.lists(
            st.lists(st.integers(-1, PASSAGES - 1), min_size=2, max_size=2),
            min_size=len(rows),
            max_size=len(rows),
        )
    )
    queries, positives = (np.array(one) for one in zip(*rows, strict=True))
    found = ignored_passages(
        queries, positives, np.array(negatives), groups, ragged(forbidden), NUM_GROUPS
    )
    present = {*positives.tolist(), *(one for row in negatives for one in row if one >= 0)}
    for number, (query, positive) in enumerate(rows):
        expected = [one for one in present if groups[one] in forbidden[query] and one != positive]
        order = sorted(expected, key=lambda one: (groups[one], one))
        assert found.row(number).tolist() == order


@settings(deadline=None)
@given(pools_lists, group_arrays(), st.integers(0, 3), st.data())
def test_clean_negatives_are_the_first_of_each_pool_that_still_fit(pools, groups, k, data):
    """Row by row; then random ones, as long as a clean passage is left."""
    count = min(len(pools), QUERIES)
    queries = np.arange(count)
    positives = np.array(data.draw(st.lists(passages, min_size=count, max_size=count)))
    anchors = PASSAGES + queries
    forbidden = [
        {int(groups[one]), int(anchor)} for one, anchor in zip(positives, anchors, strict=True)
    ]
    negatives, num_random = bind_clean(
        padded(pools[:count], 5),
        k,
        queries,
        anchors,
        groups[positives],
        groups,
        ragged([sorted(one) for one in forbidden]),
        NUM_GROUPS,
        seed=data.draw(st.integers(0, 9)),
    )
    taken = set().union(*forbidden)
    for row, pool, random in zip(negatives.tolist(), pools, num_random.tolist(), strict=False):
        mined = []
        for one in pool:
            if len(mined) < k and groups[one] not in taken:
                mined.append(one)
                taken.add(int(groups[one]))
        assert row[: len(mined)] == mined
        others = [one for one in row[len(mined) :] if one >= 0]
        assert len(others) == random
        for one in others:
            assert groups[one] not in taken
            taken.add(int(groups[one]))
        if -1 in row:
            assert {int(one) for one in groups} <= taken
        assert row == [*mined, *others, *[-1] * (k - len(mined) - len(others))]


pairs_lists = st.lists(st.tuples(st.integers(0, QUERIES - 1), passages), max_size=10)


@settings(deadline=None)
@given(pairs_lists, group_arrays(), st.data())
def test_forbidden_are_the_groups_of_positives_and_the_own_one(pairs, groups, data):
    own = st.sampled_from([*range(PASSAGES, NUM_GROUPS), *groups.tolist()])
    query_groups = np.array(data.draw(st.lists(own, min_size=QUERIES, max_size=QUERIES)))
    queries = np.array([query for query, _ in pairs], np.int64)
    chosen = np.array([passage for _, passage in pairs], np.int64)
    known = positive_groups(queries, chosen, groups, QUERIES)
    forbidden = forbidden_groups(queries, chosen, query_groups, groups)
    hits = num_forbidden_passages(forbidden, groups, NUM_GROUPS)
    for query in range(QUERIES):
        expected = {int(groups[passage]) for one, passage in pairs if one == query}
        assert known.row(query).tolist() == sorted(expected)
        expected |= {int(query_groups[query])}
        assert forbidden.row(query).tolist() == sorted(expected)
        # A group without a passage costs one hit too: it may be that of a query alone.
        sizes = [max(1, groups.tolist().count(one)) for one in expected]
        assert hits[query] == sum(sizes)


def bound_by_hand(pools, k, rows, groups, seed):
    """Negatives and how many are random, draw by draw, so that a seed means the same for ever."""
    taken = {group for row in rows for group in row}
    clean, draws, found, num_random = None, 0, [], []
    for row, pool in enumerate(pools):
        own = []
        for one in pool:
            if len(own) < k and groups[one] not in taken:
                own.append(one)
                taken.add(groups[one])
        mined = len(own)
        while len(own) < k and clean != []:
            number = int(mix(seed, row, draws))
            draws += 1
            if clean is None:
                passage = number % len(groups)
                if draws > len(groups):
                    clean = [one for one, group in enumerate(groups) if group not in taken]
            else:
                place = number % len(clean)
                passage, clean[place] = clean[place], clean[-1]
                clean.pop()
            if groups[passage] not in taken:
                own.append(passage)
                taken.add(groups[passage])
        found.append(own + [-1] * (k - len(own)))
        num_random.append(len(own) - mined)
    return found, num_random


@pytest.mark.parametrize("num_passages", [1, 6, 40])
@pytest.mark.parametrize("seed", range(8))
def test_random_negatives_are_drawn_as_by_hand(num_passages, seed):
    rng = np.random.default_rng(seed)
    num_rows, k = int(rng.integers(1, 6)), int(rng.integers(1, 9))
    groups = np.minimum(np.arange(num_passages), rng.integers(0, num_passages, num_passages))
    anchors = num_passages + np.arange(num_rows)
    positives = groups[rng.integers(0, num_passages, num_rows)]
    forbidden = [sorted({int(a), int(p)}) for a, p in zip(anchors, positives, strict=True)]
    pools = [rng.permutation(num_passages)[: rng.integers(0, 4)].tolist() for _ in range(num_rows)]
    negatives, num_random = bind_clean(
        padded(pools, 4),
        k,
        np.arange(num_rows),
        anchors,
        positives,
        groups,
        ragged(forbidden),
        num_passages + num_rows,
        seed,
    )
    expected = bound_by_hand(pools, k, forbidden, groups.tolist(), seed)
    assert (negatives.tolist(), num_random.tolist()) == expected


def test_no_text_of_the_batch_is_a_negative_even_where_its_query_forbids_nothing():
    negatives, num_random = bind_clean(
        np.array([[1, 0, 2, 3], [0, 1, 3, 4]], np.int32),
        2,
        np.arange(2),
        np.array([2, 5]),
        np.array([0, 1]),
        np.arange(5),
        ragged([[], []]),
        6,
        seed=0,
    )
    assert negatives.tolist() == [[3, 4], [-1, -1]]
    assert num_random.tolist() == [1, 0]


@pytest.mark.parametrize("own", [0, 1])
@pytest.mark.parametrize("last", [7, 8])
def test_what_is_ignored_is_found_whether_the_query_or_the_batch_has_more(own, last):
    """The query forbids few groups, or more than the batch holds: the first, middle and last."""
    few, many = [0, 4, 8], [0, 1, 2, 3, 4, 5, last]
    found = ignored_passages(
        np.array([own, 1 - own]),
        np.array([4, 8]),
        np.array([[0, 6], [-1, -1]]),
        np.arange(PASSAGES),
        ragged([few, many]),
        NUM_GROUPS,
    )
    first = [0, 8] if own == 0 or last == 8 else [0]
    assert [found.row(row).tolist() for row in range(2)] == [first, [0, 4]]


@pytest.mark.parametrize("queries", [[0, 0, 0], [0, 0, 1], [1, 0, 1], [1, 1, 0]])
def test_rows_of_one_query_ignore_all_but_their_own_positive(queries):
    """Passage 0 is in no row; what a query forbids that is not there is not ignored."""
    found = ignored_passages(
        np.array(queries),
        np.array([1, 2, 3]),
        np.empty((3, 0), np.int64),
        np.arange(4),
        ragged([[0, 1, 2, 3], [0, 2]]),
        4,
    )
    for row, query in enumerate(queries):
        expected = [1, 2, 3] if query == 0 else [2]
        assert found.row(row).tolist() == [one for one in expected if one != row + 1]

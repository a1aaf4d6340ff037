"""Assignment of rows to batches: whole batches, even spread, strict batches against an oracle."""

import time
from functools import cache
from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stx_mine.core.forbidden import forbidden_groups
from stx_mine.core.ragged import Ragged
from stx_mine.stages.pack.core.assign import assign_merge, assign_strict, draw_order
from stx_mine.stages.pack.core.bind import bind_clean, bind_top, ignored_passages
from stx_mine.stages.pack.core.bounds import largest_count, strict_bound

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


def bound(rows, batch_size, num_negatives=0):
    names = ("query_ids", "anchor_groups", "positive_groups", "passage_groups", "forbidden")
    order = np.arange(len(rows["query_ids"]))
    return strict_bound(
        *(rows[name] for name in names), rows["num_groups"], batch_size, num_negatives, order
    )


def optimum(rows, batch_size):
    """The number of strict batches that exist, by trying everything."""
    num_rows = len(rows["query_ids"])
    meets = np.array([[not conflict(rows, i, j) for j in range(num_rows)] for i in range(num_rows)])
    batches = [
        sum(1 << row for row in batch)
        for batch in combinations(range(num_rows), batch_size)
        if all(meets[one, two] for one, two in combinations(batch, 2))
    ]

    @cache
    def most(free):
        if not free:
            return 0
        lowest = free & -free
        skipped = most(free & ~lowest)
        taken = [1 + most(free & ~b) for b in batches if b & lowest and not b & ~free]
        return max([skipped, *taken])

    return most((1 << num_rows) - 1)


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


def test_rows_of_repeated_texts_meet_others_by_chance_over_20_epochs():
    rng = np.random.default_rng(0)
    num_rows, batch_size, packings = 2_000, 50, 20
    pairs = np.stack([np.arange(num_rows), rng.integers(0, 700, num_rows)], axis=1)
    rows = make_rows(pairs, 700 + np.arange(num_rows), 700)
    positives = rows["positive_groups"]
    meets = np.zeros((num_rows, num_rows), int)
    for seed in range(packings):
        for batch in merge(rows, batch_size, seed).rows_PB:
            meets[np.ix_(batch, batch)] += 1
    upper = np.triu_indices(num_rows, 1)
    apart = positives[upper[0]] != positives[upper[1]]
    assert not meets[upper][~apart].any()
    found = np.bincount(meets[upper][apart], minlength=packings + 1)[:4] / apart.sum()
    # Rows of one positive never meet, so all others do a little more often.
    chance = (batch_size - 1) / (num_rows - 1) * len(apart) / apart.sum()
    expected = [comb(packings, n) * chance**n * (1 - chance) ** (packings - n) for n in range(4)]
    np.testing.assert_allclose(found, expected, atol=2e-3)


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


@settings(deadline=None, max_examples=200)
@given(pair_sets(max_rows=10), st.integers(2, 3), st.integers(0, 99))
def test_no_more_strict_batches_exist_than_the_bound(rows, batch_size, seed):
    exist = optimum(rows, batch_size)
    assert len(strict(rows, batch_size, seed).rows_PB) <= exist <= bound(rows, batch_size).batches


def test_strict_makes_most_of_the_batches_that_exist_in_tiny_sets():
    rng = np.random.default_rng(0)
    found = exist = 0
    for _ in range(100):
        pairs = np.unique(rng.integers(0, 8, (9, 2)), axis=0)
        rows = make_rows(pairs, 8 + np.arange(8), 8)
        found += len(strict(rows, 3).rows_PB)
        exist += optimum(rows, 3)
    assert found >= 0.93 * exist > 90


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 10_000), st.integers(3, 11), st.integers(1, 6), st.integers(2, 4))
def test_strict_makes_all_batches_that_exist_where_rows_share_positives_only(
    seed, num_rows, num_passages, batch_size
):
    passages = np.random.default_rng(seed).integers(0, num_passages, num_rows)
    pairs = np.stack([np.arange(num_rows), passages], axis=1)
    rows = make_rows(pairs, num_passages + np.arange(num_rows), num_passages)
    made = len(strict(rows, batch_size, seed).rows_PB)
    assert made == optimum(rows, batch_size) == bound(rows, batch_size).batches


def test_few_large_strict_batches_fill_where_many_rows_conflict():
    """A third of the rows cannot be placed, and the rest fill 5 equal batches nearly."""
    rng = np.random.default_rng(0)
    num_batches, num_rows, num_passages = 5, 9_000, 2_500
    passages = np.concatenate([rng.integers(0, num_passages, 5_000), rng.zipf(1.6, 4_000)])
    queries = np.arange(num_rows)
    queries[:1_000] = rng.integers(0, 500, 1_000)
    pairs = np.unique(np.stack([queries, passages % num_passages], axis=1), axis=0)
    rows = make_rows(pairs, num_passages + np.arange(num_rows), num_passages)
    placed = greedy(rows, num_batches)
    assert placed < 0.75 * len(pairs)
    assert len(strict(rows, int(0.95 * placed / num_batches)).rows_PB) == num_batches


def greedy(rows, num_batches):
    """Rows placed one by one, those with the fewest conflicts first, each in the first batch."""
    names = ("query_ids", "anchor_groups", "positive_groups")
    queries, *texts = (rows[name].tolist() for name in names)
    forbidden = [set(rows["forbidden"].row(q).tolist()) for q in range(len(rows["forbidden"]))]
    touched = np.bincount(np.concatenate([list(forbidden[query]) for query in queries]))
    held = [set() for _ in range(num_batches)]
    closed = [set() for _ in range(num_batches)]
    placed = 0
    for row in np.argsort(sum(touched[text] for text in texts), kind="stable"):
        mine = {text[row] for text in texts}
        for batch in range(num_batches):
            if not forbidden[queries[row]] & held[batch] and not mine & closed[batch]:
                held[batch] |= mine
                closed[batch] |= forbidden[queries[row]]
                placed += 1
                break
    return placed


def test_other_orders_let_other_rows_meet_and_a_texts_rows_lie_far_apart():
    num_rows, batch_size = 12_800, 10
    pairs = np.stack([np.arange(num_rows), np.arange(num_rows) // 4], axis=1)
    rows = make_rows(pairs, num_rows + np.arange(num_rows), num_rows)

    def meetings(seed):
        batches = np.sort(strict(rows, batch_size, seed).rows_PB // 4, axis=1)
        return {pair for batch in batches.tolist() for pair in combinations(batch, 2)}

    one, two = meetings(0), meetings(1)
    assert len(one) > 50_000
    assert len(one & two) < 0.05 * len(one)
    batch_of = np.empty(num_rows, int)
    batches = strict(rows, batch_size).rows_PB
    batch_of[batches.ravel()] = np.repeat(np.arange(len(batches)), batch_size)
    spans = np.ptp(batch_of.reshape(-1, 4), axis=1)
    assert np.median(spans) > len(batches) / 4


def test_the_bound_names_its_cause_and_the_texts():
    far = 1_000
    repeated = make_rows(
        np.stack([np.arange(20), np.r_[np.zeros(10, int), 1:11]], 1), far + np.arange(20), 11
    )
    repeated["num_groups"] = far + 20
    found = bound(repeated, 5)
    # min(10, p) + 10 >= 5 p: 2 batches, as each takes the one text at most once.
    assert (found.batches, found.cause) == (2, "repeated positives")
    assert found.bottlenecks.tolist() == [0]
    # 4 queries that all know the same 4 positives: of the 16 rows no two may meet.
    clique = make_rows(
        np.stack([np.repeat(np.arange(4), 4), np.tile(np.arange(4), 4)], 1), 4 + np.arange(4), 4
    )
    found = bound(clique, 2)
    assert (found.batches, found.cause) == (0, "rows that know each other's positive")
    single = make_rows(np.stack([np.arange(10)] * 2, 1), 10 + np.arange(10), 10)
    assert bound(single, 5).batches == 2
    assert bound(single, 5, num_negatives=1).batches == 2
    few = bound(single, 5, num_negatives=2)
    assert (few.batches, few.cause) == (0, "10 distinct passages, where a batch takes 15")


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.integers(1, 5))
def test_the_largest_count_is_the_largest(sizes, batch_size):
    sizes = np.array(sizes)
    fits = [p for p in range(sizes.sum() + 1) if np.minimum(sizes, p).sum() >= p * batch_size]
    assert largest_count(sizes, batch_size) == max(fits)


@pytest.mark.parametrize("batch_size", [64, 1_000, 6_000])
def test_strict_comes_within_a_hundredth_of_the_bound_where_only_texts_repeat(batch_size):
    rng = np.random.default_rng(0)
    num_rows = 100_000
    shares = np.cumsum(np.arange(1, num_rows + 1) ** -0.7)
    passages = np.searchsorted(shares, rng.random(num_rows) * shares[-1])
    pairs = np.stack([np.arange(num_rows), passages], axis=1)
    rows = make_rows(pairs, num_rows + np.arange(num_rows), num_rows)
    assert len(strict(rows, batch_size).rows_PB) >= 0.99 * bound(rows, batch_size).batches


def test_one_query_of_most_rows_does_not_hang():
    num_rows = 60_000
    queries = np.r_[np.zeros(num_rows // 2, int), 1 : num_rows // 2 + 1]
    rows = make_rows(
        np.stack([queries, np.arange(num_rows)], 1), num_rows + np.arange(num_rows), num_rows
    )
    assert len(strict(rows, 2).rows_PB) == bound(rows, 2).batches == num_rows // 2


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


def test_binding_ends_soon_where_the_passages_run_out():
    """The last clean passage of 200,000 is found, and that there is no other is soon known."""
    num_passages, num_rows = 200_000, 4_000
    groups = np.arange(num_passages)
    anchors = num_passages + np.arange(num_rows)
    closed = groups[groups != 77_777]
    forbidden = Ragged(np.r_[0, np.full(num_rows, len(closed))], closed)
    start = time.process_time()
    negatives, num_random = bind_clean(
        np.full((num_rows, 30), -1, np.int32),
        8,
        np.arange(num_rows),
        anchors,
        groups[:num_rows],
        groups,
        forbidden,
        num_passages + num_rows,
        seed=1,
    )
    assert time.process_time() - start < 10
    assert negatives[negatives >= 0].tolist() == [77_777]
    assert num_random.sum() == 1


def test_random_negatives_are_as_likely_as_one_another():
    num_passages, draws = 40, 4_000
    counts = np.zeros(num_passages)
    for seed in range(draws):
        negatives, _ = bind_clean(
            np.full((2, 3), -1, np.int32),
            9,
            np.array([0, 1]),
            np.array([40, 41]),
            np.array([0, 1]),
            np.arange(num_passages),
            Ragged(np.array([0, 2, 4]), np.array([0, 40, 1, 41])),
            42,
            seed,
        )
        counts[negatives] += 1
    # 18 of 38 passages each time; five standard deviations.
    expected = draws * 18 / 38
    assert counts[:2].sum() == 0
    assert abs(counts[2:] - expected).max() < 5 * np.sqrt(expected * (1 - 18 / 38))


def test_merge_takes_the_top_of_the_pool():
    pools = np.array([[4, 3, 2], [7, -1, -1]], np.int32)
    assert bind_top(pools, 2).tolist() == [[4, 3], [7, -1]]


def ignored(rows, queries, positives, negatives):
    names = ("passage_groups", "forbidden", "num_groups")
    return ignored_passages(queries, positives, negatives, *(rows[name] for name in names))


@settings(deadline=None, max_examples=100)
@given(pair_sets(), st.integers(0, 99))
def test_ignored_passages_are_all_other_positives_in_the_batch(rows, seed):
    rng = np.random.default_rng(seed)
    count = len(rows["query_ids"])
    batch = rng.permutation(count)[: max(2, count // 2)]
    negatives = rng.integers(-1, len(rows["passage_groups"]), (len(batch), 2))
    queries, positives = rows["query_ids"][batch], rows["positive_groups"][batch]
    found = ignored(rows, queries, positives, negatives)
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


@pytest.mark.parametrize("shared", ["positive", "anchor"])
def test_one_text_in_a_million_rows_takes_seconds(shared):
    """Alone it allows no strict batch; among as many other rows it stands in each once."""
    num_rows, batch_size = 1_000_000, 1_024
    numbers = np.arange(num_rows)
    one = np.where(numbers < num_rows // 2, 0, numbers)
    for repeated in (np.zeros(num_rows, np.int64), one):
        pairs = np.stack([repeated, numbers] if shared == "anchor" else [numbers, repeated], 1)
        rows = make_rows(pairs, num_rows + numbers, num_rows)
        start = time.process_time()
        most = bound(rows, batch_size)
        assert most.cause == f"repeated {shared}s"
        assert len(strict(rows, batch_size).rows_PB) == most.batches
        merged = merge(rows, batch_size, 0).rows_PB
        assert len(merged) == num_rows // batch_size
        for batch in merged[:3]:
            queries, positives = rows["query_ids"][batch], rows["positive_groups"][batch]
            none = np.empty((batch_size, 0), np.int64)
            found = ignored(rows, queries, positives, none)
            assert found.lengths().max() == (
                0 if shared == "positive" else (queries == 0).sum() - 1
            )
        assert time.process_time() - start < 20

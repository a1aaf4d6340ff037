"""The bound of strict batches is what counting over sets of rows gives."""

import numpy as np
import pytest

from stx_mine.core.forbidden import forbidden_groups
from stx_mine.stages.pack.core.bounds import largest_count, strict_bound


def covered(queries, positives, known):
    """Sizes of sets of rows of which no two may meet: whole components, then the largest stars."""
    rows = range(len(queries))
    present = set(positives)
    parts = [({query}, known[query] & present) for query in sorted(set(queries))]
    components = []
    for part in parts:
        joined = [part, *(one for one in components if one[1] & part[1])]
        components = [one for one in components if one not in joined]
        components.append(tuple(set().union(*column) for column in zip(*joined, strict=True)))
    free, sizes = set(rows), []
    for askers, texts in components:
        if all(texts <= known[query] for query in askers):
            mine = {row for row in rows if queries[row] in askers}
            sizes.append(len(mine))
            free -= mine
    star = [queries.count(queries[row]) + positives.count(positives[row]) for row in rows]
    for row in sorted(rows, key=lambda row: (star[row], row), reverse=True):
        if row in free:
            mine = {
                one
                for one in free
                if queries[one] == queries[row] or positives[one] == positives[row]
            }
            sizes.append(len(mine))
            free -= mine
    return sizes


def most(sizes, batch_size):
    fits = [p for p in range(sum(sizes) + 1) if sum(min(s, p) for s in sizes) >= p * batch_size]
    return max(fits)


def expected(rows, batch_size, num_negatives):
    """Each bound with its cause, and the sizes of what repeats."""
    queries, anchors, positives = (list(map(int, one)) for one in rows["packed"])
    texts, passages = [*anchors, *positives], set(range(rows["num_passages"]))
    sizes = [
        [one.count(text) for text in range(rows["num_groups"])]
        for one in (anchors, positives, texts)
    ]
    known = [set(rows["forbidden"].row(query).tolist()) for query in range(rows["num_queries"])]
    found = [
        (len(queries) // batch_size, "the number of rows", []),
        (most(sizes[0], batch_size), "repeated anchors", sizes[0]),
        (most(sizes[1], batch_size), "repeated positives", sizes[1]),
        (
            most(sizes[2], 2 * batch_size),
            "texts that repeat as anchor and as positive",
            sizes[2],
        ),
        (
            most(covered(queries, positives, known), batch_size),
            "rows that know each other's positive",
            [],
        ),
    ]
    wanted = batch_size * (1 + num_negatives)
    num_texts = len(passages | set(anchors))
    if len(passages) < wanted:
        words = f"{len(passages)} distinct passages, where a batch takes {wanted}"
        found.append((0, words, []))
    elif num_texts < wanted + batch_size:
        words = f"{num_texts} distinct texts, where a batch takes {wanted + batch_size}"
        found.append((0, words, []))
    return min(found, key=lambda one: one[0])


def make(pairs, query_groups, num_passages, packed):
    queries, positives = np.ascontiguousarray(pairs.T)
    return {
        "columns": (queries, query_groups[queries], positives),
        "packed": (queries[packed], query_groups[queries[packed]], positives[packed]),
        "rows": packed,
        "num_passages": num_passages,
        "num_queries": len(query_groups),
        "num_groups": num_passages + len(query_groups),
        "forbidden": forbidden_groups(queries, positives, query_groups, np.arange(num_passages)),
    }


def assert_bound_as_counted(rows, batch_size, num_negatives=0):
    passages = np.arange(rows["num_passages"])
    found = strict_bound(
        *rows["columns"],
        passages,
        rows["forbidden"],
        rows["num_groups"],
        batch_size,
        num_negatives,
        rows["rows"],
    )
    batches, cause, sizes = expected(rows, batch_size, num_negatives)
    assert (found.batches, found.cause) == (batches, cause)
    # The five that repeat most; of those that repeat as often the lower id first.
    shown = [(-sizes[group], group) for group in found.bottlenecks.tolist()]
    assert shown == sorted(shown)
    repeated = sorted((size for size in sizes if size > 1), reverse=True)
    assert [-size for size, _ in shown] == repeated[:5]
    return cause


@pytest.mark.parametrize("largest", [3, 6, 12])
def test_the_bound_is_the_lowest_of_all_counts(largest):
    causes = set()
    for seed in range(60):
        rng = np.random.default_rng(seed)
        num_queries, num_passages = rng.integers(1, largest + 1, 2)
        pairs = [rng.integers(0, num, 2 * largest) for num in (num_queries, num_passages)]
        pairs = rng.permutation(np.unique(np.stack(pairs, 1), axis=0))
        groups = num_passages + np.arange(num_queries)
        both = rng.random(num_queries) < 0.3
        groups[both] = rng.integers(0, num_passages, both.sum())
        packed = rng.permutation(len(pairs))[: rng.integers(1, len(pairs) + 1)]
        rows = make(pairs, groups, int(num_passages), packed)
        for batch_size in (1, 2, 3, 5):
            causes.add(assert_bound_as_counted(rows, batch_size))
    words = ("rows", "anchors", "positives", "as anchor and as positive", "know", "distinct")
    assert sum(any(word in cause for cause in causes) for word in words) >= 5


@pytest.mark.parametrize("seed", range(60))
def test_what_queries_know_of_each_other_bounds_batches_of_one_and_two(seed):
    """Dense blocks of queries and passages, of which some are complete and some lack a pair."""
    rng = np.random.default_rng(seed)
    pairs, start = [], 0
    for _ in range(rng.integers(1, 4)):
        wide, high = rng.integers(1, 5, 2)
        block = [(start + q, start + p) for q in range(wide) for p in range(high)]
        lost = (
            set(rng.integers(0, len(block), rng.integers(0, 3)).tolist()) if len(block) > 3 else ()
        )
        pairs += [pair for number, pair in enumerate(block) if number not in lost]
        start += int(max(wide, high))
    pairs = rng.permutation(np.array(pairs))
    packed = rng.permutation(len(pairs))[: max(1, len(pairs) - int(rng.integers(0, 3)))]
    rows = make(pairs, 20 + np.arange(start), 20, packed)
    for batch_size in (1, 2, 3):
        assert_bound_as_counted(rows, batch_size)


@pytest.mark.parametrize("num_negatives", [0, 1, 2])
@pytest.mark.parametrize("num_passages", [3, 5, 6, 7, 8, 9, 10])
def test_a_batch_needs_as_many_texts_as_it_takes(num_passages, num_negatives):
    """Two rows; an anchor is a text of its own, or a passage that no row has as positive."""
    pairs = np.array([[0, 0], [1, 1]])
    for groups in ([num_passages, num_passages + 1], [2, num_passages + 1]):
        rows = make(pairs, np.array(groups), num_passages, np.arange(2))
        for batch_size in (1, 2):
            assert_bound_as_counted(rows, batch_size, num_negatives)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5])
def test_sets_of_any_size_are_counted_up_to_the_number_of_batches(batch_size):
    for sizes in ([], [0], [1], [5], [1, 1, 1], [3, 3], [2, 0, 7, 7], [10, 1, 1, 1, 1], [4] * 6):
        assert largest_count(np.array(sizes, np.int64), batch_size) == most(sizes, batch_size)


def test_no_rows_make_no_batches():
    rows = make(np.array([[0, 0]]), np.array([1]), 1, np.empty(0, np.int64))
    assert assert_bound_as_counted(rows, 1) == "the number of rows"

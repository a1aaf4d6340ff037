"""The checks of packed batches find what naive, quadratic loops find, in the same order."""

import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from cores import named, ragged
from hypothesis import given, settings
from hypothesis import strategies as st

from stx_mine.core.groups import Groups
from stx_mine.core.random import mix
from stx_mine.stages.verify.core.batch_ids import BatchIds
from stx_mine.stages.verify.core.batches import (
    check_pair_batches,
    check_strict_batches,
    check_texts,
)

# --- batches of pairs ---

UNKNOWN = "the positive is not a known one of its anchor"
FORBIDDEN = "a negative is a known positive (or the text) of its anchor"
NEAR = "a negative is a near positive of its anchor"
TWICE = "a negative stands twice in its row"
MISSES = "ignore_ids misses a known or near positive of its anchor"
EXTRA = "ignore_ids holds what is no other known or near positive"
AGAIN = "a text stands twice in a strict batch"
IGNORES = "a known or near positive is in a strict batch"
NOT_FULL = "a row of a strict batch is not full"


def naive_pairs(rows, size, known, near, groups):  # noqa: C901
    """Violations of rows (anchor, positive, negatives, ignored), by loops over sets."""

    def group(text):
        return groups.get(text, text)

    def expected(batch, row):
        anchor, positive, *_ = row
        present = {text for _, own, others, _ in batch for text in (own, *others)}
        avoided = known.get(anchor, set()) | near.get(anchor, set()) | {group(anchor)}
        return {text for text in present if group(text) in avoided and text != positive}

    for start in range(0, len(rows), size):
        batch = rows[start : start + size]
        for number, (anchor, positive, _, _) in enumerate(batch):
            if group(positive) not in known.get(anchor, set()):
                yield start + number, UNKNOWN, (positive,)
        for what in (FORBIDDEN, NEAR):
            for number, (anchor, _, negatives, _) in enumerate(batch):
                forbidden = known.get(anchor, set()) | {group(anchor)}
                for text in negatives:
                    is_forbidden = group(text) in forbidden
                    is_near = group(text) in near.get(anchor, set()) and not is_forbidden
                    if is_forbidden if what == FORBIDDEN else is_near:
                        yield start + number, what, (text,)
        for number, (_, _, negatives, _) in enumerate(batch):
            found = [group(text) for text in negatives]
            for one in sorted(set(found)):
                if found.count(one) > 1:
                    yield start + number, TWICE, (negatives[found.index(one)],)
        for what in (MISSES, EXTRA):
            for number, row in enumerate(batch):
                wanted, ignored = expected(batch, row), set(row[3])
                for text in sorted(wanted - ignored if what == MISSES else ignored - wanted):
                    yield start + number, what, (text,)


def naive_strict(rows, size, groups, num_negatives):
    for start in range(0, len(rows), size):
        batch = list(enumerate(rows[start : start + size], start))
        slots = [(number, row[0]) for number, row in batch]
        slots += [(number, row[1]) for number, row in batch]
        slots += [(number, text) for number, row in batch for text in row[2]]
        for one in sorted({groups.get(text, text) for _, text in slots}):
            for number, text in [s for s in slots if groups.get(s[1], s[1]) == one][1:]:
                yield number, AGAIN, (text,)
        for number, row in batch:
            if row[3]:
                yield number, IGNORES, tuple(row[3])
        for number, row in batch:
            if len(row[2]) != num_negatives:
                yield number, NOT_FULL, ()


texts = st.integers(0, 11)
anchors = st.integers(8, 15)
sets_by_anchor = st.dictionaries(anchors, st.sets(texts, max_size=5), max_size=6)
lists = st.lists(texts, max_size=4)
pair_rows = st.lists(st.tuples(anchors, texts, lists, lists), min_size=6, max_size=18)


@st.composite
def packed_pairs(draw):
    """Rows, some of which have the right ignore list or a known positive."""
    size = draw(st.integers(1, 6))
    rows = draw(pair_rows)
    rows = rows[: len(rows) - len(rows) % size]
    known, near = draw(sets_by_anchor), draw(sets_by_anchor)
    groups = {text: draw(st.integers(0, text - 1)) for text in draw(st.sets(st.integers(1, 11)))}
    groups = {text: groups.get(one, one) for text, one in groups.items()}
    groups = {text: one for text, one in groups.items() if groups.get(one, one) == one}
    known = {anchor: {groups.get(one, one) for one in found} for anchor, found in known.items()}
    near = {anchor: {groups.get(one, one) for one in found} for anchor, found in near.items()}
    plain = [(anchor, positive, negatives, []) for anchor, positive, negatives, _ in rows]
    wanted = {}
    for row, what, ids in naive_pairs(plain, size, known, near, groups):
        if what == MISSES:
            wanted.setdefault(row, []).extend(ids)
    repaired = []
    for number, (anchor, positive, negatives, ignored) in enumerate(rows):
        right = wanted.get(number, [])
        choice = draw(st.sampled_from(["as drawn", "right", "right", "one less", "one more"]))
        changed = {"as drawn": ignored, "right": right, "one less": right[1:]}
        repaired.append((anchor, positive, negatives, changed.get(choice, [*right, *ignored[:1]])))
    return repaired, size, known, near, groups


def batch_ids(rows, size, known, near, groups):
    asked = sorted(known.keys() | near.keys())
    places = {anchor: number for number, anchor in enumerate(asked)}
    return BatchIds(
        size,
        np.array([row[0] for row in rows], np.int64),
        np.array([row[1] for row in rows], np.int64),
        ragged([row[2] for row in rows]),
        ragged([row[3] for row in rows]),
        ragged([sorted(known.get(anchor, ())) for anchor in asked]),
        ragged([sorted(near.get(anchor, ())) for anchor in asked]),
        np.array([places.get(row[0], -1) for row in rows], np.int64),
        Groups(np.array(sorted(groups), np.int64), np.array([groups[t] for t in sorted(groups)])),
    )


def by_batch(violations, size):
    return sorted(violations, key=lambda one: one[0] // size)


@settings(deadline=None, max_examples=60)
@given(packed_pairs())
def test_pairs_are_judged_as_by_naive_loops(case):
    rows, size, _, _, groups = case
    batches = batch_ids(*case)
    assert named(check_pair_batches(batches), size) == list(naive_pairs(*case))
    found = named(check_strict_batches(batches, 2), size)
    assert found == list(naive_strict(rows, size, groups, 2))
    both = [*check_pair_batches(batches), *check_strict_batches(batches, 2)]
    expected = by_batch([*naive_pairs(*case), *naive_strict(rows, size, groups, 2)], size)
    assert named(both, size) == expected


# Anchors 20 to 23 with the positives 0 to 3, each also with 7; negatives are others.
CLEAN = [(20, 0, [4, 5], []), (21, 1, [4, 6], []), (22, 2, [5, 6], []), (23, 3, [4, 5], [])]
KNOWN = {20: {0, 7}, 21: {1, 7}, 22: {2, 7}, 23: {3, 7}}


@pytest.mark.parametrize(
    ("place", "row", "near", "groups", "what", "ids"),
    [
        (1, (21, 2, [4, 6], []), {}, {}, UNKNOWN, (2,)),
        (1, (29, 1, [4, 6], []), {}, {}, UNKNOWN, (1,)),
        (0, (20, 0, [4, 7], [7]), {}, {}, FORBIDDEN, (7,)),
        (3, (23, 3, [23, 5], [23]), {}, {}, FORBIDDEN, (23,)),
        (3, (23, 3, [4, 5], []), {}, {5: 3}, FORBIDDEN, (5,)),
        (2, (22, 2, [5, 6], [6]), {22: {6}}, {}, NEAR, (6,)),
        (2, (22, 2, [6, 6], []), {}, {}, TWICE, (6,)),
        (2, (22, 2, [5, 6], []), {}, {6: 5}, TWICE, (5,)),
        (0, (20, 0, [4, 5], []), {20: {6}}, {}, MISSES, (6,)),
        (1, (21, 1, [4, 6], [1]), {}, {}, EXTRA, (1,)),
        (1, (21, 1, [4, 6], [4]), {}, {}, EXTRA, (4,)),
        (1, (21, 1, [4, 6], [99]), {}, {}, EXTRA, (99,)),
    ],
)
def test_a_planted_violation_is_named_where_it_is(place, row, near, groups, what, ids):
    rows = [*CLEAN]
    assert named(check_pair_batches(batch_ids(rows, 2, KNOWN, {}, {})), 2) == []
    rows[place] = row
    found = named(check_pair_batches(batch_ids(rows, 2, KNOWN, near, groups)), 2)
    assert (place, what, ids) in found
    assert found == list(naive_pairs(rows, 2, KNOWN, near, groups))


def marked(found):
    """The rows of each invariant that name a violation; every row that is marked must."""
    rows = [{one.row for n in range(len(each.rows)) for one in each.named(n)} for each in found]
    assert rows == [set(each.rows.tolist()) for each in found]
    return rows


@pytest.mark.parametrize("near", range(32))
def test_a_complete_ignore_list_is_right_however_known_and_near_ones_are_mixed(near):
    """Passages 1 to 5 are positives of the first row's anchor, and negatives of the second row."""
    close = {one for one in range(1, 6) if near >> (one - 1) & 1}
    known = {20: {0, *range(1, 6)} - close, 21: {6}}
    for ignored, missing in (([1, 2, 3, 4, 5], []), ([5, 4, 3, 2, 1], []), ([1, 2, 2, 4], [3, 5])):
        rows = [(20, 0, [], ignored), (21, 6, [1, 2, 3, 4, 5], [])]
        found = check_pair_batches(batch_ids(rows, 2, known, {20: close}, {}))
        assert named(found, 2) == [(0, MISSES, (one,)) for one in missing]
        marked(found)


@pytest.mark.parametrize("size", [2, 3, 4])
def test_ignore_lists_of_all_that_is_in_the_batch_are_right_in_any_order(size):
    """All rows are of one anchor, of which each positive is a known or a near one."""
    texts = range(size)
    for near in range(1 << size):
        close = {one for one in texts if near >> one & 1}
        for turn in (1, -1):
            rows = [(20, own, [], [one for one in texts if one != own][::turn]) for own in texts]
            case = (rows, size, {20: {*texts} - close}, {20: close}, {})
            found = check_pair_batches(batch_ids(*case))
            assert named(found, size) == list(naive_pairs(*case))
            assert marked(found)[-2:] == [set(), set()]


@pytest.mark.parametrize("more", [0, 1, 9])
def test_ignore_lists_are_right_where_an_anchor_avoids_more_than_its_batch_holds(more):
    known = {20: {0, 3, 7, *range(100, 100 + more)}, 21: {1, 5, *range(200, 200 + more)}}
    rows = [(20, 0, [4], [3, 7]), (20, 3, [7], [0, 7]), (21, 1, [5], [0]), (21, 5, [1], [1, 5, 1])]
    expected = [(2, MISSES, (5,)), (2, EXTRA, (0,)), (3, EXTRA, (5,))]
    found = check_pair_batches(batch_ids(rows, 2, known, {}, {}))
    assert [one for one in named(found, 2) if one[1] in (MISSES, EXTRA)] == expected
    marked(found)


def test_what_the_anchor_before_must_ignore_is_no_excuse():
    rows = [(20, 0, [], [1, 2]), (21, 1, [2], [0, 2])]
    found = check_pair_batches(batch_ids(rows, 2, {20: {0, 1, 2}, 21: {0, 1}}, {}, {}))
    assert named(found, 2) == [(1, EXTRA, (2,))]


def test_texts_of_one_group_are_ignored_together():
    groups = {4: 3, 5: 3, 20: 6}
    rows = [(20, 3, [], [4, 5, 6]), (21, 7, [4, 5, 6], [])]
    case = (rows, 2, {20: {3, *range(100, 120)}, 21: {7}}, {}, groups)
    found = check_pair_batches(batch_ids(*case))
    assert named(found, 2) == list(naive_pairs(*case)) == [(1, TWICE, (4,))]
    marked(found)
    rows[0] = (20, 3, [], [5, 6])
    assert (0, MISSES, (4,)) in named(check_pair_batches(batch_ids(*case)), 2)


def test_every_marked_row_names_what_is_wrong():
    for seed in range(30):
        rng = np.random.default_rng(seed)
        size = int(rng.integers(1, 5))
        known, near = (
            {int(one): set(rng.integers(0, 8, 3).tolist()) for one in rng.integers(8, 12, 3)}
            for _ in range(2)
        )
        rows = [
            (
                int(rng.integers(8, 12)),
                int(rng.integers(8)),
                *(rng.integers(0, 8, rng.integers(0, 4)).tolist() for _ in range(2)),
            )
            for _ in range(size * int(rng.integers(1, 4)))
        ]
        case = (rows, size, known, near, {5: 4, 9: 2})
        known |= {one: {4 if text == 5 else text for text in known[one]} for one in known}
        near |= {one: {4 if text == 5 else text for text in near[one]} for one in near}
        batches = batch_ids(*case)
        found = check_pair_batches(batches)
        assert named(found, size) == list(naive_pairs(*case))
        strict = check_strict_batches(batches, 2)
        assert named(strict, size) == list(naive_strict(rows, size, {5: 4, 9: 2}, 2))
        marked([*found, *strict])


def naive_texts(slots, size):
    """Violations of rows of (id, text), None for an empty slot, slot by slot."""
    for start in range(0, len(slots), size):
        batch = slots[start : start + size]
        found = [
            (start + number, *row[slot])
            for slot in range(len(batch[0]))
            for number, row in enumerate(batch)
            if row[slot] is not None
        ]
        order = list(dict.fromkeys(text for _, _, text in found))
        keyed = [(row, one, order.index(text)) for row, one, text in found]
        for key, what in ((1, "an id stands for two texts"), (2, "a text stands under two ids")):
            other = 3 - key
            for value in sorted({one[key] for one in keyed}):
                same = [one for one in keyed if one[key] == value]
                seconds = sorted({one[other] for one in same})
                for before, after in pairwise(seconds):
                    first = next(one for one in same if one[other] == after)
                    ids = {value} if key == 1 else {before, after}
                    yield first[0], what, ids


text_slots = st.lists(
    st.lists(st.none() | st.tuples(st.integers(-1, 4), st.integers(-1, 4)), min_size=3, max_size=3),
    min_size=1,
    max_size=12,
)


@settings(deadline=None, max_examples=60)
@given(text_slots, st.integers(1, 5))
def test_texts_and_ids_are_judged_as_by_naive_loops(slots, size):
    slots = slots[: len(slots) - len(slots) % size]
    filled = np.array([[one is not None for one in row] for row in slots]).reshape(-1, 3)
    ids = np.array([[one[0] if one else -1 for one in row] for row in slots]).reshape(-1, 3)
    numbers = np.array([[one[1] if one else -1 for one in row] for row in slots]).reshape(-1, 3)
    checked = check_texts(ids, numbers, filled, size)
    found = named([checked], size)
    assert [(row, what, set(one)) for row, what, one in found] == list(naive_texts(slots, size))
    # No other batch is looked at closely.
    assert checked.rows.tolist() == sorted({row - row % size for row, _, _ in found})


def test_ids_that_fall_on_every_second_place_of_the_table_are_all_held():
    keys = np.array([key for key in range(100) if int(mix(0, key, 0)) % 2 == 0][:12])
    ids, filled = keys[:, None], np.ones((12, 1), bool)
    assert named([check_texts(ids, ids, filled, 12)], 12) == []
    texts = ids.copy()
    texts[-1] = texts[0]
    [(row, what, _)] = named([check_texts(ids, texts, filled, 12)], 12)
    assert (row, what) == (11, "a text stands under two ids")


@pytest.mark.parametrize("end", range(16))
def test_ids_that_fall_on_one_place_of_the_table_stand_on_the_next_free_ones(end):
    """12 slots have a table of 16 places; from its last one the search goes on at the first."""
    own = [key for key in range(400) if int(mix(0, key, 0)) % 16 == end][:4]
    after = [key for key in range(400) if int(mix(0, key, 0)) % 16 == (end + 2) % 16][:2]
    ids = np.array([*own, *after, *own, *after])[:, None]
    filled = np.ones(ids.shape, bool)
    assert check_texts(ids, ids, filled, 12).rows.tolist() == []
    texts = np.concatenate([ids, ids + 1_000, ids])
    three = np.concatenate([ids] * 3), texts, np.concatenate([filled] * 3)
    assert check_texts(*three, 12).rows.tolist() == []
    texts[12 + 9] = 7_777
    assert check_texts(*three, 12).rows.tolist() == [12]
    assert {row for row, _, _ in named([check_texts(*three, 12)], 12)} == {21}


@pytest.mark.parametrize("num_ids", [12, 13, 25, 26, 51])
def test_as_many_ids_as_slots_fit_into_the_table(num_ids):
    ids = np.arange(2 * num_ids)[:, None]
    filled = np.ones(ids.shape, bool)
    assert check_texts(ids, ids[::-1], filled, num_ids).rows.tolist() == []
    ids[-1] = ids[num_ids]
    assert check_texts(ids, np.arange(2 * num_ids)[:, None], filled, num_ids).rows.tolist() == [
        num_ids
    ]


# --- work and memory ---


def test_a_query_with_very_many_positives_costs_no_memory_a_row():
    """200,000 positives in each of 2,048 rows would be 3.3 GB an array."""
    positives, size = 200_000, 128
    rows = [
        (10**6, number, [], [n for n in range(number // size * size, number // size * size + size)
                             if n != number])
        for number in range(2_048)
    ]  # fmt: skip
    batches = batch_ids(rows, size, {10**6: range(positives)}, {}, {})
    assert named(check_pair_batches(batches), size) == []
    tracemalloc.start()
    found = named(check_pair_batches(batches), size)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == []
    stored = batches.ignored.values.nbytes + batches.known.values.nbytes
    assert peak < 8 * stored < 40e6

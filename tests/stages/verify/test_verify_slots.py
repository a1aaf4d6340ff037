"""The texts by which a row breaks a rule are the first ones that show it, as named by loops."""

import numpy as np
import pytest
from cores import text_rows

from stx_mine.stages.verify.core.rows import KnownPairs, broken_rules, slots_of


def slots(lists):
    """(row, place, role, text) of each slot."""
    return [
        (number, place, role, text)
        for number, (anchor, positives, negatives) in enumerate(lists)
        for place, (role, text) in enumerate(
            [(0, anchor), *((1, one) for one in positives), *((2, one) for one in negatives)]
        )
    ]


def first(found):
    row, place, *_ = next(found)
    return row, place


def shown(lists, pairs, rule, row, together):
    """The first slots that show that a row breaks a rule."""
    anchor, positives, _ = lists[row]
    every = slots(lists)
    own = [slot for slot in every if slot[0] == row]
    known = [slot for slot in every if slot[2] and (anchor, slot[3]) in pairs]
    if rule == "missing":
        return (first(slot for slot in own if slot[3] < 0),)
    if rule == "own_text":
        return (row, 0), first(slot for slot in own if slot[2] and slot[3] == anchor >= 0)
    if rule == "known_positive":
        return (row, 0), first(slot for slot in known if slot[0] == row and slot[2] == 2)
    if rule == "positive_elsewhere":
        return (row, 0), first(
            slot for slot in known if slot[0] != row and slot[3] not in positives
        )

    def others(one):
        """Slots that repeat one: in its role of its row, or anywhere in other rows."""
        for slot in every:
            same_role = slot[0] == row and slot[2] == one[2] and slot[1] != one[1]
            if slot[3] == one[3] and (same_role or (together and slot[0] != row)):
                yield slot

    one = next(slot for slot in own if slot[3] >= 0 and any(others(slot)))
    return tuple(sorted([one[:2], first(others(one))]))


def breaks(lists, pairs, row, together):
    """Every rule that a row breaks, by the same loops."""
    for rule in ("missing", "own_text", "known_positive", "repeated", "positive_elsewhere"):
        try:
            if together or rule != "positive_elsewhere":
                yield rule, shown(lists, pairs, rule, row, together)
        except StopIteration:
            continue


def assert_shown_as_by_loops(lists, more_known=(), together=True):
    rows = text_rows(lists)
    pairs = {(anchor, text) for anchor, texts, _ in lists for text in texts} | set(more_known)
    pairs = {pair for pair in pairs if min(pair) >= 0}
    known = KnownPairs(*np.array(sorted(pairs), np.int64).reshape(-1, 2).T)
    broken = broken_rules(rows, known, len(lists) if together else None)
    for row in range(len(lists)):
        expected = dict(breaks(lists, pairs, row, together))
        assert {rule for rule, marked in broken.items() if marked[row]} == set(expected)
        for rule, places in expected.items():
            assert slots_of(rows, known, rule, row, together) == places


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("num_texts", [4, 8, 20])
def test_rows_at_random_show_what_is_wrong(num_texts, together):
    for seed in range(15):
        rng = np.random.default_rng(seed)
        lists = [
            (
                int(rng.integers(-1, num_texts)),
                *(rng.integers(-1, num_texts, rng.integers(0, 4)).tolist() for _ in range(2)),
            )
            for _ in range(rng.integers(1, 5))
        ]
        extra = [tuple(pair) for pair in rng.integers(0, num_texts, (3, 2)).tolist()]
        assert_shown_as_by_loops(lists, extra, together)


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize(
    "row",
    [
        (9, [3], [3, 3]),
        (9, [3, 3], [3]),
        (9, [3], [3, 4, 4]),
        (9, [9], [5]),
        (9, [3], [5, 9]),
        (9, [3], [5, 3]),
        (9, [3], [0, 5, 0]),
        (0, [3], [5, 0]),
        (9, [], [-1, -1]),
        (-1, [-1], [-1, 4, 4]),
        (9, [], []),
    ],
)
def test_one_row_shows_what_is_wrong(row, together):
    """Alone, first and last of its batch."""
    assert_shown_as_by_loops([row], (), together)
    assert_shown_as_by_loops([row, (10, [11], [12])], (), together)
    assert_shown_as_by_loops([(10, [11], [12]), (13, [], [5, 3]), row], (), together)

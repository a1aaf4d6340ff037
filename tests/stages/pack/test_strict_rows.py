"""Rows of strict batches are sorted by how hard they are to place, as counted pair by pair."""

import numpy as np
import pytest

from stx_mine.core.forbidden import forbidden_groups
from stx_mine.stages.pack.core.assign import assign_strict
from stx_mine.stages.pack.core.bounds import largest_count
from stx_mine.stages.pack.core.strict_fill import fill_waves, wave_sizes
from stx_mine.stages.pack.core.strict_rows import (
    ANCHOR,
    FORBIDS,
    POSITIVE,
    ROW,
    Room,
    count,
    count_touches,
    lines_of,
)


def pairs_at_random(seed, largest=25):
    """Distinct pairs of queries and passages, in random order; a fifth of the queries are both."""
    rng = np.random.default_rng(seed)
    num_queries, num_passages = rng.integers(1, largest, 2)
    pairs = np.stack([rng.integers(0, num, 2 * largest) for num in (num_queries, num_passages)], 1)
    pairs = rng.permutation(np.unique(pairs, axis=0))
    groups = num_passages + np.arange(num_queries)
    both = rng.random(num_queries) < 0.2
    groups[both] = rng.integers(0, num_passages, both.sum())
    return pairs, groups, int(num_passages), rng


class Rows:
    """Rows that are left, and what others touch of them."""

    def __init__(self, pairs, query_groups, num_passages, order):
        self.queries, self.positives = np.ascontiguousarray(pairs.T)
        self.anchors, self.order = query_groups[self.queries], order
        self.num_groups = num_passages + len(query_groups)
        passages = np.arange(num_passages)
        self.forbidden = forbidden_groups(*pairs.T, query_groups, passages)
        lists = [self.forbidden.row(query).tolist() for query in self.queries[order]]
        self.touches = np.bincount(np.concatenate(lists), minlength=self.num_groups)
        self.rows_of = np.bincount(self.queries[order], minlength=len(query_groups))
        # A text counts where another row's placing can shut it out.
        self.counts = np.zeros(self.num_groups, bool)
        for row in order:
            self.counts[self.anchors[row]] |= self.touches[self.anchors[row]] > 1
        touching = np.zeros(self.num_groups, int)
        for query in np.flatnonzero(self.rows_of):
            touching[self.forbidden.row(query)] += 1
        self.counts |= touching > 1

    def lines(self, num_batches):
        texts = self.anchors, self.positives
        room = Room.of(len(self.queries), self.num_groups, self.forbidden)
        # What an earlier use of the room left there is of no account.
        room.sets[:], room.forbids[:], room.numbers[:], room.starts[:] = 7, 7, 7, 7
        rows = np.sort(self.order)
        count(rows, self.queries, room.rows_of)
        count_touches(room.rows_of, *self._known(), room.touched)
        assert room.rows_of.tolist() == self.rows_of.tolist()
        assert room.touched.tolist() == self.touches.tolist()
        return lines_of(
            rows, self.order, self.queries, *texts, self.forbidden, room, num_batches
        )  # fmt: skip

    def _known(self):
        return self.forbidden.offsets, self.forbidden.values

    def others(self, row):
        """What a row's query forbids beside its anchor, where that can shut out another row."""
        texts = self.forbidden.row(self.queries[row]).tolist()
        return {one for one in texts if one != self.anchors[row] and self.counts[one]}

    def set_of(self, row):
        """The rows with which a row is placed: of its query, of its positive, or of its anchor."""
        if len(self.forbidden.row(self.queries[row])) > 2:
            return "query", int(self.queries[row])
        texts = [text[row] for text in (self.positives, self.anchors) if self.counts[text[row]]]
        return ("text", int(texts[0])) if texts else None

    def conflicts(self, row):
        """How many touches of its texts by others a row counts, at its worst."""
        other = self.touches[self.positives[row]]
        if len(self.forbidden.row(self.queries[row])) > 2:
            other = max((self.touches[one] for one in self.others(row)), default=1)
        return int(self.touches[self.anchors[row]] + other - 2)

    def expected(self, num_batches):
        """The rows in the order of their lines, and how many are hard."""
        worst, first = {}, {}
        for number, row in enumerate(self.order.tolist()):
            mine = self.set_of(row)
            worst[mine] = max(worst.get(mine, 0), self.conflicts(row))
            first.setdefault(mine, number)

        def key(row):
            mine = self.set_of(row)
            if mine is None:
                return 2, 0, 0
            rank = rounded(worst[mine])
            hard = worst[mine] >= num_batches
            return (0, rank, first[mine]) if hard else (1, -rank, first[mine])

        found = sorted(self.order.tolist(), key=key)
        return found, sum(key(row)[0] == 0 for row in found)


def rounded(conflicts):
    """Down to 4 bits: exact below 16, then in steps of an eighth or less."""
    step = 1
    while conflicts // step >= 16:
        step *= 2
    return conflicts // step * step


def assert_sorted_as_counted(rows, num_batches):
    lines = rows.lines(num_batches)
    expected, num_hard = rows.expected(num_batches)
    assert lines.lines_N4[:, ROW].tolist() == expected
    assert lines.num_hard == num_hard
    # Numbers name texts one to one, below T; -1 is a text that no other row touches.
    named = {}
    for row, anchor, positive, start in lines.lines_N4[:, [ROW, ANCHOR, POSITIVE, FORBIDS]]:
        texts, numbers = [rows.anchors[row], rows.positives[row]], [anchor, positive]
        others = sorted(rows.others(row))
        if len(rows.forbidden.row(rows.queries[row])) > 2 and others:
            assert lines.forbids[start] == len(others)
            texts += others
            numbers += lines.forbids[start + 1 : start + 1 + len(others)].tolist()
        else:
            assert start == -1
        for text, number in zip(texts, numbers, strict=True):
            assert (number >= 0) == rows.counts[text]
            if number >= 0:
                assert named.setdefault(int(number), int(text)) == text
    assert len(set(named.values())) == len(named)
    assert max(named, default=-1) < lines.num_texts
    return num_hard


@pytest.mark.parametrize("num_batches", [1, 3, 6, 12, 40])
def test_lines_are_sorted_as_counted(num_batches):
    for seed in range(20):
        pairs, groups, num_passages, rng = pairs_at_random(seed)
        order = rng.permutation(len(pairs))
        assert_sorted_as_counted(Rows(pairs, groups, num_passages, order), num_batches)


@pytest.mark.parametrize("num_batches", [2, 5])
def test_rows_that_are_packed_already_count_no_more(num_batches):
    for seed in range(20):
        pairs, groups, num_passages, rng = pairs_at_random(seed)
        order = rng.permutation(len(pairs))[: max(1, len(pairs) // 3)]
        assert_sorted_as_counted(Rows(pairs, groups, num_passages, order), num_batches)


@pytest.mark.parametrize("shared", [15, 16, 17, 18, 31, 32, 33, 36, 70])
def test_many_conflicts_are_rounded_and_those_as_many_as_batches_are_hard(shared):
    """Passage 0 has `shared` rows, passage 1 one more, passage 2 twice as many."""
    passages = np.repeat([0, 1, 2], [shared, shared + 1, 2 * shared])
    pairs = np.stack([np.arange(len(passages)), passages], axis=1)
    order = np.random.default_rng(shared).permutation(len(pairs))
    rows = Rows(pairs, 3 + np.arange(len(pairs)), 3, order)
    # A row of passage 0 has shared - 1 conflicts.
    sizes = [assert_sorted_as_counted(rows, shared - 1 + more) for more in (0, 1, 2)]
    assert sizes == [4 * shared + 1, 3 * shared + 1, 2 * shared]


def test_rows_that_meet_no_other_come_last_in_their_order():
    pairs = np.stack([np.arange(6), np.array([0, 1, 2, 3, 4, 4])], axis=1)
    rows = Rows(pairs, 5 + np.arange(6), 5, np.array([3, 5, 0, 2, 4, 1]))
    lines = rows.lines(1)
    assert lines.lines_N4[:, ROW].tolist() == [5, 4, 3, 0, 2, 1]
    assert (lines.num_texts, lines.num_hard) == (1, 2)
    assert (lines.lines_N4[2:, 1:] == -1).all()


def packed_in_rounds(rows_of, left, batch_size):
    """What is left of a round goes into the next one, up to 8 or until one makes nothing."""
    batches = []
    for _ in range(8):
        if len(left) < batch_size:
            break
        rows, most = rows_of(left), len(left) // batch_size
        for texts in (rows.anchors, rows.positives):
            most = min(most, largest_count(np.bincount(texts[left]), batch_size))
        if most == 0:
            break
        full, left = fill_waves(rows.lines(most), wave_sizes(most), batch_size)
        if not len(full):
            break
        batches += full.tolist()
    return batches, sorted(left.tolist())


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 9])
def test_strict_packs_in_rounds_and_a_round_knows_nothing_of_those_before(batch_size):
    for seed in range(30):
        pairs, groups, num_passages, rng = pairs_at_random(seed, 6 + seed % 12)
        order = rng.permutation(len(pairs))[: max(1, len(pairs) - seed % 4)]
        rows = Rows(pairs, groups, num_passages, order)
        texts = rows.anchors, rows.positives
        found = assign_strict(
            rows.queries, *texts, rows.forbidden, rows.num_groups, batch_size, order
        )

        def rows_of(left, pairs=pairs, groups=groups, num_passages=num_passages):
            return Rows(pairs, groups, num_passages, left)

        expected = packed_in_rounds(rows_of, order, batch_size)
        assert (found.rows_PB.tolist(), found.left_out.tolist()) == expected
        assert found.rows_PB.shape[1] == batch_size

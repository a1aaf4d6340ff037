"""Merged batches are dealt and swapped as plain loops over lists do it, draw by draw."""

from collections import Counter

import numpy as np
import pytest

from stx_mine.core.random import mix
from stx_mine.stages.pack.core.assign import assign_merge

ROUNDS, TRIES = 2, 256


def dealt(used, positives, num_batches, rng):
    """Rows of one positive side by side, dealt to batches in turn."""
    present = [int(positives[row]) for row in used]
    turn = rng.permutation(max(present) + 1).tolist()
    rows = [row for group in turn for row in used if positives[row] == group]
    return [rows[batch::num_batches] for batch in range(num_batches)]


class Counters:
    """How often texts are in batches, in as many counters as there are."""

    def __init__(self, rows, num_rows, num_batches, seed):
        self.rows, self.seed, self.num_batches, self.size = rows, seed, num_batches, 1024
        while self.size < 16 * num_rows:
            self.size *= 2
        self.found = Counter()
        self.repeats = [Counter(), Counter()]

    def texts(self, row):
        """Number and repeats of both texts of a row."""
        for role, groups in enumerate(self.rows):
            yield 2 * int(groups[row]) + role, self.repeats[role][int(groups[row])]

    def key(self, text, batch):
        return int(mix(self.seed, text, batch)) % self.size

    def add(self, row, batch, change):
        for text, repeats in self.texts(row):
            if repeats > 1:
                self.found[self.key(text, batch)] += change

    def fits(self, row, batch):
        return all(
            repeats < 2 or self.found[self.key(text, batch)] < -(-repeats // self.num_batches)
            for text, repeats in self.texts(row)
        )


def crowded(batches, anchors):
    """Places of the rows whose anchor is in their batch ceil(m / P) times before them."""
    repeats = Counter(int(anchors[row]) for batch in batches for row in batch)
    for number, batch in enumerate(batches):
        own = [int(anchors[row]) for row in batch]
        for column, anchor in enumerate(own):
            if own[: column + 1].count(anchor) > -(-repeats[anchor] // len(batches)):
                yield number, column


def swapped_apart(batches, rows, seed):
    """Swap each row whose anchor stands too often in its batch with a random one that fits."""
    num_batches, size = len(batches), len(batches[0])
    counters = Counters(rows, num_batches * size, num_batches, seed)
    for role in (0, 1):
        counters.repeats[role].update(int(rows[role][row]) for batch in batches for row in batch)
    for number, batch in enumerate(batches):
        for row in batch:
            counters.add(row, number, 1)
    for batch, column in list(crowded(batches, rows[0])):
        row = batches[batch][column]
        for attempt in range(TRIES):
            place = int(mix(seed, batch * size + column, attempt)) % (num_batches * size)
            other_batch, other_column = divmod(place, size)
            other = batches[other_batch][other_column]
            if other_batch == batch:
                continue
            if counters.fits(row, other_batch) and counters.fits(other, batch):
                for one, old, new in ((row, batch, other_batch), (other, other_batch, batch)):
                    counters.add(one, old, -1)
                    counters.add(one, new, 1)
                batches[batch][column], batches[other_batch][other_column] = other, row
                break


def merged(rows, batch_size, order, rng):
    num_batches = len(order) // batch_size
    used = rng.permutation(order[: num_batches * batch_size])
    batches = dealt(used, rows[1], num_batches, rng)
    if num_batches > 1:
        for seed in rng.integers(1 << 62, size=ROUNDS):
            swapped_apart(batches, rows, seed)
    return rng.permuted(np.array(batches), axis=1).tolist()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("num_batches", "batch_size"), [(1, 9), (2, 10), (4, 11), (8, 8), (9, 9)])
def test_merge_deals_and_swaps_as_plain_loops(seed, num_batches, batch_size):
    rng = np.random.default_rng(seed)
    num_rows = num_batches * batch_size + seed % batch_size
    shared = rng.integers(0, 1 + num_rows // int(rng.integers(1, 7)), (2, num_rows))
    order = rng.permutation(num_rows)
    found = assign_merge(*shared, batch_size, order, np.random.default_rng(seed))
    expected = merged(shared, batch_size, order, np.random.default_rng(seed))
    assert found.rows_PB.tolist() == expected
    assert found.left_out.tolist() == sorted(order[num_batches * batch_size :].tolist())


@pytest.mark.parametrize("num_rows", [0, 3, 4, 5])
def test_fewer_rows_than_a_batch_are_all_left_out(num_rows):
    order = np.random.default_rng(0).permutation(num_rows)
    found = assign_merge(order, order, 5, order, np.random.default_rng(0))
    assert found.rows_PB.shape == (num_rows // 5, 5)
    assert found.left_out.tolist() == ([] if num_rows == 5 else list(range(num_rows)))

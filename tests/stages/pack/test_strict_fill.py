"""Strict batches are filled with bits as they would be with sets, row by row."""

import numpy as np
import pytest

from stx_mine.stages.pack.core.strict_fill import fill_waves, wave_sizes
from stx_mine.stages.pack.core.strict_rows import FORBIDS, POSITIVE, ROW, Lines

BLOCK, NUM_TEXTS = 8, 12


def lines_at_random(rng, num_rows, share_of_texts, share_hard):
    """Lines in runs of one query each, whose texts others touch as often as `share_of_texts`."""
    table, forbids = [], []
    while len(table) < num_rows:
        anchor, *others = rng.choice(NUM_TEXTS, rng.integers(2, 5), replace=False).tolist()
        anchor = anchor if rng.random() < share_of_texts else -1
        is_list = rng.random() < 0.5
        start = len(forbids) if is_list else -1
        if is_list:
            forbids += [len(others), *others]
        for _ in range(rng.integers(1, 5) if is_list else 1):
            positive = int(rng.integers(NUM_TEXTS)) if rng.random() < share_of_texts else -1
            table.append([0, anchor, positive, start])
    lines_N4 = np.array(table[:num_rows], np.int32).reshape(-1, 4)
    lines_N4[:, ROW] = rng.permutation(num_rows)
    num_hard = int(share_hard * num_rows)
    return Lines(lines_N4, np.array(forbids, np.int32), NUM_TEXTS, num_hard)


def runs_of(lines, places):
    """Places of one query that stand side by side."""
    found = []
    for place in places:
        query = lines.lines_N4[place, FORBIDS]
        if found and query >= 0 and lines.lines_N4[found[-1][0], FORBIDS] == query:
            found[-1].append(place)
        else:
            found.append([place])
    return found


def filled(lines, num_hard, places, num_batches, batch_size):
    """The places of each batch: hard ones by first fit, the others in one of the emptiest."""
    batches = [[] for _ in range(num_batches)]
    held, closed = [set() for _ in batches], [set() for _ in batches]
    random = int(lines.lines_N4[places[0], ROW])
    for run in runs_of(lines, places):
        _, anchor, _, start = lines.lines_N4[run[0]].tolist()
        count = lines.forbids[start] if start >= 0 else 0
        others = set(lines.forbids[start + 1 : start + 1 + count].tolist())
        still_open = [one for one in range(num_batches) if len(batches[one]) < batch_size]
        free = [one for one in still_open if anchor not in closed[one] and not others & held[one]]
        for place in run:
            positive = int(lines.lines_N4[place, POSITIVE])
            choice, turn = [one for one in free if positive not in closed[one]], 0
            if not choice:
                continue
            if run[0] >= num_hard:
                random = (random * 6364136223846793005 + 1) % 2**64
                turn = random >> 58
                sizes = [len(one) for one in batches if len(one) < batch_size]
                choice = [one for one in choice if len(batches[one]) == min(sizes)] or choice
            batch = min(choice, key=lambda one: (one - turn) % 64)
            batches[batch].append(place)
            free.remove(batch)
            held[batch] |= {anchor, positive} - {-1}
            closed[batch] |= {anchor, positive, *others} - {-1}
    return batches


def most_filled(lines, places, num_batches, batch_size):
    """As many full batches as are found, trying all of them first, then bisecting."""
    best, low, high, tried = [], 0, num_batches + 1, num_batches
    while low + 1 < high:
        most = 0
        for num_hard in (0, lines.num_hard):
            batches = filled(lines, num_hard, places, tried, batch_size)
            full = [one for one in batches if len(one) == batch_size]
            most = max(most, sum(map(len, batches)))
            if len(full) > low:
                best, low = full, len(full)
            if len(full) == tried:
                break
        guess = most // batch_size if tried == num_batches else 0
        high = tried if low < tried else high
        tried = min(guess, high - 1) if guess > low else (low + high) // 2
    return best


def filled_in_waves(lines, sizes, batch_size):
    num_rows, num_waves = len(lines.lines_N4), len(sizes)
    full, left, carried = {}, [], []
    for wave, size in enumerate(sizes.tolist()):
        dealt = [one for one in range(num_rows) if one // BLOCK % num_waves == wave]
        places = [*carried, *dealt]
        found = most_filled(lines, places, size, batch_size)
        for number, batch in enumerate(found):
            full[num_waves - 1 - wave + number * num_waves] = batch
        taken = {place for batch in found for place in batch}
        carried = [place for place in places if place not in taken]
        limit = size * batch_size if wave + 1 < num_waves else 0
        left += carried[limit:]
        carried = carried[:limit]
    rows = lines.lines_N4[:, ROW]
    return [rows[full[number]].tolist() for number in sorted(full)], rows[left].tolist()


def assert_filled_as_by_sets(lines, sizes, batch_size):
    full, left = fill_waves(lines, sizes, batch_size)
    assert (full.tolist(), left.tolist()) == filled_in_waves(lines, sizes, batch_size)
    return len(full)


@pytest.mark.parametrize("share_of_texts", [0, 0.3, 0.7, 1])
@pytest.mark.parametrize("share_hard", [0, 0.5, 1])
def test_a_wave_is_filled_as_with_sets(share_of_texts, share_hard):
    made = []
    for seed in range(25):
        rng = np.random.default_rng(seed)
        batch_size, num_batches = int(rng.integers(2, 6)), int(rng.integers(1, 9))
        num_rows = batch_size * num_batches + int(rng.integers(0, 12))
        lines = lines_at_random(rng, num_rows, share_of_texts, share_hard)
        made.append(
            assert_filled_as_by_sets(lines, np.array([num_batches]), batch_size) / num_batches
        )
    assert min(made) < 1 or share_of_texts < 1
    assert max(made) == 1


@pytest.mark.parametrize("num_batches", [2, 3, 7, 8])
@pytest.mark.parametrize("share_hard", [0, 0.4])
def test_waves_take_over_what_those_before_left(num_batches, share_hard):
    for seed in range(10):
        rng = np.random.default_rng(seed)
        num_waves = 2 + seed % min(2, num_batches - 1)
        sizes = np.array([(num_batches + wave) // num_waves for wave in range(num_waves)])
        lines = lines_at_random(rng, 5 * num_batches + 8 * num_waves, 0.6, share_hard)
        assert_filled_as_by_sets(lines, sizes, 5)


@pytest.mark.parametrize("num_batches", [63, 64])
@pytest.mark.parametrize("share_of_texts", [0, 0.2])
def test_every_bit_of_a_word_is_a_batch(num_batches, share_of_texts):
    rng = np.random.default_rng(num_batches)
    lines = lines_at_random(rng, 2 * num_batches + 4, share_of_texts, 0.3)
    assert_filled_as_by_sets(lines, np.array([num_batches]), 2)


@pytest.mark.parametrize("num_batches", [1, 2, 63, 64, 65, 127, 128, 129, 190, 1_000])
def test_waves_are_as_few_and_as_equal_as_can_be(num_batches):
    sizes = wave_sizes(num_batches)
    assert sizes.sum() == num_batches
    assert len(sizes) == -(-num_batches // 64)
    assert sizes.max() - sizes.min() <= 1
    assert sizes.max() <= 64
    assert sizes.tolist() == sorted(sizes.tolist())

"""Fill strict batches, a wave of up to 64 at once.

One bit per batch says which batches hold a text and which forbid it.
Shape letters: T texts over which rows can conflict, B rows of a batch, P batches.
"""

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from stx_mine.stages.pack.core.strict_rows import ANCHOR, FORBIDS, POSITIVE, ROW, Lines

# Batches that fill at once: the bits of a word.
WAVE = 64
# Lines that go to a wave in turn: a text's rows spread over waves, cache lines do not.
_BLOCK = 8
# Of the linear congruential generator of Knuth's MMIX.
_MULTIPLIER = np.uint64(6364136223846793005)
_LOWEST_BIT = np.uint64(0x03F79D71B4CB0A89)
_BIT_NUMBERS = np.zeros(64, np.int64)
for _bit in range(64):
    _BIT_NUMBERS[((int(_LOWEST_BIT) << _bit) & (2**64 - 1)) >> 58] = _bit


def wave_sizes(num_batches: int) -> NDArray[np.int64]:
    """Batches of each wave: equal numbers up to 64."""
    num_waves = -(-num_batches // WAVE)
    return np.full(num_waves, num_batches // num_waves) + (
        np.arange(num_waves) >= num_waves - num_batches % num_waves
    )


def fill_waves(
    lines: Lines, sizes: NDArray[np.int64], batch_size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Fill all waves, one after the other.

    Args:
        lines: The rows.
        sizes: int64, batches of each wave.
        batch_size: B.

    Returns:
        int64 (P, B) the rows of the full batches, and int64 those of none.
    """
    masks = np.zeros((lines.num_texts + 1, 3), np.uint64)
    full = np.empty((int(sizes.sum()), batch_size), np.int64)
    is_full = np.zeros(len(full), np.bool_)
    left = np.empty(len(lines.lines_N4), np.int64)
    num_left = _fill_waves(lines, sizes, masks, full, is_full, left)
    return full if is_full.all() else full[is_full], left[:num_left]


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _fill_waves(lines: Any, sizes: Any, masks: Any, full: Any, is_full: Any, left: Any) -> Any:
    """Write the batches that fill, which of them do, and the rows of none; how many these are."""
    batch_size = full.shape[1]
    num_waves, num_rows = len(sizes), len(lines.lines_N4)
    carried = np.empty(0, np.int32)
    num_left = 0
    for wave in range(num_waves):
        places = _deal(num_rows, carried, wave, num_waves)
        low, slots = _fill_most(lines, places, masks, sizes[wave], batch_size)
        # Rows of a text that fell into one wave meet again in batches that lie far apart.
        mine = slice(num_waves - 1 - wave, None, num_waves)
        is_full[mine][:low] = True
        carried = _collect(lines.lines_N4, places, slots, full[mine][:low])
        # A wave takes over no more rows than it has places, so that time stays linear.
        limit = sizes[wave] * batch_size if wave + 1 < num_waves else 0
        for place in carried[limit:]:
            left[num_left] = lines.lines_N4[place, ROW]
            num_left += 1
        carried = carried[:limit]
    return num_left


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _fill_most(lines: Any, places: Any, masks: Any, num_batches: Any, batch_size: Any) -> Any:
    """Fill as many batches as can be, up to a number; how many, and the slot of each place.

    Each number is tried in two ways: every row into one of the emptiest batches, then the hard
    rows by first fit, which fills the batches less evenly and places more rows in all.
    """
    slots = np.empty(len(places), np.int8)
    best_slots = np.full(len(places), -1, np.int8)
    # `low` batches fill; `high` do not.
    low, high, num_open = 0, num_batches + 1, num_batches
    while low + 1 < high:
        most_placed = 0
        for num_hard in (0, lines.num_hard):
            num_filled = _fill(lines, num_hard, places, slots, masks, num_open, batch_size)
            most_placed = max(most_placed, (slots >= 0).sum())
            if num_filled > low:
                low = num_filled
                best_slots[:] = slots
            if num_filled == num_open or places.min() >= lines.num_hard:
                break
        # Most often as many batches fill as the placed rows could; else bisect.
        guess = most_placed // batch_size if high > num_batches else 0
        if low < num_open:
            high = num_open
        num_open = min(guess, high - 1) if guess > low else (low + high) // 2
    return low, best_slots


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _deal(num_rows: Any, carried: Any, wave: Any, num_waves: Any) -> Any:
    """The places of a wave: those carried over, and every so many-th block of 64."""
    step = num_waves * _BLOCK
    places = np.empty(len(carried) + (num_rows // step + 1) * _BLOCK, np.int32)
    places[: len(carried)] = carried
    size = len(carried)
    for start in range(wave * _BLOCK, num_rows, step):
        for place in range(start, min(start + _BLOCK, num_rows)):
            places[size] = place
            size += 1
    return places[:size]


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _collect(lines: Any, places: Any, slots: Any, full: Any) -> Any:
    """Write the rows of the slots that are full to `full`; the other places come back in order."""
    num_batches, batch_size = full.shape
    sizes = np.zeros(WAVE, np.int64)
    for slot in slots:
        if slot >= 0:
            sizes[slot] += 1
    batches = np.full(WAVE, -1, np.int64)
    batch = 0
    for slot in range(WAVE):
        if sizes[slot] == batch_size:
            batches[slot] = batch
            batch += 1
    others = np.empty(len(places) - num_batches * batch_size, np.int32)
    columns = np.zeros(num_batches, np.int64)
    num_others = 0
    for i in range(len(places)):
        batch = batches[slots[i]] if slots[i] >= 0 else -1
        if batch < 0:
            others[num_others] = places[i]
            num_others += 1
        else:
            full[batch, columns[batch]] = lines[places[i], ROW]
            columns[batch] += 1
    return others


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _renew(masks: Any, number: Any, stamp: Any) -> None:
    """Empty the masks of a text that have an old stamp."""
    if masks[number, 0] != stamp:
        masks[number, 0], masks[number, 1], masks[number, 2] = stamp, np.uint64(0), np.uint64(0)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _lowest_from(bits: Any, turn: Any) -> Any:
    """Number of the first bit that is set, counted from bit `turn` on and round.

    Source: Leiserson, Prokop, Randall (1998), for the lowest bit.
    """
    turned = (bits >> turn) | (bits << ((np.uint64(64) - turn) & np.uint64(63)))
    lowest = turned & (~turned + np.uint64(1))
    number = _BIT_NUMBERS[(lowest * _LOWEST_BIT) >> np.uint64(58)]
    return (number + np.int64(turn)) & 63


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _fill(  # noqa: C901  (one loop nest, fast as it stands)
    lines: Any,
    num_hard: Any,
    places: Any,
    slots: Any,
    masks: Any,
    num_open: Any,
    batch_size: Any,
) -> Any:
    """Give each place a batch of the wave, or -1; the number of full batches comes back.

    `masks` has a stamp a text, the batches that hold it, and those that forbid it; an old stamp
    means none. A hard row takes the first batch that is free to it, which leaves the others free
    to the rows that it shuts out there; any other row a random one of the emptiest, so that texts
    do not keep each other company: `low` marks the open batches of fewer than `level` rows.
    """
    one, none = np.uint64(1), np.uint64(0)
    table, forbids = lines.lines_N4, lines.forbids
    # The last mask belongs to no text: its stamp is that of the last call.
    stamp = masks[-1, 0] + one
    masks[-1, 0] = stamp
    random = np.uint64(table[places[0], ROW]) if len(places) else none
    sizes = np.zeros(num_open, np.int64)
    open_ = ~none if num_open == WAVE else (one << np.uint64(num_open)) - one
    low, level = open_, 1
    slots[:] = -1
    start = 0
    while start < len(places) and open_:
        first = places[start]
        anchor, query, hard = table[first, ANCHOR], table[first, FORBIDS], first < num_hard
        stop = start + 1
        free = open_
        if anchor >= 0:
            _renew(masks, anchor, stamp)
            free &= ~masks[anchor, 2]
        if query >= 0:
            while stop < len(places) and table[places[stop], FORBIDS] == query:
                stop += 1
            for number in forbids[query + 1 : query + 1 + forbids[query]]:
                _renew(masks, number, stamp)
                free &= ~masks[number, 1]
        placed = none
        for i in range(start, stop):
            if not free:
                break
            positive = table[places[i], POSITIVE]
            choice = free
            if positive >= 0:
                _renew(masks, positive, stamp)
                choice &= ~masks[positive, 2]
            if not choice:
                continue
            turn = none
            if not hard:
                random = random * _MULTIPLIER + one
                turn = random >> np.uint64(58)
                if choice & low:
                    choice &= low
            slot = _lowest_from(choice, turn)
            bit = one << np.uint64(slot)
            slots[i] = slot
            placed |= bit
            free &= ~bit
            if positive >= 0:
                masks[positive, 1] |= bit
                masks[positive, 2] |= bit
            sizes[slot] += 1
            if sizes[slot] == batch_size:
                open_ &= ~bit
                free &= open_
            if sizes[slot] >= level or sizes[slot] == batch_size:
                low &= ~bit
                while not low and open_:
                    level += 1
                    for other in range(num_open):
                        if sizes[other] < min(level, batch_size):
                            low |= one << np.uint64(other)
        if placed:
            if anchor >= 0:
                masks[anchor, 1] |= placed
                masks[anchor, 2] |= placed
            if query >= 0:
                for number in forbids[query + 1 : query + 1 + forbids[query]]:
                    masks[number, 2] |= placed
        start = stop
    return (sizes == batch_size).sum()

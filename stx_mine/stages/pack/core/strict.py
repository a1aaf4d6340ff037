"""Fill strict batches, up to 64 at once: one bit a batch says what it holds and what it forbids.

Shape letters: N rows, T texts over which rows can conflict, W batches of a window, B rows a batch.
"""

from math import prod
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from stx_mine.core.ragged import Ragged

WINDOW = 64
# Lines that go to a window in turn: a text's rows spread over windows, cache lines do not.
_BLOCK = 8

# Ranks are floats of 3 bits of mantissa: exact up to 16, then within an eighth.
_MANTISSA = 3
_NUM_RANKS = 2 * (1 << _MANTISSA) * 64
# Of the linear congruential generator of Knuth's MMIX.
_MULTIPLIER = np.uint64(6364136223846793005)
_LOWEST_BIT = np.uint64(0x03F79D71B4CB0A89)
_BIT_NUMBERS = np.zeros(64, np.int64)
for _bit in range(64):
    _BIT_NUMBERS[((int(_LOWEST_BIT) << _bit) & (2**64 - 1)) >> 58] = _bit


# Columns of a line.
_ROW, _ANCHOR, _POSITIVE, _FORBIDS = range(4)


class Lines(NamedTuple):
    """Rows in the order in which they are placed: those of one query stand side by side.

    Attributes:
        lines_N4: int32 (N, 4): row number; number of the anchor in [0, T), of the positive, -1
            where no other row touches the text; the start in `forbids` where the query forbids
            more than its anchor and one positive, else -1.
        forbids: int32: by query, how many texts it forbids beside its anchor, then their numbers.
        num_texts: T.
        num_hard: The first lines have at least as many conflicts as there are batches.
    """

    lines_N4: NDArray[np.int32]
    forbids: NDArray[np.int32]
    num_texts: int
    num_hard: int


class Room(NamedTuple):
    """Arrays that making lines needs, all in one allocation.

    One large allocation of NumPy lies on huge pages. With many small ones, the time of a set of
    some 100,000 rows would be that of page faults; with small pages, that of many rows would be
    that of finding them.

    Attributes:
        rows_of: int32 (num queries,) how many rows each query has.
        touched: int32 (num groups,) how many rows hold or forbid each text.
        numbers: int32 (num groups,) number of each text.
        starts: int32 (num queries,) where each query stands in `forbids`.
        forbids: int32, as in `Lines`.
        sets: int32 (num groups + num queries, 2) rows of each set, and conflicts of its worst.
        drafts: int32 (N, 4) lines by row number.
        lines_N4: int32 (N, 4) as in `Lines`.
    """

    rows_of: NDArray[np.int32]
    touched: NDArray[np.int32]
    numbers: NDArray[np.int32]
    starts: NDArray[np.int32]
    forbids: NDArray[np.int32]
    sets: NDArray[np.int32]
    drafts: NDArray[np.int32]
    lines_N4: NDArray[np.int32]

    @classmethod
    def of(cls, num_rows: int, num_groups: int, forbidden: Ragged) -> "Room":
        """Room for rows whose numbers are below `num_rows`."""
        queries, groups = (len(forbidden),), (num_groups,)
        shapes: tuple[tuple[int, ...], ...] = (
            queries,
            groups,
            groups,
            queries,
            (2 * len(forbidden) + len(forbidden.values),),
            (num_groups + len(forbidden), 2),
            (num_rows, 4),
            (num_rows, 4),
        )
        ends = np.cumsum([prod(shape) for shape in shapes])
        room = np.empty(ends[-1], np.int32)
        parts = np.split(room, ends[:-1])
        return cls(*(part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)))


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def count(rows: Any, values: Any, counts: Any) -> None:
    """Count how many of the rows have each value."""
    counts[:] = 0
    for row in rows:
        counts[values[row]] += 1


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def count_touches(rows_of: Any, forbidden_offsets: Any, forbidden_values: Any, counts: Any) -> None:
    """Count how many rows hold or forbid each text; `rows_of` counts the rows of each query."""
    counts[:] = 0
    for query in range(len(rows_of)):
        if rows_of[query]:
            for f in range(forbidden_offsets[query], forbidden_offsets[query + 1]):
                counts[forbidden_values[f]] += rows_of[query]


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def _numbered(text: Any, mine: Any, room: Any, num_texts: Any) -> Any:
    """Number a text that more than `mine` rows touch; how many are numbered now."""
    if room.touched[text] > mine and room.numbers[text] < 0:
        room.numbers[text] = num_texts
        room.sets[num_texts, 0] = room.sets[num_texts, 1] = 0
        return num_texts + 1
    return num_texts


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def _describe(
    rows: Any,
    query_ids: Any,
    anchors: Any,
    positives: Any,
    forbidden_offsets: Any,
    forbidden_values: Any,
    room: Any,
) -> Any:
    """Find the sets of rows that are placed together, and number the texts that rows share.

    A set is all rows of a query that forbids more than one positive, else those of one positive
    (of one anchor where no other row touches the positive). Sets of a text have its number, those
    of a query stand after the number of groups. A draft has its set (-1: no conflicts) in place
    of the row; `forbids` has the set of each query before what lines point to.

    Returns:
        The number of texts, and of sets of a query.
    """
    touched, numbers, sets, forbids = room.touched, room.numbers, room.sets, room.forbids
    drafts, starts = room.drafts, room.starts
    numbers[:] = -1
    starts[:] = -1
    num_texts, num_queries, end = 0, 0, 0
    for row in rows:
        query, anchor, positive = query_ids[row], anchors[row], positives[row]
        # Rows of one query conflict by their anchor: other texts count where others touch them.
        mine = room.rows_of[query]
        num_texts = _numbered(anchor, 1, room, num_texts)
        num_texts = _numbered(positive, mine, room, num_texts)
        first, last = forbidden_offsets[query], forbidden_offsets[query + 1]
        points_to = -1
        if last - first > 2:
            if starts[query] < 0:
                starts[query], most = end, 0
                end += 2
                for f in range(first, last):
                    text = forbidden_values[f]
                    num_texts = _numbered(text, mine, room, num_texts)
                    if text != anchor and numbers[text] >= 0:
                        most = max(most, touched[text] - 1)
                        forbids[end] = numbers[text]
                        end += 1
                chosen = len(touched) + num_queries
                num_queries += 1
                forbids[starts[query]] = chosen
                forbids[starts[query] + 1] = end - starts[query] - 2
                sets[chosen, 0], sets[chosen, 1] = 0, touched[anchor] - 1 + most
            chosen = forbids[starts[query]]
            if forbids[starts[query] + 1]:
                points_to = starts[query] + 1
        else:
            chosen = numbers[positive] if numbers[positive] >= 0 else numbers[anchor]
            if chosen >= 0:
                sets[chosen, 1] = max(sets[chosen, 1], touched[anchor] + touched[positive] - 2)
        if chosen >= 0:
            sets[chosen, 0] += 1
        drafts[row, _ROW] = chosen
        drafts[row, _ANCHOR] = numbers[anchor]
        drafts[row, _POSITIVE] = numbers[positive]
        drafts[row, _FORBIDS] = points_to
    return num_texts, num_queries


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def _ranks(most: Any, num_batches: Any) -> Any:
    """int32 (most + 1,): the rank of each number of conflicts."""
    ranks = np.empty(most + 1, np.int32)
    for conflicts in range(most + 1):
        shift, rest = 0, conflicts
        while rest >= 2 << _MANTISSA:
            rest >>= 1
            shift += 1
        rank = (shift << _MANTISSA) + rest
        ranks[conflicts] = rank if conflicts >= num_batches else _NUM_RANKS - 1 - rank
    return ranks


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def _count_ranks(sets: Any, num_batches: Any, sizes: Any) -> None:
    """Count the rows of each rank; the second column of each set becomes -1 - rank."""
    if not len(sets):
        return
    ranks = _ranks(sets[:, 1].max(), num_batches)
    for chosen in range(len(sets)):
        rank = ranks[sets[chosen, 1]]
        sizes[rank] += sets[chosen, 0]
        sets[chosen, 1] = -1 - rank


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def _sort(order: Any, drafts: Any, sets: Any, sizes: Any, lines: Any) -> None:
    """Write the lines of the rows by rank of their set, sets by their first row.

    The second column of a set becomes the place of its next row once it has a first.
    """
    places = np.cumsum(sizes)
    alone = places[-1]
    places -= sizes
    for row in order:
        chosen = drafts[row, _ROW]
        if chosen < 0:
            place = alone
            alone += 1
        else:
            place = np.int64(sets[chosen, 1])
            if place < 0:
                rank = -1 - place
                place = places[rank]
                places[rank] += sets[chosen, 0]
            sets[chosen, 1] = place + 1
        lines[place, _ROW] = row
        lines[place, _ANCHOR] = drafts[row, _ANCHOR]
        lines[place, _POSITIVE] = drafts[row, _POSITIVE]
        lines[place, _FORBIDS] = drafts[row, _FORBIDS]


def lines_of(
    rows: NDArray[np.int64],
    order: NDArray[np.int64],
    query_ids: NDArray[np.int64],
    anchors: NDArray[np.int64],
    positives: NDArray[np.int64],
    forbidden: Ragged,
    room: Room,
    num_batches: int,
) -> Lines:
    """Sort rows by how hard they are to place.

    Of rows with as many conflicts as there are batches, not all may find one: these come first,
    those that shut out the fewest others before the rest. Each other row finds one whenever it
    comes, but for full batches: of these, the most constrained come first. A row counts by the
    worst of its set, all rows of a query or of a positive: they stand side by side.

    Args:
        rows: int64 (R,) row numbers in rising order.
        order: int64 (R,) the same by priority.
        query_ids: int64 (N,) query of each row.
        anchors: int64 (N,) group of each row's anchor.
        positives: int64 (N,) group of each row's positive.
        forbidden: Forbidden groups of each query; its positives and itself are among them.
        room: With `rows_of` and `touched` counted; the lines lie in it.
        num_batches: How many batches are to be filled.
    """
    texts = anchors, positives
    known = forbidden.offsets, forbidden.values
    num_texts, num_queries = _describe(rows, query_ids, *texts, *known, room)
    sizes = np.zeros(_NUM_RANKS, np.int64)
    first = len(room.touched)
    for start, stop in ((0, num_texts), (first, first + num_queries)):
        _count_ranks(room.sets[start:stop], num_batches, sizes)
    lines_N4 = room.lines_N4[: len(order)]
    _sort(order, room.drafts, room.sets, sizes, lines_N4)
    return Lines(lines_N4, room.forbids, num_texts, int(sizes[: _NUM_RANKS // 2].sum()))


def window_sizes(num_batches: int) -> NDArray[np.int64]:
    """Batches of each window: equal numbers up to 64."""
    num_windows = -(-num_batches // WINDOW)
    return np.full(num_windows, num_batches // num_windows) + (
        np.arange(num_windows) >= num_windows - num_batches % num_windows
    )


def fill_windows(
    lines: Lines, sizes: NDArray[np.int64], batch_size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Fill all windows, one after the other.

    Args:
        lines: The rows.
        sizes: int64, batches of each window.
        batch_size: B.

    Returns:
        int64 (P, B) the rows of the full batches, and int64 those of none.
    """
    masks = np.zeros((lines.num_texts + 1, 3), np.uint64)
    full = np.empty((int(sizes.sum()), batch_size), np.int64)
    is_full = np.zeros(len(full), np.bool_)
    left = np.empty(len(lines.lines_N4), np.int64)
    num_left = _fill_windows(lines, sizes, masks, full, is_full, left)
    return full if is_full.all() else full[is_full], left[:num_left]


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def _fill_windows(lines: Any, sizes: Any, masks: Any, full: Any, is_full: Any, left: Any) -> Any:
    """Write the batches that fill, which of them do, and the rows of none; how many these are."""
    batch_size = full.shape[1]
    num_windows, num_rows = len(sizes), len(lines.lines_N4)
    carried = np.empty(0, np.int32)
    num_left = 0
    for window in range(num_windows):
        places = _deal(num_rows, carried, window, num_windows)
        low, slots = _fill_most(lines, places, masks, sizes[window], batch_size)
        # Rows of a text that fell into one window meet again in batches that lie far apart.
        mine = slice(num_windows - 1 - window, None, num_windows)
        is_full[mine][:low] = True
        carried = _collect(lines.lines_N4, places, slots, full[mine][:low])
        # A window takes over no more rows than it has places, so that time stays linear.
        limit = sizes[window] * batch_size if window + 1 < num_windows else 0
        for place in carried[limit:]:
            left[num_left] = lines.lines_N4[place, _ROW]
            num_left += 1
        carried = carried[:limit]
    return num_left


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
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


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def _deal(num_rows: Any, carried: Any, window: Any, num_windows: Any) -> Any:
    """The places of a window: those carried over, and every so many-th block of 64."""
    step = num_windows * _BLOCK
    places = np.empty(len(carried) + (num_rows // step + 1) * _BLOCK, np.int32)
    places[: len(carried)] = carried
    size = len(carried)
    for start in range(window * _BLOCK, num_rows, step):
        for place in range(start, min(start + _BLOCK, num_rows)):
            places[size] = place
            size += 1
    return places[:size]


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def _collect(lines: Any, places: Any, slots: Any, full: Any) -> Any:
    """Write the rows of the slots that are full to `full`; the other places come back in order."""
    num_batches, batch_size = full.shape
    sizes = np.zeros(WINDOW, np.int64)
    for slot in slots:
        if slot >= 0:
            sizes[slot] += 1
    batches = np.full(WINDOW, -1, np.int64)
    batch = 0
    for slot in range(WINDOW):
        if sizes[slot] == batch_size and batch < num_batches:
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
            full[batch, columns[batch]] = lines[places[i], _ROW]
            columns[batch] += 1
    return others


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def _renew(masks: Any, number: Any, stamp: Any) -> None:
    """Empty the masks of a text that have an old stamp."""
    if masks[number, 0] != stamp:
        masks[number, 0], masks[number, 1], masks[number, 2] = stamp, np.uint64(0), np.uint64(0)


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def _lowest_from(bits: Any, turn: Any) -> Any:
    """Number of the first bit that is set, counted from bit `turn` on and round.

    Source: Leiserson, Prokop, Randall (1998), for the lowest bit.
    """
    turned = (bits >> turn) | (bits << ((np.uint64(64) - turn) & np.uint64(63)))
    lowest = turned & (~turned + np.uint64(1))
    number = _BIT_NUMBERS[(lowest * _LOWEST_BIT) >> np.uint64(58)]
    return (number + np.int64(turn)) & 63


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def _fill(  # noqa: C901  (one loop nest, fast as it stands)
    lines: Any,
    num_hard: Any,
    places: Any,
    slots: Any,
    masks: Any,
    num_open: Any,
    batch_size: Any,
) -> Any:
    """Give each place a batch of the window, or -1; the number of full batches comes back.

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
    random = np.uint64(table[places[0], _ROW]) if len(places) else none
    sizes = np.zeros(num_open, np.int64)
    open_ = ~none if num_open == WINDOW else (one << np.uint64(num_open)) - one
    low, level = open_, 1
    slots[:] = -1
    start = 0
    while start < len(places) and open_:
        first = places[start]
        anchor, query, hard = table[first, _ANCHOR], table[first, _FORBIDS], first < num_hard
        stop = start + 1
        free = open_
        if anchor >= 0:
            _renew(masks, anchor, stamp)
            free &= ~masks[anchor, 2]
        if query >= 0:
            while stop < len(places) and table[places[stop], _FORBIDS] == query:
                stop += 1
            for number in forbids[query + 1 : query + 1 + forbids[query]]:
                _renew(masks, number, stamp)
                free &= ~masks[number, 1]
        placed = none
        for i in range(start, stop):
            if not free:
                break
            positive = table[places[i], _POSITIVE]
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

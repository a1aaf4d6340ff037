"""Rows of strict batches in the order in which they are placed: the hardest first.

Shape letters: N rows, T texts over which rows can conflict.
"""

from math import prod
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from stx_mine.core.ragged import Ragged

# Ranks are floats of 3 bits of mantissa: exact up to 16, then within an eighth.
_MANTISSA = 3
_NUM_RANKS = 2 * (1 << _MANTISSA) * 64

# Columns of a line.
ROW, ANCHOR, POSITIVE, FORBIDS = range(4)


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


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def count(rows: Any, values: Any, counts: Any) -> None:
    """Count how many of the rows have each value."""
    counts[:] = 0
    for row in rows:
        counts[values[row]] += 1


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def count_touches(rows_of: Any, forbidden_offsets: Any, forbidden_values: Any, counts: Any) -> None:
    """Count how many rows hold or forbid each text; `rows_of` counts the rows of each query."""
    counts[:] = 0
    for query in range(len(rows_of)):
        if rows_of[query]:
            for f in range(forbidden_offsets[query], forbidden_offsets[query + 1]):
                counts[forbidden_values[f]] += rows_of[query]


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _numbered(text: Any, mine: Any, room: Any, num_texts: Any) -> Any:
    """Number a text that more than `mine` rows touch; how many are numbered now."""
    if room.touched[text] > mine and room.numbers[text] < 0:
        room.numbers[text] = num_texts
        room.sets[num_texts, 0] = room.sets[num_texts, 1] = 0
        return num_texts + 1
    return num_texts


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
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
        drafts[row, ROW] = chosen
        drafts[row, ANCHOR] = numbers[anchor]
        drafts[row, POSITIVE] = numbers[positive]
        drafts[row, FORBIDS] = points_to
    return num_texts, num_queries


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
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


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _count_ranks(sets: Any, num_batches: Any, sizes: Any) -> None:
    """Count the rows of each rank; the second column of each set becomes -1 - rank."""
    if not len(sets):
        return
    ranks = _ranks(sets[:, 1].max(), num_batches)
    for chosen in range(len(sets)):
        rank = ranks[sets[chosen, 1]]
        sizes[rank] += sets[chosen, 0]
        sets[chosen, 1] = -1 - rank


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _sort(order: Any, drafts: Any, sets: Any, sizes: Any, lines: Any) -> None:
    """Write the lines of the rows by rank of their set, sets by their first row.

    The second column of a set becomes the place of its next row once it has a first.
    """
    places = np.cumsum(sizes)
    alone = places[-1]
    places -= sizes
    for row in order:
        chosen = drafts[row, ROW]
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
        lines[place, ROW] = row
        lines[place, ANCHOR] = drafts[row, ANCHOR]
        lines[place, POSITIVE] = drafts[row, POSITIVE]
        lines[place, FORBIDS] = drafts[row, FORBIDS]


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

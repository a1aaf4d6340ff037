"""Ignore lists of packed batches: whether each row lists the texts that it must, and no others.

Shape letters: P batches, N rows, T distinct passages of each batch, batch by batch.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from stx_mine.stages.verify.core.batch_ids import BatchIds
from stx_mine.stages.verify.core.sets import first_from


class _Present(NamedTuple):
    """The distinct passages of each batch.

    Attributes:
        starts: int64 (P + 1,): where those of each batch begin, and the end.
        texts: int64 (T,), of a batch by group, then rising.
        groups: int64 (T,), of a batch rising.
    """

    starts: NDArray[np.int64]
    texts: NDArray[np.int64]
    groups: NDArray[np.int64]


@dataclass(frozen=True)
class IgnoreLists:
    """The ignore lists of some whole batches, and what they should hold.

    A row ignores every passage of its batch but its positive whose group is that of a known or a
    near positive of its anchor, or of the anchor itself.

    Attributes:
        batches: Their ids.
    """

    batches: BatchIds

    @cached_property
    def _present(self) -> _Present:
        batches = self.batches
        texts = np.concatenate([batches.positives, batches.negatives.values])
        of = np.concatenate([batches.numbers, batches.numbers[batches.negative_rows]])
        order = np.lexsort((texts, of))
        texts, of = texts[order], of[order]
        new = np.ones(len(texts), bool)
        new[1:] = (texts[1:] != texts[:-1]) | (of[1:] != of[:-1])
        texts, of = texts[new], of[new]
        groups = batches.groups.of(texts)
        order = np.lexsort((groups, of))
        starts = np.searchsorted(of, np.arange(batches.numbers[-1] + 2))
        return _Present(starts, texts[order], groups[order])

    @cached_property
    def _avoided(self) -> tuple[NDArray[np.int64], ...]:
        known, near = self.batches.known, self.batches.near
        return (known.offsets, known.values, near.offsets, near.values)

    def wrong(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Rows whose list misses a text, and rows whose list has one too many: bool (N,) each.

        What rows of one anchor must ignore is found once a batch, and no longer than the shorter
        of what the anchor avoids and what the batch holds; then every list is read once.
        """
        batches = self.batches
        found: tuple[NDArray[np.bool_], NDArray[np.bool_]] = _wrong(
            np.lexsort((batches.anchors, batches.numbers)),
            batches.numbers,
            batches.anchors,
            batches.groups.of(batches.anchors),
            batches.asked_N,
            batches.positives,
            (batches.ignored.offsets, batches.ignored.values),
            self._present,
            self._avoided,
        )
        return found

    def differences(self, row: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The texts, rising, that a row's list misses, and those that it has too many."""
        batches, batch = self.batches, row // self.batches.batch_size
        size = int(np.diff(self._present.starts[batch : batch + 2])[0])
        expected = np.empty(size, np.int64)
        own = batches.groups.of(batches.anchors[row : row + 1])[0]
        stamps = np.full(len(self._present.texts), -1, np.int64)
        count = _expect(
            row, batch, own, batches.asked_N[row], self._present, self._avoided, stamps, expected
        )
        wanted = np.setdiff1d(expected[:count], batches.positives[row])
        ignored = batches.ignored.row(row)
        return np.setdiff1d(wanted, ignored), np.setdiff1d(ignored, wanted)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _add(group: Any, row: Any, bounds: Any, present: Any, stamps: Any, expected: Any) -> Any:
    """Append the passages of the batch that are of a group, once; how many there are then."""
    first, last, count = bounds
    place = first_from(present[2], first, last, group)
    if place == last or present[2][place] != group or stamps[place] == row:
        return count
    stamps[place] = row
    while place < last and present[2][place] == group:
        expected[count] = present[1][place]
        count += 1
        place += 1
    return count


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _expect(
    row: Any,
    batch: Any,
    own: Any,
    asked: Any,
    present: Any,
    avoided: Any,
    stamps: Any,
    expected: Any,
) -> Any:
    """Write the passages of the batch that an anchor avoids, rising; how many there are."""
    first, last = present[0][batch], present[0][batch + 1]
    count = _add(own, row, (first, last, 0), present, stamps, expected)
    for kind in range(2 if asked >= 0 else 0):
        if kind == 0:
            offsets, groups = avoided[0], avoided[1]
        else:
            offsets, groups = avoided[2], avoided[3]
        begin, end = offsets[asked], offsets[asked + 1]
        if end - begin <= last - first:
            for group in groups[begin:end]:
                count = _add(group, row, (first, last, count), present, stamps, expected)
            continue
        previous = first - 1
        for place in range(first, last):
            group = present[2][place]
            if previous < first or present[2][previous] != group:
                at = first_from(groups, begin, end, group)
                if at < end and groups[at] == group:
                    count = _add(group, row, (first, last, count), present, stamps, expected)
            previous = place
    for place in range(1, count):
        if expected[place] < expected[place - 1]:
            expected[:count].sort()
            break
    return count


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _wrong(
    by_anchor: Any,
    numbers: Any,
    anchors: Any,
    own_groups: Any,
    asked: Any,
    positives: Any,
    ignored: Any,
    present: Any,
    avoided: Any,
) -> Any:
    """Rows whose list misses a text, and rows whose list has one too many."""
    misses, extra = np.zeros(len(anchors), np.bool_), np.zeros(len(anchors), np.bool_)
    stamps = np.full(len(present[1]), -1, np.int64)
    expected, seen_by = np.empty(len(stamps), np.int64), np.full(len(stamps), -1, np.int64)
    last_row, count = -1, 0
    for row in by_anchor:
        batch = numbers[row]
        if last_row < 0 or anchors[row] != anchors[last_row] or batch != numbers[last_row]:
            own, known = own_groups[row], asked[row]
            count = _expect(row, batch, own, known, present, avoided, stamps, expected)
        last_row = row
        seen = next_place = 0
        for text in ignored[1][ignored[0][row] : ignored[0][row + 1]]:
            # Lists mostly rise as what is expected does.
            if next_place < count and expected[next_place] == text:
                place = next_place
            else:
                place = first_from(expected, 0, count, text)
                if place == count or expected[place] != text:
                    extra[row] = True
                    continue
            next_place = place + 1
            if text == positives[row]:
                extra[row] = True
            elif seen_by[place] != row:
                seen_by[place] = row
                seen += 1
        place = first_from(expected, 0, count, positives[row])
        has_own = place < count and expected[place] == positives[row]
        misses[row] = seen < count - has_own
    return misses, extra

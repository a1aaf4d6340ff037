"""Verify rows that `pack` did not write: which of them, and which batches, are clean.

Rows [i * B, (i + 1) * B) are batch i. Without a batch size each row is looked at by itself.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from stx_mine.core.ragged import offsets_of
from stx_mine.stages.verify.core.batches import SHOWN_TEXT
from stx_mine.stages.verify.core.rows import (
    BATCH_RULES,
    ROW_RULES,
    SAME_ROW,
    KnownPairs,
    Slot,
    TextRows,
    broken_rules,
    slots_of,
)
from stx_mine.stages.verify.row_blocks import RowReader

_Violation = tuple[int, str, tuple[Slot, ...]]
# Rows looked at by themselves are read in blocks of about so many.
_ROWS_AT_ONCE = 8_192


@dataclass
class RowSummary:
    """What was found; rows are counted over all files, and one row may break several rules.

    Attributes:
        batch_size: Rows per batch; None where each row was looked at by itself.
        file_starts: int64 (files + 1,): the first row of each file, and the end.
        rows: All rows.
        batches: Batches, the last partial one among them; 0 without a batch size.
        clean_batches: Batches in which no row breaks a rule.
        broken_rows: Rows that break a rule.
        rows_by_rule: Rule -> rows that break it.
        batches_by_rule: Rule -> batches with such a row.
        first: The first violations: batch, rule, and (row, place) of each text.
    """

    batch_size: int | None
    file_starts: NDArray[np.int64]
    rows: int = 0
    batches: int = 0
    clean_batches: int = 0
    broken_rows: int = 0
    rows_by_rule: dict[str, int] = field(init=False)
    batches_by_rule: dict[str, int] = field(init=False)
    first: list[_Violation] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Begin with none."""
        self.rows_by_rule = dict.fromkeys(self.rules, 0)
        self.batches_by_rule = dict.fromkeys(self.rules, 0)

    @property
    def rules(self) -> dict[str, str]:
        """Rule -> what is wrong."""
        return ROW_RULES if self.batch_size is None else BATCH_RULES

    @property
    def last_rows(self) -> int:
        """Rows of the last batch where it is partial, else 0."""
        return self.rows % self.batch_size if self.batch_size else 0


@dataclass(frozen=True)
class _Data:
    """What all rows say together.

    Attributes:
        file_starts: int64 (files + 1,).
        known: Every pair.
        copies: int64, rising: rows that are an earlier one again; none where batches are looked at.
        originals: int64: the first row that each of them is.
    """

    file_starts: NDArray[np.int64]
    known: KnownPairs
    copies: NDArray[np.int64]
    originals: NDArray[np.int64]

    def are_copies(self, first: int, last: int) -> NDArray[np.bool_]:
        """Bool (last - first,): which of these rows are an earlier one again."""
        marked = np.zeros(last - first, bool)
        bounds = np.searchsorted(self.copies, [first, last])
        marked[self.copies[slice(*bounds)] - first] = True
        return marked

    def original(self, row: int) -> int:
        """The first row that a copy is."""
        return int(self.originals[np.searchsorted(self.copies, row)])


def check_rows(reader: RowReader, batch_size: int | None, max_violations: int) -> RowSummary:
    """Check rows in the order in which they stand.

    One pass reads the known pairs, another one the batches, some of them in memory at a time.

    Args:
        reader: The rows.
        batch_size: Rows per batch; None to look at each row by itself.
        max_violations: Violations to keep in `first`.
    """
    data = _read_all(reader, batch_size is None)
    summary = RowSummary(batch_size, data.file_starts)
    for rows in _whole_batches(reader, batch_size or 1):
        broken = broken_rules(rows, data.known, batch_size)
        if batch_size is None:
            broken[SAME_ROW] = data.are_copies(summary.rows, summary.rows + len(rows))
        affected = np.logical_or.reduce(list(broken.values()))
        starts = np.arange(0, len(rows), batch_size or 1)
        if affected.any():
            for rule, marked in broken.items():
                summary.rows_by_rule[rule] += int(marked.sum())
                if batch_size is not None:
                    batches = np.logical_or.reduceat(marked, starts)
                    summary.batches_by_rule[rule] += int(batches.sum())
            if len(summary.first) < max_violations:
                room = max_violations - len(summary.first)
                summary.first += _first_violations(rows, data, broken, summary, room)
        summary.broken_rows += int(affected.sum())
        summary.rows += len(rows)
        if batch_size is not None:
            summary.clean_batches += int((~np.logical_or.reduceat(affected, starts)).sum())
            summary.batches += len(starts)
    return summary


def _read_all(reader: RowReader, alone: bool) -> _Data:
    lengths = np.zeros(len(reader.paths), np.int64)
    anchors, positives, digests = ([np.empty(0, np.int64)] for _ in range(3))
    for number, rows in reader.blocks(negatives=alone):
        lengths[number] += len(rows)
        anchors.append(np.repeat(rows.anchors, rows.positives.lengths()))
        positives.append(rows.positives.values)
        if alone:
            digests.append(rows.digests().view(np.int64))
    known = KnownPairs(np.concatenate(anchors), np.concatenate(positives))
    return _Data(offsets_of(lengths), known, *_copies(np.concatenate(digests)))


def _copies(digests: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows that are an earlier one again, rising, and the first one that each of them is."""
    _, first, place = np.unique(digests, return_index=True, return_inverse=True)
    originals = first[place]
    copies = np.flatnonzero(originals < np.arange(len(digests)))
    return copies, originals[copies]


def _whole_batches(reader: RowReader, batch_size: int) -> Iterator[TextRows]:
    """Yield rows of some whole batches, across files; the last one may be partial."""
    waiting: list[TextRows] = []
    count = 0
    for _, block in reader.blocks():
        waiting.append(block)
        count += len(block)
        if count >= max(batch_size, _ROWS_AT_ONCE):
            rows = TextRows.concatenate(waiting)
            whole = count - count % batch_size
            yield rows.slice(0, whole)
            waiting, count = [rows.slice(whole, count)], count - whole
    rest = TextRows.concatenate(waiting)
    if len(rest):
        yield rest


def _first_violations(
    rows: TextRows,
    data: _Data,
    broken: dict[str, NDArray[np.bool_]],
    summary: RowSummary,
    room: int,
) -> list[_Violation]:
    """The first violations of some rows, each once, though two rows may share one."""
    found: dict[_Violation, None] = {}
    size, together = summary.batch_size or 1, summary.batch_size is not None
    start, batch = -1, rows
    for row in map(int, np.flatnonzero(np.logical_or.reduce(list(broken.values())))):
        if row - row % size != start:
            start = row - row % size
            batch = rows.slice(start, start + size)
        number = summary.batches + row // size if together else 0
        for rule in (rule for rule, marked in broken.items() if marked[row]):
            if rule == SAME_ROW:
                at = summary.rows + row
                placed: tuple[Slot, ...] = ((data.original(at), 0), (at, 0))
            else:
                slots = slots_of(batch, data.known, rule, row - start, together)
                placed = tuple((summary.rows + start + at, place) for at, place in slots)
            found[number, rule, placed] = None
        if len(found) >= room:
            break
    return list(found)[:room]


def first_sentences(reader: RowReader, summary: RowSummary) -> Iterator[str]:
    """The first violations by batch, file, rows and texts, a sentence each."""
    shown = reader.shown(sorted({row for _, _, slots in summary.first for row, _ in slots}))
    for batch, rule, slots in summary.first:
        places, previous = [], -1
        for row, place in slots:
            number = int(np.searchsorted(summary.file_starts, row, side="right")) - 1
            file = "" if number == previous else f"{reader.paths[number].name} "
            name, text = shown[row][place]
            at = row - summary.file_starts[number]
            places.append(f"{file}row {at} {name} {text[:SHOWN_TEXT]!r}")
            previous = number
        where = "" if summary.batch_size is None else f"batch {batch}: "
        yield f"{where}{summary.rules[rule]}: {', '.join(places)}"

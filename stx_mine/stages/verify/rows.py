"""Verify rows that `pack` did not write: which batches are clean.

Rows [i * B, (i + 1) * B) are batch i.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from stx_mine.core.ragged import offsets_of
from stx_mine.stages.verify.core.batches import SHOWN_TEXT
from stx_mine.stages.verify.core.rows import ROW_RULES, KnownPairs, Slot, broken_rules, slots_of
from stx_mine.stages.verify.row_files import RowFiles

_Violation = tuple[int, str, tuple[Slot, ...]]


@dataclass
class RowSummary:
    """What was found; rows are counted over all files, and one row may break several rules.

    Attributes:
        batch_size: Rows per batch.
        file_starts: int64 (files + 1,): the first row of each file, and the end.
        rows: All rows.
        batches: Batches, the last partial one among them.
        clean_batches: Batches in which no row breaks a rule.
        broken_rows: Rows that break a rule.
        rows_by_rule: Rule -> rows that break it.
        batches_by_rule: Rule -> batches with such a row.
        first: The first violations: batch, rule, and (row, column) of each text.
    """

    batch_size: int
    file_starts: NDArray[np.int64]
    rows: int = 0
    batches: int = 0
    clean_batches: int = 0
    broken_rows: int = 0
    rows_by_rule: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ROW_RULES, 0))
    batches_by_rule: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ROW_RULES, 0))
    first: list[_Violation] = field(default_factory=list)

    @property
    def last_rows(self) -> int:
        """Rows of the last batch where it is partial, else 0."""
        return self.rows % self.batch_size


def check_rows(files: RowFiles, batch_size: int, max_violations: int) -> RowSummary:
    """Check every batch of rows in the order in which they stand.

    One pass reads the known pairs, another one the batches, one of them in memory at a time.

    Args:
        files: The rows.
        batch_size: Rows per batch.
        max_violations: Violations to keep in `first`.
    """
    starts, known = _known_pairs(files)
    summary = RowSummary(batch_size, starts)
    if not starts[-1]:
        return summary
    for ids_BC in _batches(files, batch_size):
        broken = broken_rules(ids_BC, known)
        affected = np.logical_or.reduce(list(broken.values()))
        if affected.any():
            for rule, rows in broken.items():
                summary.rows_by_rule[rule] += int(rows.sum())
                summary.batches_by_rule[rule] += bool(rows.any())
            if len(summary.first) < max_violations:
                room = max_violations - len(summary.first)
                summary.first += _first_violations(ids_BC, known, broken, summary, room)
        summary.broken_rows += int(affected.sum())
        summary.clean_batches += not affected.any()
        summary.batches += 1
        summary.rows += len(ids_BC)
    return summary


def _known_pairs(files: RowFiles) -> tuple[NDArray[np.int64], KnownPairs]:
    """The first row of each file (and the end), and every pair of all files."""
    lengths = np.zeros(len(files.files), np.int64)
    parts = [np.empty((0, 2), np.int64)]
    for number, ids in files.ids(2):
        lengths[number] += len(ids)
        parts.append(ids)
    pairs = np.concatenate(parts)
    parts.clear()
    return offsets_of(lengths), KnownPairs(pairs[:, 0], pairs[:, 1])


def _batches(files: RowFiles, batch_size: int) -> Iterator[NDArray[np.int64]]:
    """Yield int64 (batch_size, C), across files; the last may be shorter."""
    waiting: list[NDArray[np.int64]] = []
    for _, ids in files.ids(len(files.columns)):
        waiting.append(ids)
        if sum(map(len, waiting)) >= batch_size:
            rows = np.concatenate(waiting)
            whole = len(rows) - len(rows) % batch_size
            yield from np.split(rows[:whole], whole // batch_size)
            waiting = [rows[whole:]]
    rest = np.concatenate(waiting)
    if len(rest):
        yield rest


def _first_violations(
    ids_BC: NDArray[np.int64],
    known: KnownPairs,
    broken: dict[str, NDArray[np.bool_]],
    summary: RowSummary,
    room: int,
) -> list[_Violation]:
    """The first violations of a batch, each once, though two rows may share one."""
    found: dict[_Violation, None] = {}
    for row in np.flatnonzero(np.logical_or.reduce(list(broken.values()))):
        for rule in (rule for rule, rows in broken.items() if rows[row]):
            slots = slots_of(ids_BC, known, rule, int(row))
            placed = tuple((summary.rows + at, column) for at, column in slots)
            found[summary.batches, rule, placed] = None
        if len(found) >= room:
            break
    return list(found)[:room]


def first_sentences(files: RowFiles, summary: RowSummary) -> Iterator[str]:
    """The first violations by batch, file, rows and texts, a sentence each."""
    texts = files.texts(sorted({row for _, _, slots in summary.first for row, _ in slots}))
    for batch, rule, slots in summary.first:
        places, previous = [], -1
        for row, column in slots:
            number = int(np.searchsorted(summary.file_starts, row, side="right")) - 1
            name = "" if number == previous else f"{files.files[number].path.name} "
            text = texts[row][column] or ""
            shown = f"{files.columns[column]} {text[:SHOWN_TEXT]!r}"
            places.append(f"{name}row {row - summary.file_starts[number]} {shown}")
            previous = number
        yield f"batch {batch}: {ROW_RULES[rule]}: {', '.join(places)}"

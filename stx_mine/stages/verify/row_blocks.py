"""Rows of texts or ids, some at a time, as every reader of rows gives them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stx_mine.core.ragged import Ragged, offsets_of
from stx_mine.stages.verify.core.rows import TextRows
from stx_mine.stages.verify.text_table import TextTable
from stx_mine.store.digests import text_numbers


class Slotted(NamedTuple):
    """What stands in one slot of a row.

    Attributes:
        name: Of its column, with its place in a list.
        text: The text, or its id; None where it is missing.
        is_id: Whether it is an id.
    """

    name: str
    text: str | None
    is_id: bool


@dataclass(frozen=True)
class RowColumn:
    """Texts, or ids of texts, in one column of some rows.

    Attributes:
        name: Name of the column.
        lengths: int64 (R,) texts of each row; None for one a row.
        texts: Large strings of all rows, null for none.
        are_ids: Whether they are ids.
    """

    name: str
    lengths: NDArray[np.int64] | None
    texts: pa.Array
    are_ids: bool = False

    @classmethod
    def merged(cls, name: str, columns: Sequence["RowColumn"]) -> "RowColumn":
        """The texts of several columns of each row as one list; a missing one shortens it.

        Args:
            name: Name of the whole.
            columns: At least one, each of one text a row.
        """
        rows = np.arange(len(columns[0].texts))
        order = np.argsort(np.tile(rows, len(columns)), kind="stable")
        texts = pa.concat_arrays([column.texts for column in columns]).take(pa.array(order))
        there = np.asarray(texts.is_valid().to_numpy(zero_copy_only=False), bool)
        lengths = there.reshape(len(rows), len(columns)).sum(axis=1, dtype=np.int64)
        return cls(name, lengths, texts.drop_null(), columns[0].are_ids)

    def chosen(self, marked: NDArray[np.bool_]) -> "RowColumn":
        """The texts that are marked: bool, aligned with them."""
        count = len(self.texts) if self.lengths is None else len(self.lengths)
        owners = np.arange(count) if self.lengths is None else np.repeat(range(count), self.lengths)
        lengths = np.bincount(owners[marked], minlength=count)
        return replace(self, lengths=lengths, texts=self.texts.filter(pa.array(marked)))

    def ragged(self, values: NDArray[np.int64], num_rows: int) -> Ragged:
        """Numbers aligned with `texts`, by row."""
        lengths = np.ones(num_rows, np.int64) if self.lengths is None else self.lengths
        return Ragged(offsets_of(lengths), values)

    def of(self, row: int) -> list[Slotted]:
        """What stands in each slot of a row."""
        if self.lengths is None:
            return [Slotted(self.name, self.texts[row].as_py(), self.are_ids)]
        first = int(self.lengths[:row].sum())
        found = self.texts.slice(first, int(self.lengths[row])).to_pylist()
        names = (f"{self.name}[{number}]" for number in range(len(found)))
        return [Slotted(name, text, self.are_ids) for name, text in zip(names, found, strict=True)]


@dataclass(frozen=True)
class RowBlock:
    """Some rows.

    Attributes:
        anchors: One a row.
        positives: Columns of positives, in their order.
        negatives: Columns of negatives, in their order.
    """

    anchors: RowColumn
    positives: tuple[RowColumn, ...]
    negatives: tuple[RowColumn, ...] = ()

    def __len__(self) -> int:
        return len(self.anchors.texts)

    def slots(self, row: int) -> tuple[list[Slotted], ...]:
        """What stands in every slot of a row, by role: anchor, positives, negatives."""
        roles = ((self.anchors,), self.positives, self.negatives)
        return tuple([slot for column in role for slot in column.of(row)] for role in roles)


@dataclass(frozen=True)
class RowReader:
    """Files of rows in one layout, in order, as one stream.

    Attributes:
        paths: At least one, as messages name them.
        read: Whether negatives are wanted -> number of a file and rows of it, some at a time;
            where they are not wanted, they may be missing.
        described: What is read as what, sentences for a person.
        queries: What anchors are ids of; None where they are texts, or no texts are known.
        passages: What positives and negatives are ids of; None likewise.
    """

    paths: tuple[Path, ...]
    read: Callable[[bool], Iterator[tuple[int, RowBlock]]]
    described: tuple[str, ...]
    queries: TextTable | None = None
    passages: TextTable | None = None

    def blocks(self, negatives: bool = True) -> Iterator[tuple[int, TextRows]]:
        """Yield the number of a file, and rows of it.

        The number of a text is the first 63 bits of the digest of its normalised form, so that
        two of 100 million texts share one with a probability of one in two thousand.
        """
        for number, block in self.read(negatives):
            yield number, self._numbers(block)

    def shown(self, rows: list[int]) -> dict[int, list[tuple[str, str]]]:
        """Name and text of every slot of some rows, counted over all files.

        Args:
            rows: Distinct, rising.
        """
        found: dict[int, tuple[list[Slotted], ...]] = {}
        start = 0
        for _, block in self.read(True):
            for row in rows[len(found) :]:
                if row >= start + len(block):
                    break
                found[row] = block.slots(row - start)
            if len(found) == len(rows):
                break
            start += len(block)
        return self._with_texts(found)

    def _with_texts(
        self, found: dict[int, tuple[list[Slotted], ...]]
    ) -> dict[int, list[tuple[str, str]]]:
        """Put texts in the place of ids."""
        texts = list[dict[str, str]]()
        for table, roles in ((self.queries, (0,)), (self.passages, (1, 2))):
            slots = chain.from_iterable(row[role] for row in found.values() for role in roles)
            ids = {slot.text for slot in slots if slot.text and slot.is_id}
            texts += [{} if table is None else table.texts(ids)] * len(roles)
        return {
            row: [
                (slot.name, known.get(slot.text or "", "") if slot.is_id else slot.text or "")
                for role, known in zip(slots, texts, strict=True)
                for slot in role
            ]
            for row, slots in found.items()
        }

    def _numbers(self, block: RowBlock) -> TextRows:
        def numbered(column: RowColumn, table: TextTable | None) -> Ragged:
            encoded = column.texts.dictionary_encode()
            distinct = encoded.dictionary
            known = table if column.are_ids else None
            numbers = text_numbers(distinct) if known is None else known.of(distinct)
            places = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)
            # The last one is for a text that is missing.
            values = np.append(numbers, -1)[places]
            return column.ragged(values, len(block))

        anchors = numbered(block.anchors, self.queries).values
        roles = (
            _side_by_side([numbered(column, self.passages) for column in role], len(block))
            for role in (block.positives, block.negatives)
        )
        return TextRows(anchors, *roles)


def _side_by_side(columns: list[Ragged], num_rows: int) -> Ragged:
    """The values of several columns of each row, one column after the other."""
    if len(columns) == 1:
        return columns[0]
    empty = np.empty(0, np.int64)
    owners = np.concatenate(
        [empty, *(np.repeat(np.arange(num_rows), column.lengths()) for column in columns)]
    )
    values = np.concatenate([empty, *(column.values for column in columns)])
    order = np.argsort(owners, kind="stable")
    return Ragged(offsets_of(np.bincount(owners, minlength=num_rows)), values[order])

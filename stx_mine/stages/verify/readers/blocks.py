"""Rows of texts, some at a time, as every reader of a layout gives them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from numpy.typing import NDArray

from stx_mine.core.ragged import Ragged, offsets_of
from stx_mine.errors import InputError
from stx_mine.stages.verify.core.rows import TextRows
from stx_mine.store.digests import text_numbers


@dataclass(frozen=True)
class RowColumn:
    """Texts, or ids of texts, in one column of some rows.

    Attributes:
        name: Name of the column.
        lengths: int64 (R,) texts of each row; None for one a row.
        texts: Large strings of all rows, null for none.
    """

    name: str
    lengths: NDArray[np.int64] | None
    texts: pa.Array

    @classmethod
    def of_lists(cls, name: str, texts: Sequence[Sequence[str | None]]) -> "RowColumn":
        """Lists of Python strings."""
        flat = pa.array([text for some in texts for text in some], pa.large_string())
        return cls(name, np.array([len(some) for some in texts], np.int64), flat)

    def ragged(self, values: NDArray[np.int64], num_rows: int) -> Ragged:
        """Numbers aligned with `texts`, by row."""
        lengths = np.ones(num_rows, np.int64) if self.lengths is None else self.lengths
        return Ragged(offsets_of(lengths), values)

    def of(self, row: int) -> list[tuple[str, str | None]]:
        """Name and text of each slot of a row."""
        if self.lengths is None:
            return [(self.name, self.texts[row].as_py())]
        first = int(self.lengths[:row].sum())
        found = self.texts.slice(first, int(self.lengths[row])).to_pylist()
        return [(f"{self.name}[{number}]", text) for number, text in enumerate(found)]


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

    def slots(self, row: int) -> tuple[list[tuple[str, str | None]], ...]:
        """Name and text of every slot of a row, by role: anchor, positives, negatives."""
        roles = ((self.anchors,), self.positives, self.negatives)
        return tuple([slot for column in role for slot in column.of(row)] for role in roles)


@dataclass(frozen=True)
class TextTable:
    """The texts that ids stand for; in memory, 16 bytes per text.

    Attributes:
        stream: Gives (ids, texts), some at a time, as large strings.
        ids: int64, rising digests of ids.
        numbers: int64 numbers of their texts.
    """

    stream: Callable[[], Iterator[tuple[pa.Array, pa.Array]]]
    ids: NDArray[np.int64]
    numbers: NDArray[np.int64]

    @classmethod
    def read(
        cls, what: Path, stream: Callable[[], Iterator[tuple[pa.Array, pa.Array]]]
    ) -> "TextTable":
        """Number all texts.

        Raises:
            InputError: One id stands for two texts.
        """
        parts = [(_id_numbers(ids), text_numbers(texts)) for ids, texts in stream()]
        ids = np.concatenate([np.empty(0, np.int64), *(one for one, _ in parts)])
        numbers = np.concatenate([np.empty(0, np.int64), *(one for _, one in parts)])
        order = np.argsort(ids, kind="stable")
        ids, numbers = ids[order], numbers[order]
        twice = np.flatnonzero((np.diff(ids) == 0) & (np.diff(numbers) != 0))
        if len(twice):
            # Found again by its digest: the stream gives blocks in the same order.
            name = _name_of(stream, int(ids[twice[0]]))
            raise InputError(
                f"expected one text per id in {what}, found two under {name!r}; give each its own"
            )
        return cls(stream, ids, numbers)

    def of(self, names: pa.Array) -> NDArray[np.int64]:
        """int64: the number of the text of each id; -1 for an id that is not there."""
        wanted = _id_numbers(names)
        if not len(self.ids):
            return np.full(len(wanted), -1, np.int64)
        places = np.minimum(np.searchsorted(self.ids, wanted), len(self.ids) - 1)
        return np.where(self.ids[places] == wanted, self.numbers[places], -1)

    def texts(self, names: set[str]) -> dict[str, str]:
        """Id -> text, of some ids; reads the table again."""
        wanted, found = pa.array(sorted(names), pa.large_string()), dict[str, str]()
        for ids, texts in self.stream():
            here = pc.is_in(ids, value_set=wanted)
            found |= zip(ids.filter(here).to_pylist(), texts.filter(here).to_pylist(), strict=True)
        return found


def _id_numbers(ids: pa.Array) -> NDArray[np.int64]:
    """The first 63 bits of the digest of each id, which is compared as it is."""
    digest = xxhash.xxh3_64_intdigest
    raw = ids.cast(pa.large_binary()).to_pylist()
    return np.array([digest(one or b"") >> 1 for one in raw], np.int64)


def _name_of(stream: Callable[[], Iterator[tuple[pa.Array, pa.Array]]], digest: int) -> str:
    for ids, _ in stream():
        places = np.flatnonzero(_id_numbers(ids) == digest)
        if len(places):
            return str(ids[int(places[0])].as_py())
    raise AssertionError("an id was there before")


ReadRows = Callable[[Path, bool], Iterator[RowBlock]]


@dataclass(frozen=True)
class RowReader:
    """Files of rows in one layout, in order, as one stream.

    Attributes:
        paths: At least one.
        read: (path, whether negatives are wanted) -> rows, some at a time; where they are not
            wanted, they may be missing.
        described: What is read as what, for a person.
        queries: What anchors are ids of; None where they are texts.
        passages: What positives and negatives are ids of; None where they are texts.
    """

    paths: tuple[Path, ...]
    read: ReadRows
    described: str
    queries: TextTable | None = None
    passages: TextTable | None = None

    def blocks(self, negatives: bool = True) -> Iterator[tuple[int, TextRows]]:
        """Yield the number of a file, and rows of it.

        The number of a text is the first 63 bits of the digest of its normalised form, so that
        two of 100 million texts share one with a probability of one in two thousand.
        """
        for number, path in enumerate(self.paths):
            for block in self.read(path, negatives):
                yield number, self._numbers(block)

    def shown(self, rows: list[int]) -> dict[int, list[tuple[str, str]]]:
        """Name and text of every slot of some rows, counted over all files.

        Args:
            rows: Distinct, rising.
        """
        found: dict[int, tuple[list[tuple[str, str | None]], ...]] = {}
        start = 0
        for block in (block for path in self.paths for block in self.read(path, True)):
            for row in rows[len(found) :]:
                if row >= start + len(block):
                    break
                found[row] = block.slots(row - start)
            if len(found) == len(rows):
                break
            start += len(block)
        return self._with_texts(found)

    def _with_texts(
        self, found: dict[int, tuple[list[tuple[str, str | None]], ...]]
    ) -> dict[int, list[tuple[str, str]]]:
        """Put texts in the place of ids."""
        texts: list[dict[str, str] | None] = []
        for table, roles in ((self.queries, (0,)), (self.passages, (1, 2))):
            slots = chain.from_iterable(row[role] for row in found.values() for role in roles)
            ids = {text for _, text in slots if text}
            texts += [None if table is None else table.texts(ids)] * len(roles)
        return {
            row: [
                (name, text or "" if known is None else known.get(text or "", ""))
                for role, known in zip(slots, texts, strict=True)
                for name, text in role
            ]
            for row, slots in found.items()
        }

    def _numbers(self, block: RowBlock) -> TextRows:
        def numbered(column: RowColumn, table: TextTable | None) -> Ragged:
            encoded = column.texts.dictionary_encode()
            distinct = encoded.dictionary
            numbers = text_numbers(distinct) if table is None else table.of(distinct)
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

"""The texts that ids stand for, by their numbers."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from numpy.typing import NDArray

from stx_mine.errors import InputError
from stx_mine.inputs.text_column import TextColumn
from stx_mine.store.digests import text_numbers

_TEXTS_AT_ONCE = 8_192


@dataclass(frozen=True)
class TextTable:
    """The texts that ids stand for; in memory, 16 bytes per text.

    Attributes:
        column: The texts with their ids.
        ids: int64, rising digests of ids.
        numbers: int64 numbers of their texts.
    """

    column: TextColumn
    ids: NDArray[np.int64]
    numbers: NDArray[np.int64]

    @classmethod
    def read(cls, column: TextColumn) -> "TextTable":
        """Number all texts.

        Raises:
            InputError: One id stands for two texts, or a row is broken.
        """
        parts = [(_id_numbers(ids), text_numbers(texts)) for ids, texts in _stream(column)]
        ids = np.concatenate([np.empty(0, np.int64), *(one for one, _ in parts)])
        numbers = np.concatenate([np.empty(0, np.int64), *(one for _, one in parts)])
        order = np.argsort(ids, kind="stable")
        ids, numbers = ids[order], numbers[order]
        twice = np.flatnonzero((np.diff(ids) == 0) & (np.diff(numbers) != 0))
        if len(twice):
            raise InputError(
                f"expected one text per id in {column.file.name}, found two under "
                f"{_name_of(column, int(ids[twice[0]]))!r}; give each its own"
            )
        return cls(column, ids, numbers)

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
        for ids, texts in _stream(self.column):
            here = pc.is_in(ids, value_set=wanted)
            found |= zip(ids.filter(here).to_pylist(), texts.filter(here).to_pylist(), strict=True)
        return found


def _stream(column: TextColumn) -> Iterator[tuple[pa.Array, pa.Array]]:
    """Yield ids and texts, some at a time; a text without an id is left out."""
    for block in column.blocks():
        for start in range(0, len(block.ids), _TEXTS_AT_ONCE):
            ids, texts = (one.slice(start, _TEXTS_AT_ONCE) for one in (block.ids, block.texts))
            yield ids.drop_null(), texts.filter(ids.is_valid())


def _id_numbers(ids: pa.Array) -> NDArray[np.int64]:
    """The first 63 bits of the digest of each id, which is compared as it is."""
    digest = xxhash.xxh3_64_intdigest
    raw = ids.cast(pa.large_binary()).to_pylist()
    return np.array([digest(one or b"") >> 1 for one in raw], np.int64)


def _name_of(column: TextColumn, digest: int) -> str:
    for ids, _ in _stream(column):
        places = np.flatnonzero(_id_numbers(ids) == digest)
        if len(places):
            return str(ids[int(places[0])].as_py())
    raise AssertionError("an id was there before")

"""Whole batches of a shard, some at a time: ids, and numbers in the place of texts.

A text is in memory only while its number is made, so that memory follows neither the length of
texts nor the size of a shard, but what the ids of one batch take.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stx_mine.store.batches import BatchShard
from stx_mine.store.digests import text_numbers
from stx_mine.store.files import read_table

_ROWS_AT_ONCE, _VALUES_AT_ONCE, _BYTES_AT_ONCE = 32_768, 1 << 23, 1 << 25
_TEXTS_AT_ONCE = 8_192


@dataclass(frozen=True)
class BatchBlock:
    """Some whole batches.

    Attributes:
        first: Number of the first one in its shard.
        table: The columns that were asked for, of all their rows.
        numbers_NS: int64 (N, S): a number of the text in each column of texts that was asked for,
            the same for equal ones; -1 for an empty text, and for none.
        filled_NS: bool (N, S): whether there is a text.
    """

    first: int
    table: pa.Table
    numbers_NS: NDArray[np.int64]
    filled_NS: NDArray[np.bool_]


@dataclass(frozen=True)
class ShardReader:
    """A shard, read some batches at a time.

    Attributes:
        shard: The shard.
        columns: Names of the columns to read.
        texts: Names of the columns of texts to number; none of them is in `columns`.
    """

    shard: BatchShard
    columns: tuple[str, ...]
    texts: tuple[str, ...]
    _parquet: pq.ParquetFile = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Open the file."""
        parquet = pq.ParquetFile(self.shard.path, read_dictionary=list(self.texts))
        object.__setattr__(self, "_parquet", parquet)

    def blocks(self) -> Iterator[BatchBlock]:
        """Yield all batches, at least one at a time."""
        size = self.shard.batch_size
        most = min(_ROWS_AT_ONCE, int(_VALUES_AT_ONCE / self._per_row(self.columns)[0]))
        step = max(1, most // size)
        rows = self._parquet.iter_batches(step * size, columns=list(self.columns))
        waiting = pa.table([])
        texts = [_Numbers(self._texts(name)) for name in self.texts]
        for first in range(0, self.shard.num_batches, step):
            count = min(step, self.shard.num_batches - first) * size
            parts = [waiting] if waiting.num_rows else []
            while sum(map(len, parts)) < count:
                parts.append(pa.Table.from_batches([next(rows)]))
            table = pa.concat_tables(parts)
            waiting = table.slice(count)
            numbers_NS = np.empty((count, len(texts)), np.int64)
            filled_NS = np.empty((count, len(texts)), bool)
            for slot, column in enumerate(texts):
                column.take(numbers_NS[:, slot], filled_NS[:, slot])
            yield BatchBlock(first, table.slice(0, count), numbers_NS, filled_NS)

    def text(self, row: int, column: str) -> str:
        """The text in a row of the shard; empty for none."""
        for group in range(self._parquet.num_row_groups):
            count = self._parquet.metadata.row_group(group).num_rows
            if row < count:
                return self._column(group, column)[row].as_py() or ""
            row -= count
        raise AssertionError(f"{self.shard.path} has no row {row} after its last")

    @lru_cache(maxsize=16)  # noqa: B019
    def _column(self, group: int, column: str) -> pa.ChunkedArray:
        return self._parquet.read_row_group(group, columns=[column]).column(0)

    def _texts(self, name: str) -> Iterator[pa.Array]:
        rows = max(1, min(_ROWS_AT_ONCE, int(_BYTES_AT_ONCE / self._per_row([name])[1])))
        # Columns are read by turns; each has a reader of its own.
        parquet = pq.ParquetFile(self.shard.path, read_dictionary=[name])
        for batch in parquet.iter_batches(rows, columns=[name]):
            yield batch.column(0)

    def _per_row(self, names: Sequence[str]) -> tuple[float, float]:
        """Values, and bytes, that a row has on average in some columns; each at least 1."""
        metadata, values, size = self._parquet.metadata, 0, 0
        for group in map(metadata.row_group, range(metadata.num_row_groups)):
            for column in map(group.column, range(group.num_columns)):
                if column.path_in_schema.split(".")[0] in names:
                    values += column.num_values
                    size += column.total_uncompressed_size
        rows = max(1, metadata.num_rows)
        return max(1.0, values / rows), max(1.0, size / rows)


class _Numbers:
    """The numbers of the texts of a column, as many rows at a time as are asked for."""

    def __init__(self, arrays: Iterator[pa.Array]) -> None:
        self._arrays = arrays
        self._rest = np.empty(0, np.int64), np.empty(0, bool)

    def take(self, numbers: NDArray[np.int64], filled: NDArray[np.bool_]) -> None:
        """Write the numbers of the next rows, and whether they have a text."""
        done = 0
        while done < len(numbers):
            if not len(self._rest[0]):
                self._rest = _numbered(next(self._arrays))
            some = min(len(self._rest[0]), len(numbers) - done)
            for target, source in zip((numbers, filled), self._rest, strict=True):
                target[done : done + some] = source[:some]
            self._rest = self._rest[0][some:], self._rest[1][some:]
            done += some


def _numbered(texts: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    encoded = texts if isinstance(texts, pa.DictionaryArray) else texts.dictionary_encode()
    filled = np.asarray(encoded.is_valid().to_numpy(zero_copy_only=False), bool)
    places = np.asarray(encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False))
    # The dictionary may be that of many more rows. The first number is for rows without a text.
    used, of = np.unique(np.append(places, -1), return_inverse=True)
    numbers = text_numbers(encoded.dictionary.take(pa.array(used[1:])))
    return np.append(np.int64(-1), numbers)[of[:-1]], filled


@dataclass(frozen=True)
class AllTexts:
    """The texts that the ids of shards stand for.

    Attributes:
        column: `text`, mapped; row number = id.
        numbers: int64 (num texts,): their numbers, as of `BatchBlock`.
    """

    column: pa.ChunkedArray
    numbers: NDArray[np.int64]

    @classmethod
    def open(cls, path: Path) -> "AllTexts":
        """Number all texts."""
        column = read_table(path).column("text")
        parts = [np.empty(0, np.int64)]
        for chunk in column.chunks:
            for start in range(0, len(chunk), _TEXTS_AT_ONCE):
                parts.append(text_numbers(chunk.slice(start, _TEXTS_AT_ONCE)))
        return cls(column, np.concatenate(parts))

    def of(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """The number of the text of each id; -1 for an id that none has."""
        known = self.are_ids(ids)
        return np.append(self.numbers, -1)[np.where(known, ids, -1)]

    def are_ids(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each number is the id of a text."""
        return (ids >= 0) & (ids < len(self.numbers))

    def text(self, text_id: int) -> str:
        """The text of an id; empty where there is none."""
        known = 0 <= text_id < len(self.numbers)
        return str(self.column[text_id].as_py() or "") if known else ""

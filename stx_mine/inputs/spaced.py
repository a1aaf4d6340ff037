"""TREC's files of judgements (qrels): values between white space, without names of columns."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stx_mine.errors import InputError
from stx_mine.inputs.files import InputFile, undecodable

# Suffixes of files that TREC's tools write.
SPACED = (".trec", ".qrels")
_BLOCK_BYTES = 1 << 22


class SpacedFile:
    """A file of lines of values, as many in each, between spaces or tabs; all are text."""

    notes: tuple[str, ...] = ()

    def __init__(self, file: InputFile) -> None:
        """Count the values of the first line.

        Raises:
            InputError: There is no line.
        """
        self._file = file
        self.num_broken = dict[str, int]()
        first = next(self._values(), None)
        if first is None:
            raise InputError(f"{file.name} is empty; give a file with at least one row")
        width = len(first[1][0])
        self.schema = pa.schema([(str(place), pa.large_string()) for place in range(width)])

    def record_batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """Stream some columns.

        Raises:
            InputError: A line has another number of values, or is not UTF-8.
        """
        width = len(self.schema)
        for numbers, values in self._values():
            lengths = pc.list_value_length(values).to_numpy()
            if (lengths != width).any():
                place = int(np.argmax(lengths != width))
                raise InputError(
                    f"expected {width} values in every line of {self._file.name}, found "
                    f"{lengths[place]} in line {numbers[place]:,}; fix that line"
                )
            flat = values.flatten()
            yield pa.RecordBatch.from_arrays(
                [flat.take(pa.array(np.arange(int(n), len(flat), width))) for n in columns],
                names=columns,
            )

    def _values(self) -> Iterator[tuple[NDArray[np.int64], pa.Array]]:
        """The numbers of lines that are not blank, from 1, and the values of each."""
        rest, first = b"", 1
        for block in self._file.blocks(_BLOCK_BYTES):
            whole, end, rest = (rest + block).rpartition(b"\n")
            if end:
                yield from self._split(whole, first)
                first += whole.count(b"\n") + 1
        yield from self._split(rest, first)

    def _split(self, text: bytes, first: int) -> Iterator[tuple[NDArray[np.int64], pa.Array]]:
        try:
            lines = pa.array(text.decode().split("\n"), pa.large_string())
        except UnicodeDecodeError as error:
            raise undecodable(self._file.name, text, first, error) from error
        trimmed = pc.ascii_trim_whitespace(lines)
        filled = np.flatnonzero(pc.binary_length(trimmed).to_numpy())
        if len(filled):
            yield first + filled, pc.ascii_split_whitespace(trimmed.take(pa.array(filled)))

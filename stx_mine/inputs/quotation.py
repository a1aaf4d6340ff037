"""Quotation marks of CSV and TSV: whether they enclose values, and whether they are closed."""

import csv
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_MARK = ord('"')
_PART = 1 << 17
_LONGEST_QUOTED = 1 << 20
_QUOTED = re.compile(rb'"(?:[^"]|"")*"(?=[\t\r\n]|\Z)')
# Values one after the other, with what stands between them.
_MANY_QUOTED = re.compile(rb'(?:[^"]*(?<=[\t\n])"[^"]*(?:""[^"]*)*"(?=[\t\r\n])){1,1000}')
# From the mark that opens a value to the one that closes it; from within, the rest of it.
_VALUE = re.compile(rb'"[^"]*(?:""[^"]*)*"')
_REST = re.compile(rb'[^"]*(?:""[^"]*)*"')
_ESCAPED = re.compile(r'\\([\\"])')
_OTHER_ESCAPE = re.compile(r'\\[^"]')
_SPACED = re.compile(r' +"')


class Unclosed(ValueError):  # noqa: N818
    """A value that a quotation mark opens and none closes as CSV has it.

    Attributes:
        place: Byte in the stream at which it is opened.
    """

    def __init__(self, place: int) -> None:
        """Note the place."""
        super().__init__(f"byte {place}")
        self.place = place


class QuoteCheck:
    """Checks, a block after the other, that every mark that opens a value is closed.

    A mark opens a value where it stands at its start. It must be closed by one that stands at the
    end of a value; those within are doubled. In a value without them, marks are text.
    """

    def __init__(self, delimiter: str) -> None:
        """Begin a stream.

        Args:
            delimiter: Between values, one byte.
        """
        borders = delimiter.encode() + b"\r\n"
        self._opener = re.compile(b'(?<=[%b])"' % re.escape(borders))
        self._is_border = np.zeros(256, bool)
        self._is_border[list(borders + b'"')] = True
        # The byte before what is looked at, marks whose next byte is not known yet, their place.
        self._before, self._rest, self._place = b"\n", b"", 0
        self._opened = -1

    def add(self, block: bytes | pa.Buffer, last: bool = False) -> None:
        """Look at the next block.

        Args:
            block: Its bytes, UTF-8.
            last: Whether none follows.

        Raises:
            Unclosed: A value is not closed.
        """
        values = np.frombuffer(block, np.uint8)
        if self._rest or (values.size and values[-1] == _MARK):
            text = self._rest + bytes(block)
            kept = text if last else text.rstrip(b'"')
            self._rest = text[len(kept) :]
            values = np.frombuffer(kept, np.uint8)
        # Most blocks follow the rules: then every other mark opens, or is the second of two.
        marks = _places_of_marks(values)
        if marks.size and not self._alternates(values, marks):
            self._walk(self._before + values.tobytes())
        if values.size:
            self._before = values[-1:].tobytes()
        self._place += len(values)
        if last and self._opened >= 0:
            raise Unclosed(self._opened)

    def _alternates(self, values: NDArray[np.uint8], marks: NDArray[np.int64]) -> bool:
        is_inside = self._opened >= 0
        opening, closing = marks[int(is_inside) :: 2], marks[1 - is_inside :: 2]
        before = values[opening - 1]
        if opening.size and opening[0] == 0:
            before[0] = self._before[0]
        after = values[closing[: len(closing) - (marks[-1] == len(values) - 1)] + 1]
        if not (self._is_border[before].all() and self._is_border[after].all()):
            return False
        if (len(marks) + is_inside) % 2 == 0:
            self._opened = -1
        elif (first := np.flatnonzero(before != _MARK)).size:
            self._opened = self._place + int(opening[first[-1]])
        return True

    def _walk(self, text: bytes) -> None:
        """Value by value, since marks stand in values that none encloses."""
        place = 1
        while place < len(text):
            opened, found = self._opened, _REST.match(text, place)
            if opened < 0:
                start = self._opener.search(text, place)
                if start is None:
                    return
                opened, found = self._place + start.start() - 1, _VALUE.match(text, start.start())
            after = b'"' if found is None else text[found.end() : found.end() + 1]
            if found is None or after == b'"':
                # It goes on in the next block.
                self._opened = opened
                return
            if after and not self._is_border[after[0]]:
                raise Unclosed(opened)
            self._opened, place = -1, found.end()


def _places_of_marks(values: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Where the marks stand; a part at a time, which stays in the cache of the processor."""
    parts = range(0, len(values), _PART)
    found = [np.flatnonzero(values[start : start + _PART] == _MARK) + start for start in parts]
    return np.concatenate(found) if found else np.zeros(0, np.int64)


class CheckedStream:
    """A stream of bytes whose quotation marks are checked as it is read."""

    def __init__(self, stream: Any, delimiter: str) -> None:
        """Begin to read.

        Args:
            stream: To read from; closed with this one.
            delimiter: Between values.
        """
        self._stream, self._check, self.closed = stream, QuoteCheck(delimiter), False

    def read_buffer(self, size: int) -> pa.Buffer:
        """The next bytes, which Arrow takes as they are.

        Raises:
            Unclosed: A value is not closed.
        """
        if isinstance(self._stream, pa.NativeFile):
            block = self._stream.read_buffer(size)
        else:
            block = pa.py_buffer(self._stream.read(size))
        self._check.add(block, last=block.size == 0)
        return block

    def read(self, size: int) -> bytes:
        """The next bytes, as `read_buffer` does."""
        return bytes(self.read_buffer(size))

    def close(self) -> None:
        """Close the stream."""
        self._stream.close()
        self.closed = True


def is_closed(text: str, delimiter: str) -> bool:
    """Whether all values of the first lines of a file are closed as CSV has it."""
    try:
        QuoteCheck(delimiter).add(text.encode())
    except Unclosed:
        return False
    return True


def without_escapes(text: str) -> str:
    """The text in which backslashes escape marks, with doubled marks in their stead."""
    if "\\" not in text:
        return text
    return _ESCAPED.sub(lambda found: '""' if found[1] == '"' else "\\", text)


def other_escape(text: str) -> str:
    """The first backslash that stands before something else than a mark, with it; or empty."""
    found = _OTHER_ESCAPE.search(text) if "\\" in text else None
    return found[0] if found else ""


def is_spaced(rows: Iterable[list[str]]) -> bool:
    """Whether a value begins with spaces and a mark, which enclose nothing then."""
    return any(_SPACED.match(value) for row in rows for value in row)


def values_of_lines(
    lines: Iterable[str], delimiter: str, spaced: bool
) -> Iterator[tuple[int, list[str]]]:
    """The values of lines, strictly, with the number of the line that ends them.

    Args:
        lines: With their line ends.
        delimiter: Between values; a space stands for any white space, and marks are text then.
        spaced: Whether spaces before a mark are no part of a value.

    Raises:
        csv.Error: A value is not closed.
    """
    if delimiter == " ":
        yield from ((number, line.split()) for number, line in enumerate(lines, 1) if line.strip())
        return
    reader = csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=spaced)
    for row in reader:
        if row:
            yield reader.line_num, row


def is_quoted(blocks: Iterable[bytes]) -> bool:
    """Whether quotation marks enclose values of a TSV, as pandas and spreadsheets write them.

    They do if every value that begins with one is enclosed in them as CSV has it, and one of them
    needs it: it holds a tab, a line end or a doubled quotation mark, or all of the first line are.

    Args:
        blocks: The bytes of the file.
    """
    needed, rest, at_start = False, b"\n", True
    for block in chain(blocks, [b""]):
        text, place = rest + block, 0
        rest = text[-1:]
        while True:
            if needed and (many := _MANY_QUOTED.match(text, place)):
                place = many.end()
            if (start := _next_quote(text, place)) < 0:
                break
            found = _QUOTED.match(text, start)
            if block and (found is None or found.end() == len(text)):
                # Its end may stand in the next block.
                rest = text[start - 1 :]
                if len(rest) < _LONGEST_QUOTED:
                    break
            if found is None:
                return False
            value = found.group()[1:-1]
            needed = needed or any(mark in value for mark in (b"\t", b"\n", b'""'))
            if at_start and start == 1:
                line = text[1:].split(b"\n", 1)[0].rstrip(b"\r")
                needed = needed or all(part[:1] == b'"' == part[-1:] for part in line.split(b"\t"))
            place = found.end()
        at_start = at_start and rest[:1] == b"\n" and len(rest) > 1
    return needed


def _next_quote(text: bytes, place: int) -> int:
    """Where the next value that begins with a quotation mark begins; -1 for nowhere."""
    found = [text.find(before, place) for before in (b'\t"', b'\n"')]
    found = [start + 1 for start in found if start >= 0]
    return min(found, default=-1)

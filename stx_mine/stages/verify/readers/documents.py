"""Objects of JSON lines and of JSON documents, one after the other, never a whole file."""

import io
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from stx_mine.errors import InputError

_Item = TypeVar("_Item")
_READ_CHARACTERS = 1 << 20
_SPACE = " \t\r\n"


def json_lines(path: Path) -> Iterator[Any]:
    """Yield the value of every line that is not empty.

    Raises:
        InputError: A line is no JSON.
    """
    with opened(path) as handle:
        for number, line in enumerate(handle, 1):
            if line.strip():
                try:
                    yield json.loads(line)
                except ValueError as error:
                    raise InputError(
                        f"expected JSON in line {number:,} of {path}, found something else "
                        f"({error}); fix that line"
                    ) from error


def json_items(path: Path) -> Iterator[Any]:
    """Yield the items of the list that a document is, or that its field `data` is.

    Raises:
        InputError: There is no such list, or it is no JSON.
    """
    with opened(path) as handle:
        try:
            text = _Text(handle)
            if text.take("{"):
                _enter_field(text, "data")
            if not text.take("["):
                raise ValueError("no list")
            while not text.take("]"):
                yield text.value()
                text.take(",")
        except ValueError as error:
            raise InputError(
                f"expected a list in {path}, or one in its field 'data', found something else "
                f"({error}); fix the file"
            ) from error


def checked(layout: str, path: Path, blocks: Iterator[_Item]) -> Iterator[_Item]:
    """Yield blocks of rows; say where a row of another layout stands.

    Args:
        layout: What the rows are of, in words.
        path: The file.
        blocks: Made of its rows.

    Raises:
        InputError: A row lacks a field, or holds something else in it.
    """
    number = 0
    while True:
        try:
            block = next(blocks, None)
        except (KeyError, TypeError, AttributeError, IndexError, pa.ArrowInvalid) as error:
            message = " ".join(str(error).split())
            raise InputError(
                f"expected rows of {layout} in {path}, found another one in block {number} of "
                f"them ({type(error).__name__}: {message}); fix it"
            ) from error
        if block is None:
            return
        yield block
        number += 1


def json_field(path: Path, name: str) -> Any:
    """The value of one field of a document.

    Raises:
        InputError: There is none, or it is no JSON.
    """
    with opened(path) as handle:
        try:
            text = _Text(handle)
            if not text.take("{"):
                raise ValueError("no object")
            _enter_field(text, name)
            return text.value()
        except ValueError as error:
            raise InputError(
                f"expected a field {name!r} in {path}, found something else ({error}); fix the file"
            ) from error


def first_value(path: Path) -> Any:
    """The first item of a file of JSON lines or of a JSON document; None where there is none."""
    items = json_items(path) if ".json" in path.suffixes else json_lines(path)
    return next(items, None)


def lists_of_items(items: Iterator[_Item], size: int) -> Iterator[list[_Item]]:
    """Yield lists of `size` items; the last may be shorter, none is empty."""
    while some := list(islice(items, size)):
        yield some


def opened(path: Path) -> io.TextIOWrapper:
    """A file of text, also compressed; lines end with a line feed alone."""
    return io.TextIOWrapper(
        pa.input_stream(str(path), compression="detect"), encoding="utf-8", newline="\n"
    )


class _Text:
    """The text of a document, of which only what is not read yet is in memory."""

    def __init__(self, handle: io.TextIOBase) -> None:
        self._handle, self._buffer, self._place = handle, "", 0
        self._decoder = json.JSONDecoder()

    def take(self, character: str) -> bool:
        """Skip white space and this character, if it comes next; whether it does."""
        while True:
            while self._place < len(self._buffer) and self._buffer[self._place] in _SPACE:
                self._place += 1
            if self._place < len(self._buffer) or not self._more():
                break
        found = self._buffer[self._place : self._place + 1] == character
        self._place += found
        return found

    def value(self) -> Any:
        """Read the next value.

        Raises:
            ValueError: It is no JSON.
        """
        self.take("")
        while True:
            try:
                value, end = self._decoder.raw_decode(self._buffer, self._place)
                # A number that ends with the buffer may go on.
                if end < len(self._buffer) or not self._more():
                    self._place = end
                    return value
            except ValueError:
                if not self._more():
                    raise

    def _more(self) -> bool:
        left = len(self._buffer) - self._place
        # As much again as there is, so that a long value is not decoded too often.
        more = self._handle.read(max(_READ_CHARACTERS, left))
        if more:
            self._buffer, self._place = self._buffer[self._place :] + more, 0
        return bool(more)


def _enter_field(text: _Text, name: str) -> None:
    """Skip the fields of an object before the one of a name."""
    while not text.take("}"):
        field = text.value()
        text.take(":")
        if field == name:
            return
        text.value()
        text.take(",")
    raise ValueError(f"no field {name!r}")

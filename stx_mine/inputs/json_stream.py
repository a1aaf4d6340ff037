"""The values of a JSON document, one after the other: only what is not read yet is in memory."""

import codecs
import json
from collections.abc import Iterable, Iterator
from typing import Any

_SPACE = " \t\r\n"


class JsonStream:
    """The text of a document, read from its beginning."""

    def __init__(self, blocks: Iterable[bytes], decoder: json.JSONDecoder) -> None:
        """Begin before the first value.

        Args:
            blocks: The document as UTF-8, cut anywhere.
            decoder: Decodes each value.
        """
        self._blocks, self._decoder = iter(blocks), decoder
        self._characters = codecs.getincrementaldecoder("utf-8")()
        self._text, self._place = "", 0

    def take(self, character: str) -> bool:
        """Skip white space and this character, if it comes next; whether it does."""
        while True:
            while self._place < len(self._text) and self._text[self._place] in _SPACE:
                self._place += 1
            if self._place < len(self._text) or not self._more():
                break
        found = self._text[self._place : self._place + 1] == character
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
                value, end = self._decoder.raw_decode(self._text, self._place)
                # A number that ends with the block may go on.
                if end < len(self._text) or not self._more():
                    self._place = end
                    return value
            except json.JSONDecodeError:
                if not self._more():
                    raise

    def skip(self) -> None:
        """Pass over the next value; of an array one value is in memory.

        Raises:
            ValueError: It is no JSON.
        """
        if not self.take("["):
            self.value()
            return
        for _ in self.items():
            pass

    def items(self) -> Iterator[Any]:
        """Read the values of an array, of which `[` is read already.

        Raises:
            ValueError: One is no JSON, or the array has no end.
        """
        while not self.take("]"):
            yield self.value()
            self._separate("]")

    def fields(self) -> Iterator[str]:
        """Read the names of an object, of which `{` is read already; its values are the reader's.

        Raises:
            ValueError: It is no JSON, a name stands twice, or the object has no end.
        """
        seen = set[str]()
        while not self.take("}"):
            name = self.value()
            if not isinstance(name, str) or not self.take(":"):
                raise ValueError(f"expected a name and a colon, found {str(name)[:40]!r}")
            if name in seen:
                raise ValueError(f"key {name!r} stands twice")
            seen.add(name)
            yield name
            self._separate("}")

    def end(self) -> None:
        """See that nothing follows.

        Raises:
            ValueError: Something does.
        """
        self.take("")
        if self._place < len(self._text):
            more = self._text[self._place : self._place + 40]
            raise ValueError(f"expected the end of the document, found {more!r}")

    def _separate(self, end: str) -> None:
        """Skip the comma between two values; before the end there is none."""
        if not self.take(",") and not self._is_next(end):
            raise ValueError(f"expected a comma or {end!r} after a value")

    def _is_next(self, character: str) -> bool:
        return self._text[self._place : self._place + 1] == character

    def _more(self) -> bool:
        left = self._text[self._place :]
        found = list[str]()
        # As much again as there is, so that a long value is not decoded too often.
        while sum(map(len, found)) < max(len(left), 1):
            block = next(self._blocks, None)
            if block is None:
                self._characters.decode(b"", final=True)
                break
            found.append(self._characters.decode(block))
        if any(found):
            self._text, self._place = left + "".join(found), 0
        return any(found)

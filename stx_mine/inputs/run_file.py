"""The run of another retriever: lines of ids, in the layout of TREC, ColBERT or MS MARCO."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stx_mine.errors import InputError
from stx_mine.store.small_files import found_at

_BLOCK_BYTES = 1 << 24
_LINES_SEEN = 100
_NUMBER = r"^[-+]?(\d+\.?\d*([eE][-+]?\d+)?|\.\d+([eE][-+]?\d+)?|inf|nan|Infinity|NaN)$"


class RunLayout(NamedTuple):
    """What stands where in a line.

    Attributes:
        names: Of the fields, in their order.
        passage: Place of the passage's id; that of the query comes first.
        numbers: Places of numbers, by which the layout is known.
    """

    names: str
    passage: int
    numbers: tuple[int, ...]

    @property
    def width(self) -> int:
        """How many fields a line has."""
        return len(self.names.split())


TREC = RunLayout("query Q0 passage rank score tag", 2, (3, 4))
# Its second field tells it from a run; `passage` is the place of that field here.
_QRELS = RunLayout("query 0 passage grade", 1, (3,))
_LAYOUTS = (
    TREC,
    RunLayout("query passage rank score", 1, (2, 3)),
    RunLayout("query passage rank", 1, (2,)),
)


@dataclass(frozen=True)
class RunFile:
    """A run of another retriever, maybe compressed.

    Fields are apart by spaces or tabs, as many as there are; a field may hold spaces in a line
    whose fields are apart by single tabs. Rank and score are not read: the model scores anew.

    Attributes:
        path: The file.
        layout: That of its lines.
    """

    path: Path
    layout: RunLayout

    @classmethod
    def recognise(cls, path: Path, may_be_texts: bool = False) -> "RunFile | None":
        """A file whose first line has one of the layouts; None where it has none.

        Args:
            path: The file.
            may_be_texts: Whether it may as well hold texts, in columns: the layouts of few fields
                count then only where they are those of more lines.

        Raises:
            InputError: It is missing, no text, or holds judgements (qrels).
        """
        first = next(_blocks(path, 1 << 16), (1, pa.array([], pa.large_string())))[1]
        lines = _filled(first)[1].slice(0, _LINES_SEEN)
        if len(lines) and _are_judgements(lines):
            raise InputError(
                f"expected the hits of a retriever in {path}, found judgements (qrels: "
                f"{_QRELS.names}); give a TREC run ({TREC.names})"
            )
        for layout in _LAYOUTS:
            seen = lines if may_be_texts and layout != TREC else lines.slice(0, 1)
            if len(lines) and _has(seen, layout):
                return cls(path, layout)
        return None

    @classmethod
    def open(cls, path: Path) -> "RunFile":
        """A file that is nothing but a run.

        Raises:
            InputError: It is missing, empty, or its first line has none of the layouts.
        """
        found = cls.recognise(path)
        if found is not None:
            return found
        for number, lines in _blocks(path, 1 << 16):
            numbers, filled = _filled(lines)
            if len(filled):
                raise _malformed(path, TREC, number + int(numbers[0]), filled[0].as_py())
        raise InputError(f"expected a TREC run in {path}, found an empty file; check the path")

    def batches(self) -> Iterator[tuple[pa.Array, pa.Array]]:
        """Stream ids of queries and of passages, large strings, in the order of the lines.

        Raises:
            InputError: A line has another layout than the first one; it is named by its number.
        """
        for first, block in _blocks(self.path, _BLOCK_BYTES):
            numbers, lines = _filled(block)
            spaced, *ids = _split(lines, self.layout)
            rest, left = lines.filter(pa.array(~spaced)), numbers[~spaced]
            tabbed, *ids_of_rest = _split_at_tabs(rest, self.layout)
            if not tabbed.all():
                place = int(np.argmin(tabbed))
                number = first + int(left[place])
                raise _malformed(self.path, self.layout, number, rest[place].as_py())
            order = pa.array(np.argsort(np.append(numbers[spaced], left), kind="stable"))
            queries, passages = (
                pa.concat_arrays(both).take(order) for both in zip(ids, ids_of_rest, strict=True)
            )
            yield queries, passages


def _blocks(path: Path, size: int) -> Iterator[tuple[int, pa.Array]]:
    """The lines of a file in blocks, each with the number of its first line, from 1.

    Raises:
        InputError: The file is missing, broken, or no UTF-8 text.
    """
    if not path.is_file():
        raise InputError(f"expected a run at {path}, found {found_at(path)}; check the path")
    number, rest = 1, b""
    try:
        with pa.input_stream(str(path), compression="detect") as stream:
            for part in iter(partial(stream.read, size), b""):
                whole, end, rest = (rest + part).rpartition(b"\n")
                if end:
                    lines = _lines(whole)
                    yield number, lines
                    number += len(lines)
        if rest:
            yield number, _lines(rest)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(
            f"expected a run as UTF-8 text at {path}, found something else "
            f"({' '.join(str(error).split())}); convert the file"
        ) from error


def _lines(text: bytes) -> pa.Array:
    whole = pa.array([text.removeprefix(b"\xef\xbb\xbf")], pa.large_binary())
    return pc.split_pattern(whole.cast(pa.large_string()), "\n").flatten()


def _filled(lines: pa.Array) -> tuple[NDArray[np.int64], pa.Array]:
    """Places of the lines that are not blank, and these lines."""
    blank = pc.equal(pc.binary_length(pc.ascii_trim_whitespace(lines)), 0)
    filled = ~np.asarray(blank.to_numpy(zero_copy_only=False), bool)
    return np.flatnonzero(filled), lines.filter(pa.array(filled))


def _split(lines: pa.Array, layout: RunLayout) -> tuple[NDArray[np.bool_], pa.Array, pa.Array]:
    """Which lines have a layout, apart by white space, and the ids of those: queries, passages."""
    return _ids(pc.ascii_split_whitespace(pc.ascii_trim_whitespace(lines)), layout)


def _has(lines: pa.Array, layout: RunLayout) -> bool:
    """Whether every line has a layout."""
    rest = lines.filter(pa.array(~_split(lines, layout)[0]))
    return bool(_split_at_tabs(rest, layout)[0].all())


def _split_at_tabs(
    lines: pa.Array, layout: RunLayout
) -> tuple[NDArray[np.bool_], pa.Array, pa.Array]:
    """The same for fields apart by one tab."""
    return _ids(pc.split_pattern(pc.utf8_trim(lines, characters=" \r"), "\t"), layout)


def _ids(fields: pa.Array, layout: RunLayout) -> tuple[NDArray[np.bool_], pa.Array, pa.Array]:
    fits = pc.list_value_length(fields).to_numpy(zero_copy_only=False) == layout.width
    values = fields.filter(pa.array(fits)).flatten()
    firsts = np.arange(int(fits.sum())) * layout.width

    def column(place: int) -> pa.Array:
        return pc.utf8_trim(values.take(pa.array(firsts + place)), characters=" ")

    right = np.ones(len(firsts), np.bool_)
    for place in layout.numbers:
        matched = pc.match_substring_regex(column(place), _NUMBER)
        right &= matched.to_numpy(zero_copy_only=False)
    ids = [column(place) for place in (0, layout.passage)]
    for one in ids:
        right &= pc.binary_length(one).to_numpy(zero_copy_only=False) > 0
    fits[fits] = right
    queries, passages = (one.filter(pa.array(right)) for one in ids)
    return fits, queries, passages


def _are_judgements(lines: pa.Array) -> bool:
    """Whether the second of four fields is what stands there in qrels: 0 or Q0, in every line."""
    fits, _, second = _split(lines, _QRELS)
    return bool(fits.all()) and set(second.to_pylist()) <= {"0", "Q0"}


def _malformed(path: Path, layout: RunLayout, number: int, line: str) -> InputError:
    short = line.strip() if len(line.strip()) <= 80 else line.strip()[:77] + "..."
    kind = "a TREC run" if layout == TREC else "a run"
    return InputError(
        f"expected {kind} ({layout.names}) in {path}, found {len(line.split())} fields in line "
        f"{number:,}: {short!r}; rank and score are numbers, and every line has "
        f"{layout.width} fields; fix that line"
    )

"""CSV and TSV: the separator, the quotes and the header line are read off the file and said."""

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import pyarrow as pa
import pyarrow.csv

from stx_mine.errors import InputError
from stx_mine.inputs.files import InputFile, undecodable
from stx_mine.inputs.names import is_known

_FIRST_BYTES, _BLOCK_BYTES = 1 << 22, 1 << 24
_FIRST_ROWS = 50
_SEPARATORS = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "vertical bars", " ": "spaces"}
_QUOTED = re.compile(rb'"(?:[^"]|"")*"(?=[\t\r\n]|\Z)')
_ID = re.compile(r"\s*[^\s\d]*\d\S*\s*")
_LONGEST_QUOTED = 1 << 20
_MOST_WORDS_OF_A_NAME = 4


@dataclass(frozen=True)
class DelimitedForm:
    """How the lines of a file are to be read.

    Attributes:
        delimiter: Between values; None to find out.
        quoting: `csv` where quotation marks enclose values, `none` where they are text, `auto` to
            find out.
        header: Whether the first line names the columns; None to find out.
        names: Names of the columns of a file without a header line.
        expected: Other names that a header line may hold.
    """

    delimiter: str | None = None
    quoting: str = "auto"
    header: bool | None = None
    names: tuple[str, ...] = ()
    expected: tuple[str, ...] = ()


class DelimitedFile:
    """A file of lines of values; all columns are text."""

    def __init__(self, file: InputFile, form: DelimitedForm) -> None:
        """Find out how the file is written.

        Raises:
            InputError: It cannot be told whether the first line is a header; or the names do not
                fit the number of columns.
        """
        self._file = file
        self.notes = list[str]()
        self.num_broken = dict[str, int]()
        csv.field_size_limit(_FIRST_BYTES)
        with file.stream() as stream:
            head = _text(file, stream.read(_FIRST_BYTES))
        self._delimiter = form.delimiter or self._find_delimiter(head)
        self._quoted = self._find_quoting(form.quoting)
        rows = self._first_rows(head)
        if not rows:
            raise InputError(f"{file.name} is empty; give a file with at least one row")
        has_header = self._has_header(rows, form)
        if has_header:
            self.columns = tuple(rows[0])
        elif form.names:
            if len(form.names) != len(rows[0]):
                raise InputError(
                    f"expected {len(form.names)} columns ({', '.join(form.names)}) in "
                    f"{file.name}, found {len(rows[0])} in its first line; name them all"
                )
            self.columns = form.names
        else:
            self.columns = tuple(str(place) for place in range(len(rows[0])))
        twice = sorted({name for name in self.columns if self.columns.count(name) > 1})
        if twice:
            raise InputError(
                f"expected columns of different names in {file.name}, found {twice[0]!r} twice; "
                "rename one of them"
            )
        self.has_header, self.first_rows = has_header, rows[int(has_header) :]

    @property
    def schema(self) -> pa.Schema:
        """Columns and their types."""
        return pa.schema([(name, pa.large_string()) for name in self.columns])

    def record_batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """Stream some columns.

        Raises:
            InputError: A line has another number of values, or is not UTF-8.
        """
        options = pa.csv.ConvertOptions(
            include_columns=columns,
            column_types=self.schema,
        )
        with self._file.stream() as stream:
            yield from pa.csv.open_csv(
                stream if isinstance(stream, pa.NativeFile) else pa.PythonFile(stream, "r"),
                read_options=pa.csv.ReadOptions(
                    block_size=_BLOCK_BYTES,
                    column_names=None if self.has_header else list(self.columns),
                ),
                parse_options=self._parse_options(),
                convert_options=options,
            )

    def _parse_options(self) -> pa.csv.ParseOptions:
        return pa.csv.ParseOptions(
            delimiter=self._delimiter,
            quote_char='"' if self._quoted else False,
            newlines_in_values=self._quoted,
        )

    def _find_delimiter(self, head: str) -> str:
        """The usual separator of the suffix, or that with which the first lines have columns."""
        usual = "," if self._file.suffix == ".csv" else "\t"
        fitting = [one for one in (usual, *_SEPARATORS) if one != " " and _fits(head, one)]
        if not fitting or fitting[0] == usual:
            return usual
        self.notes.append(f"its values stand between {_SEPARATORS[fitting[0]]}")
        return fitting[0]

    def _find_quoting(self, quoting: str) -> bool:
        if quoting != "auto" or self._delimiter != "\t":
            return quoting != "none"
        return _is_quoted(self._file)

    def _first_rows(self, head: str) -> list[list[str]]:
        whole = head if len(head) < _FIRST_BYTES // 4 else head[: head.rfind("\n") + 1]
        reader = csv.reader(
            io.StringIO(whole or head, newline=""),
            delimiter=self._delimiter,
            quoting=csv.QUOTE_MINIMAL if self._quoted else csv.QUOTE_NONE,
        )
        rows = list[list[str]]()
        for row in reader:
            rows += [row] if row else []
            if len(rows) > _FIRST_ROWS:
                break
        return rows

    def _has_header(self, rows: list[list[str]], form: DelimitedForm) -> bool:
        if form.header is not None or form.names:
            return form.header is True
        first = rows[0]
        if any(name in form.expected for name in first):
            return True
        wordy = [value for value in first if len(value.split()) > _MOST_WORDS_OF_A_NAME]
        known = [value for value in first if is_known(value)]
        if known and not wordy:
            return True
        # A column of ids, of which the first is one.
        has_ids = any(all(map(_ID.fullmatch, column)) for column in zip(*rows, strict=False))
        if not known and (wordy or has_ids):
            self.notes.append("its first line is a row, no header")
            return False
        shown = self._delimiter.join(first)
        raise InputError(
            f"expected a header line in {self._file.name}, found {shown[:120]!r}, which names no "
            f"column that is known; give --query-column and --passage-column (columns: "
            f"{', '.join(first)[:120]}), or --no-header if that line is a row"
            if not known
            else f"cannot tell whether the first line of {self._file.name} ({shown[:120]!r}) is a "
            "header; name one of its columns (--query-column), or give --no-header"
        )


def _text(file: InputFile, head: bytes) -> str:
    try:
        return head[: head.rfind(b"\n") + 1 or None].decode()
    except UnicodeDecodeError as error:
        raise undecodable(file.name, head, 1, error) from error


def _fits(head: str, delimiter: str) -> bool:
    """Whether the first lines have several columns, all the same number, between these."""
    reader = csv.reader(io.StringIO(head[:_LONGEST_QUOTED], newline=""), delimiter=delimiter)
    lengths = set[int]()
    try:
        for number, row in enumerate(reader):
            if row:
                lengths.add(len(row))
            if number > _FIRST_ROWS:
                break
    except csv.Error:
        return False
    return len(lengths) == 1 and lengths.pop() > 1


def _is_quoted(file: InputFile) -> bool:
    """Whether quotation marks enclose values of a TSV, as pandas and spreadsheets write them.

    They do if every value that begins with one is enclosed in them as CSV has it, and one of them
    needs it: it holds a tab, a line end or a doubled quotation mark, or all of the first line are.
    """
    needed, rest, at_start = False, b"\n", True
    for block in chain(file.blocks(_BLOCK_BYTES), [b""]):
        text, place = rest + block, 0
        rest = text[-1:]
        while (start := _next_quote(text, place)) >= 0:
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

"""CSV and TSV: the separator, the quotes and the header line are read off the file and said."""

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.csv

from stx_mine.errors import InputError
from stx_mine.inputs.files import InputFile, undecodable
from stx_mine.inputs.head_line import is_header, is_named, with_names
from stx_mine.inputs.names import is_known, plain
from stx_mine.inputs.quotation import (
    CheckedStream,
    Unclosed,
    is_closed,
    is_quoted,
    is_spaced,
    other_escape,
    values_of_lines,
    without_escapes,
)

_FIRST_BYTES, _BLOCK_BYTES = 1 << 22, 1 << 24
_FIRST_ROWS, _BLOCK_ROWS = 50, 1_024
_SEPARATORS = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "vertical bars", " ": "spaces"}
_NAMED_SEPARATORS = {"tab": "\t", "\\t": "\t", "space": " ", "comma": ",", "semicolon": ";"}
_SEPARATOR_LINE = re.compile(r'"?sep=([^\r\n])"?(\r?\n|\r)')
_TREC = re.compile(r"\S+\s+\S+\s+\S+\s+[-+]?\d+(\.\d+)?\s*")
_LONGEST_QUOTED = 1 << 20


@dataclass(frozen=True)
class DelimitedForm:
    """How the lines of a file are to be read.

    Attributes:
        delimiter: Between values; None to find out.
        quoting: `csv` where quotation marks enclose values, `backslash` where backslashes escape
            those within, `none` where they are text, `auto` to find out.
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
            InputError: It cannot be told whether the first line is a header, or how marks within
                values are written; or the names do not fit the number of columns.
        """
        self._file, self._form = file, form
        self.notes = list[str]()
        self.num_broken = dict[str, int]()
        csv.field_size_limit(_FIRST_BYTES)
        with file.stream() as stream:
            head = _text(file, stream.read(_FIRST_BYTES))
        separator = _SEPARATOR_LINE.match(head)
        self._skipped = int(separator is not None)
        asked = _delimiter(form)
        if separator:
            head = head[separator.end() :]
            asked = asked or separator[1]
            self.notes.append(f"its first line names its separator, {separator[1]!r}")
        self._delimiter = asked or self._find_delimiter(head)
        self._quoted = self._delimiter != " " and self._find_quoting(form.quoting)
        self._escaped = self._quoted and self._is_escaped(head)
        self._spaced = self._is_spaced(head)
        rows = list(islice(self._rows_of(head, self._spaced), _FIRST_ROWS + 1))
        if not rows:
            raise InputError(f"{file.name} is empty; give a file with at least one row")
        self.has_header = self._has_header(rows)
        self.columns = self._names(rows[0])

    @property
    def schema(self) -> pa.Schema:
        """Columns and their types."""
        return pa.schema([(name, pa.large_string()) for name in self.columns])

    def record_batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """Stream some columns.

        Raises:
            InputError: A line has another number of values, is not UTF-8, or a quotation mark in
                it opens a value and none closes it.
        """
        if self._escaped or self._spaced or self._delimiter == " ":
            yield from self._odd_batches(columns)
            return
        options = pa.csv.ConvertOptions(include_columns=columns, column_types=self.schema)
        try:
            with self._file.stream() as stream:
                source: Any = CheckedStream(stream, self._delimiter) if self._quoted else stream
                yield from pa.csv.open_csv(
                    source if isinstance(source, pa.NativeFile) else pa.PythonFile(source, "r"),
                    read_options=pa.csv.ReadOptions(
                        block_size=_BLOCK_BYTES,
                        skip_rows=self._skipped,
                        skip_rows_after_names=int(self.has_header),
                        column_names=list(self.columns),
                    ),
                    parse_options=self._parse_options(),
                    convert_options=options,
                )
        except Unclosed as error:
            raise self._unclosed(error) from error

    def _parse_options(self) -> pa.csv.ParseOptions:
        return pa.csv.ParseOptions(
            delimiter=self._delimiter,
            quote_char='"' if self._quoted else False,
            newlines_in_values=self._quoted,
        )

    def _odd_batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """Stream what is written in a way that Arrow does not know."""
        places = [self.columns.index(name) for name in columns]
        rows = values_of_lines(self._lines(), self._delimiter, self._spaced)
        rows = islice(rows, int(self.has_header), None)
        try:
            while block := list(islice(rows, _BLOCK_ROWS)):
                for line, row in block:
                    if len(row) != len(self.columns):
                        raise InputError(
                            f"expected {len(self.columns)} columns in line {line:,} of "
                            f"{self._file.name}, found {len(row)}; fix that row"
                        )
                arrays = [
                    pa.array([row[place] for _, row in block], pa.large_string())
                    for place in places
                ]
                yield pa.RecordBatch.from_arrays(arrays, names=columns)
        except csv.Error as error:
            raise self._unclosed(Unclosed(-1)) from error

    def _lines(self) -> Iterator[str]:
        """The lines, with their ends, in which only doubled marks stand within values."""
        rest, skipped = b"", self._skipped
        for block in self._file.blocks(_BLOCK_BYTES):
            *lines, rest = (rest + block).split(b"\n")
            yield from (self._plain_line(line + b"\n") for line in lines[skipped:])
            skipped = max(0, skipped - len(lines))
        if rest:
            yield self._plain_line(rest)

    def _plain_line(self, line: bytes) -> str:
        text = line.decode()
        if not self._escaped:
            return text
        if self._form.quoting == "auto" and (found := other_escape(text)):
            raise self._unclear_escape(found)
        return without_escapes(text)

    def _unclear_escape(self, found: str) -> InputError:
        return InputError(
            f"cannot tell what {found!r} means in {self._file.name}, in which backslashes escape "
            "quotation marks; give --quoting backslash if it is text as it stands"
        )

    def _unclosed(self, error: Unclosed) -> InputError:
        where = f"a value of {self._file.name}"
        if error.place >= 0:
            with self._file.stream() as stream:
                before = stream.read(error.place + 1)
                start = bytes(stream.read(60)).split(b"\n", 1)[0].decode(errors="replace")
            where = f'line {before.count(10) + 1:,} of {self._file.name} (at "{start})'
        return InputError(
            f"a quotation mark opens a value in {where} that none closes before a separator or the "
            "end of the line; close it and double the marks within it, or give --quoting none if "
            "marks are text in all of the file, or --quoting backslash if backslashes escape them"
        )

    def _find_delimiter(self, head: str) -> str:
        """The usual separator of the suffix, or that with which the first lines have columns."""
        usual = "," if self._file.suffix == ".csv" else "\t"
        fitting = [one for one in (usual, *_SEPARATORS) if one != " " and _fits(head, one)]
        if not fitting and usual == "\t" and is_trec(head):
            fitting = [" "]
        if not fitting or fitting[0] == usual:
            return usual
        self.notes.append(f"its values stand between {_SEPARATORS[fitting[0]]}")
        return fitting[0]

    def _find_quoting(self, quoting: str) -> bool:
        if quoting != "auto" or self._delimiter != "\t":
            return quoting != "none"
        return is_quoted(self._file.blocks(_BLOCK_BYTES))

    def _is_escaped(self, head: str) -> bool:
        """Whether backslashes escape the marks within values."""
        if self._form.quoting != "auto":
            return self._form.quoting == "backslash"
        if '\\"' not in head or is_closed(head, self._delimiter):
            return False
        if not is_closed(without_escapes(head), self._delimiter):
            return False
        if found := other_escape(head):
            raise self._unclear_escape(found)
        self.notes.append("backslashes escape the quotation marks within its values")
        return True

    def _is_spaced(self, head: str) -> bool:
        """Whether spaces stand before marks that enclose values."""
        spaced = re.compile(re.escape(self._delimiter) + ' +"')
        if not self._quoted or not spaced.search(head):
            return False
        if not is_spaced(self._rows_of(head, spaced=False)):
            return False
        try:
            lengths = {len(row) for row in self._rows_of(head, spaced=True)}
        except csv.Error:
            return False
        if len(lengths) == 1:
            self.notes.append("spaces before a quotation mark that opens a value are left out")
        return len(lengths) == 1

    def _rows_of(self, head: str, spaced: bool) -> Iterator[list[str]]:
        whole = head if len(head) < _FIRST_BYTES // 4 else head[: head.rfind("\n") + 1]
        text = without_escapes(whole or head) if self._escaped else whole or head
        if self._delimiter == " ":
            return (row for _, row in values_of_lines(text.splitlines(), " ", False))
        reader = csv.reader(
            io.StringIO(text, newline=""),
            delimiter=self._delimiter,
            quoting=csv.QUOTE_MINIMAL if self._quoted else csv.QUOTE_NONE,
            skipinitialspace=spaced,
            strict=spaced,
        )
        return (row for row in reader if row)

    def _has_header(self, rows: list[list[str]]) -> bool:
        """Whether the first line is one of names.

        Raises:
            InputError: It cannot be told.
        """
        form, first = self._form, rows[0]
        if form.names:
            # The names of a header line that the user names otherwise are no row.
            same = {plain(name) for name in form.names} & set(map(plain, first))
            known = bool(same) or all(map(is_known, first)) or is_named(rows)
            if known and form.header is None:
                self.notes.append("its first line is a header line, whose names are not used")
            return known and form.header is None
        if form.header is not None:
            return form.header
        found = is_header(rows, form.expected)
        if found is False:
            self.notes.append("its first line is a row, no header")
        if found is not None:
            return found
        shown = self._delimiter.join(first)[:120]
        columns = ", ".join(first)[:120]
        if any(map(is_known, first)):
            raise InputError(
                f"cannot tell whether the first line of {self._file.name} ({shown!r}) is a "
                "header; name one of its columns (--query-column), or give --no-header"
            )
        asked = ", ".join(map(repr, form.expected)) if len(form.expected) < 4 else ""
        raise InputError(
            f"expected a header line in {self._file.name}"
            + (f" with {asked}" if asked else "")
            + f", found {shown!r}, which names no column that is known; give --query-column and "
            f"--passage-column (columns: {columns}), or --no-header if that line is a row"
            + (", or --delimiter if it has several columns" if len(first) == 1 else "")
        )

    def _names(self, first: list[str]) -> tuple[str, ...]:
        if not self._form.names:
            places = tuple(str(place) for place in range(1, len(first) + 1))
            return with_names(first) if self.has_header else places
        names = self._form.names
        if len(names) != len(first):
            raise InputError(
                f"expected {len(names)} columns ({', '.join(names)}) in {self._file.name}, found "
                f"{len(first)} in its first line; name them all"
            )
        return names


def is_trec(head: str) -> bool:
    """Whether the first lines are judgements of TREC: query, iteration, document, grade."""
    lines = [line for line in head.splitlines()[:_FIRST_ROWS] if line.strip()]
    return bool(lines) and all(map(_TREC.fullmatch, lines))


def _delimiter(form: DelimitedForm) -> str | None:
    if form.delimiter is None:
        return None
    found = _NAMED_SEPARATORS.get(form.delimiter, form.delimiter)
    if len(found) != 1 or not found.isascii() or found in '"\r\n':
        raise InputError(
            f"expected one character for --delimiter, found {form.delimiter!r}; give one, tab or "
            "space"
        )
    return found


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

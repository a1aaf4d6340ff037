"""A file of named columns as a stream of text columns, whatever its format.

A format is a class in a module of its own, and its suffixes in `FORMATS`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from stx_mine.errors import InputError
from stx_mine.inputs.delimited import DelimitedFormat
from stx_mine.inputs.json_lines import JsonLinesFormat
from stx_mine.inputs.parquet import ParquetFormat


class Format(Protocol):
    """Reads files of one format."""

    def column_names(self, path: Path) -> tuple[str, ...]:
        """Names of the columns, in their order."""

    def column_kinds(self, path: Path) -> dict[str, str]:
        """Column -> `text`, `texts` (lists of it) or `other`."""

    def record_batches(self, path: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """Stream some columns; a column that is missing is null."""


FORMATS: dict[str, Format] = {
    ".parquet": ParquetFormat(),
    ".jsonl": JsonLinesFormat(),
    ".ndjson": JsonLinesFormat(),
    ".csv": DelimitedFormat(),
    ".tsv": DelimitedFormat(),
}
_COMPRESSIONS = (".gz", ".zst", ".bz2")


@dataclass(frozen=True)
class ColumnFile:
    """A file of named columns, in one of `FORMATS`.

    Attributes:
        path: The file.
        kind: Its suffix in `FORMATS`.
        columns: Names of its columns, in their order.
    """

    path: Path
    kind: str
    columns: tuple[str, ...]

    @classmethod
    def open(cls, path: str | Path) -> "ColumnFile":
        """Recognise a file by its name and read its column names.

        Raises:
            InputError: It is missing, empty or of an unknown kind.
        """
        path = Path(path)
        if not path.is_file():
            what = "a folder" if path.is_dir() else "nothing"
            raise InputError(f"expected a file at {path}, found {what}; check the path")
        kind = _kind(path)
        if kind not in FORMATS:
            raise InputError(
                f"expected one of {', '.join(FORMATS)} (text also with .gz, .zst, .bz2), "
                f"found {path.name}; rename or convert the file"
            )
        if path.stat().st_size == 0:
            raise InputError(f"{path} is empty; give a file with at least one row")
        try:
            columns = FORMATS[kind].column_names(path)
        except (pa.ArrowInvalid, pa.ArrowKeyError, ValueError, OSError) as error:
            raise InputError(
                f"expected {kind[1:]} in {path}, found something else ({one_line(error)})"
            ) from error
        return cls(path, kind, columns)

    def pick(self, name: str | None, position: int, option: str) -> str:
        """A column by its name, or by its position where no name is given.

        Raises:
            InputError: There is no such column; the message lists those there are.
        """
        if name is not None and name not in self.columns:
            raise InputError(
                f"{option} {name!r} is not a column of {self.path}; "
                f"its columns are {', '.join(self.columns)}"
            )
        if name is None and position >= len(self.columns):
            raise InputError(
                f"expected at least {position + 1} columns in {self.path}, found "
                f"{len(self.columns)} ({', '.join(self.columns)}); name the right file"
            )
        return name if name is not None else self.columns[position]

    def column_kinds(self) -> dict[str, str]:
        """Column -> `text`, `texts` (lists of it) or `other`, as far as can be seen."""
        return FORMATS[self.kind].column_kinds(self.path)

    def batches(self, columns: list[str]) -> Iterator[list[pa.Array]]:
        """Stream the asked-for columns as large strings; nulls stay null.

        Raises:
            InputError: A column holds something else than text or numbers, or a row is broken.
        """
        try:
            for batch in FORMATS[self.kind].record_batches(self.path, columns):
                yield [self._as_text(batch.column(name), name) for name in columns]
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
            raise InputError(f"cannot read {self.path}: {one_line(error)}; fix that row") from error

    def _as_text(self, array: pa.Array, name: str) -> pa.Array:
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        kind = array.type
        texts = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        if not (texts or pa.types.is_null(kind) or pa.types.is_integer(kind)):
            raise InputError(f"expected text in column {name!r} of {self.path}, found {kind}")
        return array.cast(pa.large_string())


def is_column_file(path: Path) -> bool:
    """Whether a path is a visible file of a kind that `ColumnFile` reads."""
    return path.is_file() and not path.name.startswith(".") and _kind(path) in FORMATS


def _kind(path: Path) -> str:
    suffixes = [suffix for suffix in path.suffixes if suffix not in _COMPRESSIONS]
    return suffixes[-1] if suffixes else ""


def one_line(error: Exception) -> str:
    """The message of an error without line breaks."""
    return " ".join(str(error).split())

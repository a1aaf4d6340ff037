"""A file of named columns as a stream of arrays, whatever its format.

A format is a class in a module of its own, and its suffixes in `FORMATS`.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from stx_mine.errors import InputError, one_line
from stx_mine.inputs.arrow_files import ArrowTable, ParquetTable
from stx_mine.inputs.blocks import within_bytes
from stx_mine.inputs.class_labels import LabeledTable
from stx_mine.inputs.delimited import DelimitedFile, DelimitedForm, is_trec
from stx_mine.inputs.files import (
    UNREADABLE,
    InputFile,
    is_visible,
    refuse_unlike_name,
    suffix_of,
)
from stx_mine.inputs.format import Format
from stx_mine.inputs.json_document import open_json
from stx_mine.inputs.names import plain
from stx_mine.inputs.spaced import SPACED, SpacedFile
from stx_mine.store.files import checksum

FORMATS: dict[str, Callable[[InputFile, DelimitedForm], Format]] = {
    ".parquet": lambda file, form: LabeledTable(ParquetTable(file), file.name),
    ".jsonl": lambda file, form: open_json(file),
    ".ndjson": lambda file, form: open_json(file),
    ".json": lambda file, form: open_json(file),
    ".csv": DelimitedFile,
    ".tsv": DelimitedFile,
    ".arrow": lambda file, form: LabeledTable(ArrowTable(file), file.name),
    ".feather": lambda file, form: LabeledTable(ArrowTable(file), file.name),
    **dict.fromkeys(SPACED, lambda file, form: SpacedFile(file)),
}
# Suffixes of files that are read only where they hold judgements.
_OF_JUDGEMENTS = ("", ".txt")
_OWN_FORM = DelimitedForm()


@dataclass(frozen=True)
class ColumnFile:
    """A file of named columns, in one of `FORMATS`; or several that are one table.

    Attributes:
        name: As messages name it.
        files: At least one.
        schema: The columns of all files, in the order of first appearance.
        formats: How each file is read.
        remarks: What is to be said of the choice of files.
    """

    name: str
    files: tuple[InputFile, ...]
    schema: pa.Schema
    formats: tuple[Format, ...]
    remarks: tuple[str, ...] = ()

    @classmethod
    def open(
        cls, path: str | Path, form: DelimitedForm = _OWN_FORM, encoding: str | None = None
    ) -> "ColumnFile":
        """Recognise a file by its name and read its column names.

        Args:
            path: The file, or a zip of files that are one table.
            form: How CSV and TSV are to be read.
            encoding: Of its text; None for UTF-8.

        Raises:
            InputError: It is missing, empty or of an unknown kind.
        """
        return cls.of_files(str(path), InputFile.open(Path(path), encoding), form)

    @classmethod
    def of_files(
        cls,
        name: str,
        files: Sequence[InputFile],
        form: DelimitedForm = _OWN_FORM,
        remarks: tuple[str, ...] = (),
    ) -> "ColumnFile":
        """Several files as one table, in their order; with what is to be said of them.

        Raises:
            InputError: One is of an unknown kind or malformed, or a column differs in its kind.
        """
        if not files:
            raise InputError(f"expected files in {name}, found none; check the path")
        formats = tuple(_format(file, form) for file in files)
        fields = dict[str, pa.DataType]()
        for one in formats:
            for column in one.schema:
                known = fields.get(column.name)
                if known is None or pa.types.is_null(known):
                    fields[column.name] = column.type
        if len({suffix_of(Path(file.member or file.path.name)) for file in files}) > 1:
            shown = ", ".join(sorted(file.name for file in files)[:4])
            raise InputError(
                f"expected files of one kind in {name}, found several ({shown} ...); give one of "
                "them, or a pattern that fits files of one kind, as in 'folder/*.parquet'"
            )
        _refuse_unlike(name, files, formats)
        return cls(name, tuple(files), pa.schema(list(fields.items())), formats, remarks)

    def with_labels(self, names: Mapping[str, list[str]]) -> "ColumnFile":
        """The same table, in which the numbers of labels are read as their names.

        Args:
            names: Column -> the names of its labels, by their number.
        """
        if not names.keys() & self.schema.names:
            return self
        formats = tuple(
            LabeledTable(one, file.name, names)
            for file, one in zip(self.files, self.formats, strict=True)
        )
        fields = {column.name: column for one in formats for column in one.schema}
        schema = pa.schema([fields.get(one.name, one) for one in self.schema])
        return replace(self, schema=schema, formats=formats)

    @property
    def path(self) -> Path:
        """The first file."""
        return self.files[0].path

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of its columns, in their order."""
        return tuple(self.schema.names)

    @property
    def has_names(self) -> bool:
        """Whether the file names its columns; if not, they are called `0`, `1` ..."""
        return any(not name.isdigit() for name in self.columns)

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What was guessed of the files, each once."""
        of_formats = (note for one in self.formats for note in one.notes)
        return tuple(dict.fromkeys((*self.remarks, *of_formats)))

    @property
    def num_broken(self) -> int:
        """Texts that are no Unicode, in the columns that were streamed last."""
        return sum(sum(one.num_broken.values()) for one in self.formats)

    def column(self, name: str, flag: str) -> str:
        """The column of this name.

        Args:
            name: Its name.
            flag: The option that names it.

        Raises:
            InputError: There is no such column; the message lists those there are.
        """
        if name not in self.columns:
            near = [one for one in self.columns if plain(one) == plain(name)]
            near = near or get_close_matches(name, self.columns, 1)
            meant = f"; did you mean {near[0]!r}?" if near else ""
            raise InputError(
                f"{flag} {name!r} is not a column of {self.name}; "
                f"its columns are {', '.join(self.columns)}{meant}"
            )
        return name

    def column_kinds(self) -> dict[str, str]:
        """Column -> `text`, `texts` (lists of it) or `other`, as far as can be seen."""
        return {column.name: arrow_kind(column.type) for column in self.schema}

    def arrays(self, columns: Sequence[str]) -> Iterator[list[pa.Array]]:
        """Stream some columns as they are, the same one as often as it is named.

        A block ends where these columns are many bytes: of other columns the blocks are others.

        Raises:
            InputError: A row is broken.
        """
        distinct = list(dict.fromkeys(columns))
        for file, one in zip(self.files, self.formats, strict=True):
            there = [name for name in distinct if name in one.schema.names]
            try:
                # A file without any of them has rows all the same.
                for batch in one.record_batches(there or one.schema.names[:1]):
                    whole = [
                        batch.column(name) if name in there else pa.nulls(batch.num_rows)
                        for name in columns
                    ]
                    yield from within_bytes(whole)
            except UNREADABLE as error:
                raise InputError(
                    f"cannot read {file.name}: {one_line(error)}; {_way_out(file, error)}"
                ) from error

    def batches(self, columns: list[str]) -> Iterator[list[pa.Array]]:
        """Stream the asked-for columns as large strings; nulls stay null.

        Raises:
            InputError: A column holds something else than text or numbers, or a row is broken.
        """
        for arrays in self.arrays(columns):
            yield [
                as_text(array, f"column {name!r} of {self.name}")
                for name, array in zip(columns, arrays, strict=True)
            ]


def file_checksum(file: ColumnFile) -> str:
    """The checksum of a file; of several, that of theirs."""
    sums = [checksum(path) for path in dict.fromkeys(one.path for one in file.files)]
    return sums[0] if len(sums) == 1 else "-".join(sums)


def as_text(array: pa.Array, where: str, strict: bool = False) -> pa.Array:
    """Texts and numbers as large strings; nulls stay null.

    Args:
        array: The values.
        where: What messages call them.
        strict: Whether only texts, whole numbers and times are taken.

    Raises:
        InputError: The array holds something else, or bytes that are no UTF-8.
    """
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    kind = array.type
    if pa.types.is_large_string(kind):
        return array
    unlike_text = pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    if pa.types.is_nested(kind) or (strict and unlike_text):
        raise InputError(f"expected text in {where}, found {kind}; name another column")
    try:
        if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
            return array.cast(pa.string()).cast(pa.large_string())
        return pc.cast(array, pa.large_string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(
            f"expected text in {where}, found {kind} that is none ({one_line(error)}); name "
            "another column"
        ) from error


def arrow_kind(kind: pa.DataType) -> str:
    """What a column of an Arrow type holds: `text`, `texts` or `other`."""
    if is_list(kind):
        return "texts" if arrow_kind(kind.value_type) == "text" else "other"
    if pa.types.is_dictionary(kind):
        return arrow_kind(kind.value_type)
    return "text" if is_text(kind) or pa.types.is_null(kind) else "other"


def is_text(kind: pa.DataType) -> bool:
    """Whether a type is one of text, or of bytes that may be text."""
    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    tests = (
        pa.types.is_string,
        pa.types.is_large_string,
        pa.types.is_string_view,
        pa.types.is_binary,
        pa.types.is_large_binary,
        pa.types.is_binary_view,
    )
    return any(test(kind) for test in tests)


def is_list(kind: pa.DataType) -> bool:
    """Whether a type is one of lists."""
    tests = (
        pa.types.is_list,
        pa.types.is_large_list,
        pa.types.is_fixed_size_list,
        pa.types.is_list_view,
        pa.types.is_large_list_view,
    )
    return any(test(kind) for test in tests)


def is_column_file(path: Path) -> bool:
    """Whether a path is a visible file of a kind that `ColumnFile` reads."""
    return path.is_file() and is_visible(Path(path.name)) and suffix_of(path) in FORMATS


def _refuse_unlike(name: str, files: Sequence[InputFile], formats: Sequence[Format]) -> None:
    """Refuse files that are no parts of one table; objects of JSON may lack any key."""
    first = set(formats[0].schema.names)
    is_json = files[0].suffix in (".jsonl", ".ndjson", ".json")
    for file, one in zip(files, formats, strict=True):
        names = set(one.schema.names)
        if names != first and not (is_json and names & first):
            raise InputError(
                f"the files of {name} differ in their columns: {files[0].name} has "
                f"{', '.join(formats[0].schema.names)}, {file.name} has "
                f"{', '.join(one.schema.names)}; give one of them, or a pattern that fits files of "
                f"the same columns, as in 'folder/train-*{file.suffix}'"
            )


def _format(file: InputFile, form: DelimitedForm) -> Format:
    read = FORMATS.get(file.suffix)
    if read is None and file.suffix in _OF_JUDGEMENTS and is_trec(file.head()):
        read = FORMATS[".trec"]
    if read is None:
        raise InputError(
            f"expected one of {', '.join(FORMATS)} (text also with .gz, .zst, .bz2, all in .zip), "
            f"found {Path(file.name).name}; rename or convert the file"
        )
    refuse_unlike_name(file)
    try:
        found = read(file, form)
    except (*UNREADABLE, ValueError, RecursionError) as error:
        raise InputError(
            f"expected {file.suffix[1:]} in {file.name}, found something else ({one_line(error)}); "
            f"{_way_out(file, error)}"
        ) from error
    if not found.schema.names:
        raise InputError(f"expected columns in {file.name}, found none; check the file")
    name, times = Counter(found.schema.names).most_common(1)[0]
    if times > 1:
        raise InputError(
            f"expected columns of different names in {file.name}, found {name!r} twice; rename "
            "one of them"
        )
    return found


def _way_out(file: InputFile, error: BaseException) -> str:
    """What to do about a file that a library cannot read."""
    if isinstance(error, UnicodeError) and file.encoding:
        return f"give another --encoding than {file.encoding}, or leave it out"
    if "UTF8" in str(error):
        return "give --encoding cp1252, latin-1 or what the file was written in"
    if file.is_compressed:
        return "it is cut short or no such archive: write or fetch it again"
    return "fix that row" if "row" in str(error).lower() else "write it again or convert it"

"""A column of texts or ids: one a row, lists of them, or fields of structs, as flat streams."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stx_mine.errors import InputError
from stx_mine.inputs.column_file import ColumnFile, as_text, is_list

# Which values of a list are meant.
Part = Literal["all", "first", "rest", "second", "others"]


@dataclass(frozen=True)
class TextBlock:
    """Texts of some rows.

    Attributes:
        texts: Large strings (N,), with their titles; null for a missing one.
        ids: Large strings (N,) ids in their source; null where there is none.
        titles: Large strings (N,); null where there is none.
        languages: Large strings (N,); null where it is unknown.
        lengths: int64 (rows,) texts of each row; None where each has one.
    """

    texts: pa.Array
    ids: pa.Array
    titles: pa.Array
    languages: pa.Array
    lengths: NDArray[np.int64] | None


@dataclass(frozen=True)
class IdColumn:
    """Ids in a column.

    Attributes:
        file: The table.
        column: The column: ids, lists of them, or structs with a field of them.
        field: The field of the structs; empty where there are none.
        part: Which values of a list are meant.
    """

    file: ColumnFile
    column: str
    field: str = ""
    part: Part = "all"

    @property
    def is_list(self) -> bool:
        """Whether its cells are lists."""
        return is_list(self.file.schema.field(self.column).type)

    @property
    def read(self) -> tuple[str, ...]:
        """The columns that are read."""
        return (self.column,)

    def blocks(self) -> Iterator[tuple[pa.Array, NDArray[np.int64] | None]]:
        """Stream ids as large strings, and how many of them each row has (None: one).

        Raises:
            InputError: The column holds something else, or a row is broken.
        """
        for arrays in self.file.arrays(self.read):
            yield self.block(arrays)

    def block(self, arrays: Sequence[pa.Array]) -> tuple[pa.Array, NDArray[np.int64] | None]:
        """The same of some rows, of which these are the columns `read`."""
        values, lengths = flat_values(arrays[0], self.part)
        values = _field(values, self.field)
        return as_text(values, f"column {self.column!r} of {self.file.name}"), lengths


@dataclass(frozen=True)
class TextColumn:
    """Texts in a column, with what stands beside them.

    Attributes:
        file: The table.
        column: The column: texts, lists of them, or structs with a field of them.
        field: The field of the structs that holds the text; empty where there are none.
        id_field: The field of ids; empty for none.
        title_field: The field of titles, which become a part of the text; empty for none.
        id_column: Another column, of ids; empty for none.
        title_column: Another column, of titles; empty for none.
        language_column: Another column, of languages; empty for none.
        part: Which values of a list are meant.
    """

    file: ColumnFile
    column: str
    field: str = ""
    id_field: str = ""
    title_field: str = ""
    id_column: str = ""
    title_column: str = ""
    language_column: str = ""
    part: Part = "all"

    @property
    def beside(self) -> tuple[str, ...]:
        """The other columns that are read."""
        return tuple(filter(None, (self.id_column, self.title_column, self.language_column)))

    @property
    def read(self) -> tuple[str, ...]:
        """The columns that are read."""
        return self.column, *self.beside

    @property
    def other_fields(self) -> list[str]:
        """The fields of its structs that are not read, each as `column.field`."""
        kind = self.file.schema.field(self.column).type
        while is_list(kind):
            kind = kind.value_type
        read = (self.field, self.id_field, self.title_field)
        names = [one.name for one in kind] if pa.types.is_struct(kind) else []
        return [f"{self.column}.{name}" for name in names if name not in read]

    def blocks(self, titles: bool = True) -> Iterator[TextBlock]:
        """Stream the texts.

        Args:
            titles: Whether titles are a part of the texts.

        Raises:
            InputError: The column holds something else, or a row is broken.
        """
        for arrays in self.file.arrays(self.read):
            yield self.block(arrays, titles)

    def block(self, arrays: Sequence[pa.Array], titles: bool = True) -> TextBlock:
        """The texts of some rows.

        Args:
            arrays: The columns `read` of these rows.
            titles: Whether titles are a part of the texts.

        Raises:
            InputError: A column holds something else.
        """
        where = f"column {self.column!r} of {self.file.name}"
        beside = dict(zip(self.beside, arrays[1:], strict=True))
        values, lengths = flat_values(arrays[0], self.part)
        fields = {name: _field(values, name) for name in (self.id_field, self.title_field)}
        of_texts = _field(values, self.field)
        if pa.types.is_temporal(of_texts.type):
            raise InputError(f"expected text in {where}, found times; name another column")
        texts = as_text(of_texts, where, strict=True)
        blank = pa.nulls(len(texts), pa.large_string())
        ids = as_text(fields[self.id_field], where) if self.id_field else blank
        named = as_text(fields[self.title_field], where) if self.title_field else blank
        if self.id_column:
            ids = self._beside(beside[self.id_column], self.id_column, lengths, len(texts))
        if self.title_column:
            named = self._beside(beside[self.title_column], self.title_column, lengths, len(texts))
        languages = blank
        if self.language_column:
            languages = self._beside(
                beside[self.language_column], self.language_column, lengths, len(texts)
            )
        if titles and (self.title_field or self.title_column):
            texts, named = with_titles(texts, named)
        return TextBlock(texts, ids, named, languages, lengths)

    def _beside(
        self, array: pa.Array, name: str, lengths: NDArray[np.int64] | None, num_texts: int
    ) -> pa.Array:
        """The values of another column, one a text."""
        values, own = flat_values(array, self.part)
        if own is None and lengths is not None:
            values = values.take(pa.array(np.repeat(np.arange(len(array)), lengths)))
        elif own is not None and not np.array_equal(
            own, np.ones(len(array), np.int64) if lengths is None else lengths
        ):
            raise InputError(
                f"expected as many values in {name!r} as in {self.column!r} of each row of "
                f"{self.file.name}, found others; leave the column {name!r} out"
            )
        assert len(values) == num_texts, (len(values), num_texts)
        return as_text(values, f"column {name!r} of {self.file.name}")


def with_titles(texts: pa.Array, titles: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Title, a space, text; either alone where the other is missing or empty.

    Returns:
        The joined texts; and the titles, null where there is none.
    """
    titles, texts = pc.fill_null(titles, ""), pc.fill_null(texts, "")
    space = pa.scalar(" ", pa.large_string())
    joined = pc.binary_join_element_wise(titles, texts, space)
    with_title = pc.if_else(pc.equal(texts, ""), titles, joined)
    untitled = pc.equal(titles, "")
    named = pc.if_else(untitled, pa.scalar(None, pa.large_string()), titles)
    return pc.if_else(untitled, texts, with_title), named


def flat_values(array: pa.Array, part: Part = "all") -> tuple[pa.Array, NDArray[np.int64] | None]:
    """The values of lists, however deep, one after the other; and how many each row has.

    Returns:
        The values, and int64 (rows,); None where the array holds no lists.
    """
    if pa.types.is_struct(array.type) and _is_struct_of_lists(array.type):
        array = _lists_of_structs(array)
    lengths: NDArray[np.int64] | None = None
    while is_list(array.type):
        own = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
        own = own.astype(np.int64)
        array = pc.list_flatten(array)
        if lengths is None:
            lengths = own
        else:
            ends = np.concatenate([[0], np.cumsum(own)])
            borders = np.concatenate([[0], np.cumsum(lengths)])
            lengths = ends[borders[1:]] - ends[borders[:-1]]
    if lengths is None:
        return array, None
    if part == "all":
        return array, lengths
    starts = np.cumsum(lengths) - lengths
    if part in ("first", "second"):
        # One a row, as a column of single values: null where the list is too short.
        place = int(part == "second")
        places = np.where(lengths > place, starts + place, 0)
        return array.take(pa.array(places, mask=lengths <= place)), None
    skipped = 2 if part == "others" else 1
    is_skipped = np.arange(len(array)) - np.repeat(starts, lengths) < skipped
    return array.filter(pa.array(~is_skipped)), np.maximum(lengths - skipped, 0)


def _is_struct_of_lists(kind: pa.DataType) -> bool:
    """Whether a type is what `datasets` made of lists of structs for years."""
    return kind.num_fields > 0 and all(is_list(one.type) for one in kind)


def _lists_of_structs(array: pa.Array) -> pa.Array:
    names = [one.name for one in array.type]
    parts = [pc.struct_field(array, name) for name in names]
    lengths = [pc.fill_null(pc.list_value_length(part), 0) for part in parts]
    offsets = np.concatenate([[0], np.cumsum(lengths[0].to_numpy(zero_copy_only=False))])
    if any(not one.equals(lengths[0]) for one in lengths[1:]):
        raise pa.ArrowInvalid("lists of different lengths in one row")
    structs = pa.StructArray.from_arrays([pc.list_flatten(part) for part in parts], names)
    return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), structs)


def _field(values: pa.Array, name: str) -> pa.Array:
    if not name:
        return values
    if pa.types.is_null(values.type):
        return values
    return pc.struct_field(values, name)

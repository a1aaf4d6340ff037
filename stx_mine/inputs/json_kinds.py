"""What JSON values hold: the kind of each column over all rows, and rows as Arrow arrays of it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

# A struct of more fields is not read: its keys are data.
_MOST_FIELDS, _MOST_LEVELS = 64, 32
_SCALARS = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.large_string()}


@dataclass(frozen=True)
class JsonKind:
    """What the values of a column are, as far as they are known.

    Attributes:
        type: Their Arrow type, whole numbers and texts for themselves; null where all are missing.
        strict: Whether Arrow reads them as that type and gives each number as it stands.
    """

    type: pa.DataType = field(default_factory=pa.null)
    strict: bool = True

    @property
    def read_type(self) -> pa.DataType:
        """The type with which Arrow reads them: text where only missing values are known."""
        return _with_text(self.type)

    def filled(self, values: pa.Array) -> "JsonKind":
        """The same, known to be text where these values, read as `read_type`, are not missing."""
        return JsonKind(_filled(self.type, values), self.strict)

    @property
    def text_type(self) -> pa.DataType:
        """The same type with text in place of numbers and truth values."""
        return _with_text(self.type, everywhere=True)


_KINDS = {one: JsonKind(kind, one is not float) for one, kind in _SCALARS.items()}
_LISTS = {one: JsonKind(pa.list_(kind.type), kind.strict) for one, kind in _KINDS.items()}


def kinds_of(
    rows: Iterable[Mapping[str, Any]], known: Mapping[str, JsonKind]
) -> dict[str, JsonKind]:
    """The kinds of the columns of some more rows, in the order of first appearance.

    Args:
        rows: JSON objects.
        known: The kinds of the rows before.

    Raises:
        ValueError: A value is nested too deep.
    """
    kinds = dict(known)
    for row in rows:
        for name, value in row.items():
            kinds[name] = _joined(kinds.get(name, JsonKind()), _kind(value))
    return kinds


def _column_of(values: Sequence[Any], wanted: pa.DataType) -> tuple[pa.Array, int]:
    """Values of JSON as an array of their text type.

    Args:
        values: Read with numbers as the text that stands in the file.
        wanted: A text type.

    Returns:
        The array; and how many of its texts are no Unicode (a surrogate stands alone in them), so
        that null stands for them.
    """
    fitted = [_fitted(value, wanted) for value in values]
    try:
        return pa.array(fitted, wanted), 0
    except UnicodeEncodeError:
        broken = [0]
        cleaned = [_cleaned(value, broken) for value in fitted]
        return pa.array(cleaned, wanted), broken[0]


def schema_of(kinds: Mapping[str, JsonKind]) -> pa.Schema:
    """Columns and their types."""
    return pa.schema([(name, kind.type) for name, kind in kinds.items()])


def batch_of(
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    kinds: Mapping[str, JsonKind],
    broken: dict[str, int],
) -> pa.RecordBatch:
    """Some columns of rows as their text types; a key that a row lacks is null.

    Args:
        rows: Read with numbers as the text that stands in the file.
        columns: The columns.
        kinds: Their kinds.
        broken: Column -> texts that are no Unicode; those of these rows are added.
    """
    arrays = []
    for name in columns:
        array, num = _column_of([row.get(name) for row in rows], kinds[name].text_type)
        arrays.append(array)
        broken[name] += num
    return pa.RecordBatch.from_arrays(arrays, names=list(columns))


def _kind(value: Any, level: int = 0) -> JsonKind:
    if level > _MOST_LEVELS:
        raise ValueError(f"it is nested more than {_MOST_LEVELS} levels deep")
    if value is None:
        return JsonKind()
    if isinstance(value, list):
        types = set(map(type, value))
        if len(types) == 1 and types <= _LISTS.keys():
            return _LISTS[types.pop()]
        inner = JsonKind()
        for part in value:
            inner = _joined(inner, _kind(part, level + 1))
        return JsonKind(pa.list_(inner.type), inner.strict)
    if isinstance(value, dict):
        return _struct({name: _kind(part, level + 1) for name, part in value.items()})
    return _KINDS[type(value)]


def _struct(kinds: Mapping[str, JsonKind]) -> JsonKind:
    if len(kinds) > _MOST_FIELDS:
        return JsonKind(pa.struct([]), False)
    fields = [pa.field(name, kind.type) for name, kind in kinds.items()]
    return JsonKind(pa.struct(fields), all(kind.strict for kind in kinds.values()))


def _joined(first: JsonKind, second: JsonKind) -> JsonKind:
    """The kind of values of two kinds."""
    if first is second:
        # Most rows are as those before, and kinds of plain values are made once.
        return first
    strict = first.strict and second.strict
    if pa.types.is_null(first.type) and strict:
        return second
    if first.type == second.type:
        return JsonKind(first.type, strict)
    if pa.types.is_null(first.type) or pa.types.is_null(second.type):
        return JsonKind(second.type if pa.types.is_null(first.type) else first.type, strict)
    nested = [one for one in (first, second) if pa.types.is_nested(one.type)]
    if not nested:
        return JsonKind(pa.large_string(), False)
    if all(pa.types.is_struct(one.type) for one in (first, second)):
        kinds = {one.name: JsonKind(one.type) for one in first.type}
        for one in second.type:
            kinds[one.name] = _joined(kinds.get(one.name, JsonKind()), JsonKind(one.type))
        both = _struct(kinds)
        return JsonKind(both.type, both.strict and strict)
    if not any(pa.types.is_list(one.type) for one in nested):
        # Objects and texts: nothing that can be read.
        return JsonKind(pa.struct([]), False)
    # A value beside lists of such values is a list of one.
    parts = [one.type.value_type if pa.types.is_list(one.type) else one.type for one in nested]
    parts += [one.type for one in (first, second) if one not in nested]
    inner = _joined(JsonKind(parts[0]), JsonKind(parts[1]))
    both_lists = all(pa.types.is_list(one.type) for one in (first, second))
    return JsonKind(pa.list_(inner.type), strict and inner.strict and both_lists)


def _with_text(kind: pa.DataType, everywhere: bool = False) -> pa.DataType:
    """A type with text in place of what is unknown, or everywhere."""
    if pa.types.is_list(kind):
        return pa.list_(_with_text(kind.value_type, everywhere))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(one.name, _with_text(one.type, everywhere)) for one in kind])
    return pa.large_string() if everywhere or pa.types.is_null(kind) else kind


def _filled(kind: pa.DataType, values: pa.Array) -> pa.DataType:
    if pa.types.is_null(kind):
        return kind if values.null_count == len(values) else values.type
    if pa.types.is_list(kind):
        return pa.list_(_filled(kind.value_type, values.flatten()))
    if pa.types.is_struct(kind):
        return pa.struct(
            [pa.field(one.name, _filled(one.type, values.field(one.name))) for one in kind]
        )
    return kind


def _fitted(value: Any, wanted: pa.DataType) -> Any:
    """A value of JSON in the shape of a type: lists of one, and texts of truth values."""
    if value is None:
        return None
    if pa.types.is_list(wanted):
        parts = value if isinstance(value, list) else [value]
        if set(map(type, parts)) == {str} and not pa.types.is_nested(wanted.value_type):
            return parts
        return [_fitted(part, wanted.value_type) for part in parts]
    if pa.types.is_struct(wanted):
        if not isinstance(value, dict):
            return None
        return {one.name: _fitted(value.get(one.name), one.type) for one in wanted}
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else None


def _cleaned(value: Any, broken: list[int]) -> Any:
    if isinstance(value, list):
        return [_cleaned(part, broken) for part in value]
    if isinstance(value, dict):
        return {name: _cleaned(part, broken) for name, part in value.items()}
    try:
        value is None or value.encode()
    except UnicodeEncodeError:
        broken[0] += 1
        return None
    return value

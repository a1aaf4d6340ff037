"""Labels that have names: columns of numbers whose features say what each number stands for."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from stx_mine.errors import InputError, one_line
from stx_mine.inputs.format import Format

_FEATURES = b"huggingface"
_SHOWN = 6


class LabeledTable:
    """A file whose labels have names, which `datasets` wrote into its schema or a dataset card.

    Attributes:
        schema: Its columns, text in place of the numbers of labels.
    """

    def __init__(
        self, table: Format, file: str, names: Mapping[str, list[str]] | None = None
    ) -> None:
        """Find the columns of labels.

        Args:
            table: The file as it is.
            file: Its name in messages.
            names: Column -> the names of its labels, by their number; None for those in the
                metadata of the schema.
        """
        self._table, self._file = table, file
        known = _names_by_column(table.schema) if names is None else names
        self._names = {
            one.name: known[one.name]
            for one in table.schema
            if one.name in known and _may_be_numbers(one.type)
        }
        text = pa.large_string()
        self.schema = pa.schema(
            [
                pa.field(one.name, text if one.name in self._names else one.type)
                for one in table.schema
            ]
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What was guessed, and what each number was read as."""
        named = (
            f"{column}: {_listed(names)} (as its features name them)"
            for column, names in self._names.items()
            if any(name != str(number) for number, name in enumerate(names))
        )
        return (*self._table.notes, *named)

    @property
    def num_broken(self) -> dict[str, int]:
        """Texts that are no Unicode."""
        return self._table.num_broken

    def record_batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """Stream some columns."""
        yield from map(self._named, self._table.record_batches(columns))

    def _named(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The batch with names in place of the numbers of labels; -1, for no label, is null.

        Raises:
            InputError: A number has no name.
        """
        for place, column in enumerate(batch.schema.names):
            if column not in self._names:
                continue
            names = self._names[column]
            numbers = self._numbers(batch.column(place), column)
            if numbers is None:
                texts = batch.column(place).cast(pa.large_string())
                batch = batch.set_column(place, column, texts)
                continue
            known = pc.if_else(pc.equal(numbers, -1), pa.scalar(None, pa.int64()), numbers)
            range_ = pc.min_max(known).as_py()
            if range_["max"] is not None and not 0 <= range_["min"] <= range_["max"] < len(names):
                wrong = range_["min"] if range_["min"] < 0 else range_["max"]
                raise InputError(
                    f"expected labels from 0 to {len(names) - 1} in column {column!r} of "
                    f"{self._file}, as its features name them ({_listed(names)}), found {wrong}; "
                    "fix those rows"
                )
            texts = pa.array(names, pa.large_string()).take(known)
            batch = batch.set_column(place, column, texts)
        return batch

    def _numbers(self, labels: pa.Array, column: str) -> pa.Array | None:
        """Labels as int64; None where their names stand there already.

        Raises:
            InputError: They are neither.
        """
        if pa.types.is_integer(labels.type):
            return pc.cast(labels, pa.int64())
        names = pa.array(self._names[column], labels.type)
        if pc.all(pc.is_in(labels.drop_null(), value_set=names)).as_py() is not False:
            return None
        try:
            return pc.cast(pc.utf8_trim_whitespace(labels), pa.int64())
        except pa.ArrowInvalid as error:
            raise InputError(
                f"expected labels in column {column!r} of {self._file} as its features name them "
                f"({_listed(self._names[column])}), found others ({one_line(error)}); fix those "
                "rows, or the features"
            ) from error


def _may_be_numbers(kind: pa.DataType) -> bool:
    """Whether values of a type can be the numbers of labels, as those of CSV are texts."""
    tests = (pa.types.is_integer, pa.types.is_string, pa.types.is_large_string)
    return any(test(kind) for test in tests)


def _names_by_column(schema: pa.Schema) -> Mapping[str, list[str]]:
    """Column -> the names of its labels, by their number."""
    try:
        info: Any = json.loads((schema.metadata or {}).get(_FEATURES, b"{}"))
        features = info["info"]["features"]
        found = {
            name: feature["names"]
            for name, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
    return {
        name: names
        for name, names in found.items()
        if name in schema.names and isinstance(names, list) and names
    }


def _listed(names: list[str]) -> str:
    shown = ", ".join(f"{number} is {name}" for number, name in enumerate(names[:_SHOWN]))
    return f"{shown} ..." if len(names) > _SHOWN else shown

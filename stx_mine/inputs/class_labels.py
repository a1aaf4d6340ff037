"""Labels that have names: columns of numbers whose features say what each number stands for."""

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from stx_mine.errors import InputError

_FEATURES = b"huggingface"
_SHOWN = 6


class ClassLabels:
    """The columns of an Arrow schema that `datasets` wrote as `ClassLabel`.

    Attributes:
        schema: The schema as it is read: text in place of the numbers of labels.
        notes: What each number was read as.
    """

    def __init__(self, schema: pa.Schema, file: str) -> None:
        """Read the names from the metadata of a schema.

        Args:
            schema: Of the file.
            file: Its name in messages.
        """
        self._file = file
        self._names = {
            name: names
            for name, names in _names_by_column(schema).items()
            if pa.types.is_integer(schema.field(name).type)
        }
        text = pa.large_string()
        self.schema = pa.schema(
            [pa.field(one.name, text if one.name in self._names else one.type) for one in schema]
        )
        self.notes = tuple(
            f"{column}: {_listed(names)} (as its features name them)"
            for column, names in self._names.items()
            if any(name != str(number) for number, name in enumerate(names))
        )

    def named(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The batch with names in place of the numbers of labels; -1, for no label, is null.

        Raises:
            InputError: A number has no name.
        """
        for place, column in enumerate(batch.schema.names):
            if column not in self._names:
                continue
            names = self._names[column]
            numbers = pc.cast(batch.column(place), pa.int64())
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

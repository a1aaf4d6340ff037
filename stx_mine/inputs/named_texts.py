"""Columns whose values are ids of another table, whatever the columns are called."""

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stx_mine.errors import InputError
from stx_mine.inputs.column_file import as_text
from stx_mine.inputs.places import PairColumns
from stx_mine.inputs.text_column import IdColumn, TextColumn, flat_values

_LOOKED_AT = 1_000
# No text of half of the values of a column is an id by chance.
_SHARE = 0.5


def with_named_texts(
    roles: PairColumns, queries: TextColumn | None, corpus: TextColumn | None
) -> PairColumns:
    """The columns of pairs; those whose values are ids of another table name texts by id.

    Args:
        roles: The columns, by their names or places.
        queries: The table of queries; None where there is none.
        corpus: The corpus; None where there is none.

    Raises:
        InputError: There are queries, and the pairs have their own; or a table has no ids that
            the pairs name.
    """
    notes = list(roles.notes)
    if roles.query and queries:
        found = _Found.of(roles.query, queries)
        if not found.num_ids:
            raise InputError(
                f"{roles.query.file.name} has the texts of its queries in column "
                f"{roles.query.column!r} ({found.example}), and none is an id of "
                f"{queries.file.name}; leave --queries out"
            )
        notes.append(found.note)
        roles = replace(roles, query=None, query_ids=_ids_of(roles.query))
    if roles.positive and corpus and (found := _Found.of(roles.positive, corpus)).are_ids:
        notes.append(found.note)
        roles = replace(roles, positive=None, positive_ids=_ids_of(roles.positive))
    texts = list[TextColumn]()
    ids = list(roles.negative_ids)
    for column in roles.negatives:
        if corpus and (found := _Found.of(column, corpus)).are_ids:
            notes.append(found.note)
            ids.append(_ids_of(column))
        else:
            texts.append(column)
    roles = replace(roles, negatives=tuple(texts), negative_ids=tuple(ids), notes=tuple(notes))
    _require_ids(roles.query_ids, queries)
    _require_ids(next((one for one in (roles.positive_ids, *ids) if one), None), corpus)
    return roles


@dataclass(frozen=True)
class _Found:
    """How many of the first values of a column are ids of a table."""

    column: str
    table: str
    num_ids: int
    num_values: int
    example: str

    @classmethod
    def of(cls, column: TextColumn, table: TextColumn) -> "_Found":
        values = _first_values(column)
        example = f"{values[0].as_py()[:60]!r}" if len(values) else "empty"
        is_id = np.zeros(len(values), bool)
        of_words = pc.sum(pc.match_substring_regex(values, r"\S\s+\S")).as_py() or 0
        if table.id_column and of_words <= len(values) * _SHARE:
            for ids, _ in IdColumn(table.file, table.id_column).blocks():
                is_id |= pc.is_in(values, value_set=ids).to_numpy(zero_copy_only=False)
                if is_id.all():
                    break
        return cls(column.column, table.file.name, int(is_id.sum()), len(values), example)

    @property
    def are_ids(self) -> bool:
        return self.num_ids > self.num_values * _SHARE

    @property
    def note(self) -> str:
        how_many = f", {self.num_ids:,} of the first {self.num_values:,}"
        return f"the values of {self.column!r} are ids of {self.table}" + (
            how_many if self.num_ids < self.num_values else ""
        )


def _first_values(column: TextColumn) -> pa.Array:
    """Some values of a column; of one with texts in structs, or parts of lists, none."""
    if not column.field and not column.id_field and column.part == "all":
        for (array,) in column.file.arrays([column.column]):
            values, _ = flat_values(array)
            texts = as_text(values, f"column {column.column!r} of {column.file.name}")
            if texts.null_count < len(texts):
                return texts.drop_null().slice(0, _LOOKED_AT)
    return pa.array([], pa.large_string())


def _ids_of(column: TextColumn) -> IdColumn:
    return IdColumn(column.file, column.column)


def _require_ids(ids: IdColumn | None, table: TextColumn | None) -> None:
    if ids and table and not table.id_column:
        raise InputError(
            f"{ids.file.name} names texts of {table.file.name} by id ({ids.column!r}), which has "
            f"no column of ids; its columns are {', '.join(table.file.columns)}; call that of the "
            "ids _id"
        )

"""The columns of a table of passages, or of queries: texts, ids and titles, by name."""

from collections.abc import Sequence

import pyarrow as pa

from stx_mine.errors import InputError
from stx_mine.inputs.column_file import ColumnFile, is_list, is_text
from stx_mine.inputs.names import (
    LABEL_NAMES,
    PASSAGE_IDS,
    PASSAGES,
    QUERIES,
    QUERY_IDS,
    ROW_IDS,
    SCORE_NAMES,
    TEXTS,
    TITLES,
    is_id,
    is_passage,
    is_query,
    named,
    plain,
)
from stx_mine.inputs.places import texts_by_place
from stx_mine.inputs.text_column import TextColumn

_QUERY_TEXTS = (*QUERIES, frozenset({"text", "contents", "content"}))


def text_column(
    file: ColumnFile, asked: str | None, flag: str, queries: bool = False
) -> TextColumn:
    """The texts of a table of passages, or of queries, with their ids and titles.

    Args:
        file: The table.
        asked: The column of texts by its name; None to find it.
        flag: The option that names it.
        queries: Whether they are queries.

    Raises:
        InputError: No column has a name that is known, or several have.
    """
    if not file.has_names and asked is None:
        return texts_by_place(file, flag)
    if asked is not None:
        file.column(asked, flag)
    free = text_like(file, nested=False)
    known = _QUERY_TEXTS if queries else (*TEXTS, *PASSAGES)
    found = [asked] if asked else named(free, *known)
    if not found and len(free) == 1:
        found = free
    if len(found) != 1:
        raise unclear(file, "queries" if queries else "passages", found, flag)
    own_ids = QUERY_IDS if queries else PASSAGE_IDS
    ids = named(file.columns, own_ids, ROW_IDS)
    title = named(free, TITLES) if found[0] not in named(free, TITLES) else []
    return TextColumn(
        file,
        found[0],
        id_column=ids[0] if ids and ids[0] != found[0] else "",
        title_column=title[0] if title else "",
    )


def text_like(file: ColumnFile, nested: bool) -> list[str]:
    """Columns that may hold texts: no ids, no labels; with `nested` also lists and structs."""
    found = []
    for column in file.schema:
        inner = value_type(column.type)
        fits = is_text(inner) or pa.types.is_null(inner) or pa.types.is_struct(inner)
        if not nested and pa.types.is_nested(column.type):
            continue
        # Numbers are texts only where their name says so.
        if not (fits or is_query(column.name) or is_passage(column.name)):
            continue
        if not _is_other(column.name):
            found.append(column.name)
    return found


def _is_other(name: str) -> bool:
    """Whether a name says that a column holds ids or labels."""
    return is_id(name) or plain(name) in LABEL_NAMES | SCORE_NAMES


def value_type(kind: pa.DataType) -> pa.DataType:
    """The type of the values of lists, however deep; of anything else the type itself."""
    while is_list(kind):
        kind = kind.value_type
    return kind


def unclear(file: ColumnFile, what: str, found: Sequence[str], flag: str) -> InputError:
    """The error where no column, or several, may hold what is looked for."""
    columns = ", ".join(repr(name) for name in file.columns[:20])
    if found:
        return InputError(
            f"several columns of {file.name} may hold the {what} ({', '.join(found)}); name one "
            f"with {flag}"
        )
    return InputError(
        f"cannot tell which column of {file.name} holds the {what}; its columns are {columns}; "
        f"name one with {flag}"
    )

"""Which columns of a table hold queries, passages, negatives, labels: by name, never by place."""

from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa

from stx_mine.errors import InputError
from stx_mine.inputs.column_file import ColumnFile, is_list, is_text
from stx_mine.inputs.config import SourceFields
from stx_mine.inputs.names import (
    CHATS,
    EXAMPLES,
    LABEL_NAMES,
    NEGATIVE_IDS,
    PASSAGE_IDS,
    PASSAGES,
    QUERIES,
    QUERY_IDS,
    ROW_IDS,
    SCORE_NAMES,
    SETS,
    TEXTS,
    TITLES,
    is_id,
    is_negative,
    is_passage,
    is_query,
    named,
    plain,
)
from stx_mine.inputs.places import PairColumns, columns_by_place, texts_by_place
from stx_mine.inputs.text_column import IdColumn, TextColumn

NONE = "none"
_TEXT_FIELDS = (*TEXTS, frozenset({"context", "value"}))
_QUERY_TEXTS = (*QUERIES, frozenset({"text", "contents", "content"}))


def pair_columns(file: ColumnFile, fields: SourceFields, titled: bool = False) -> PairColumns:
    """Find the columns of a table of pairs.

    Args:
        file: The table.
        fields: The columns that were asked for by name.
        titled: Whether titles are what stands for queries.

    Raises:
        InputError: No column of a role has a name that is known, or several have.
    """
    for name in (fields.query_column, fields.passage_column, *fields.negative_column):
        if name is not None and name != NONE:
            file.column(name, _flag_of(name, fields))
    if file.has_names or fields.query_column or fields.passage_column:
        return _Roles(file, fields, titled).find()
    return columns_by_place(file)


def text_column(
    file: ColumnFile, asked: str | None, flag: str, queries: bool = False, titles: bool = True
) -> TextColumn:
    """The texts of a table of passages, or of queries, with their ids and titles.

    Args:
        file: The table.
        asked: The column of texts by its name; None to find it.
        flag: The option that names it.
        queries: Whether they are queries.
        titles: Whether a column of titles is a part of the texts.

    Raises:
        InputError: No column has a name that is known, or several have.
    """
    if not file.has_names and asked is None:
        return texts_by_place(file, flag)
    if asked is not None:
        file.column(asked, flag)
    free = _text_like(file, nested=False)
    known = _QUERY_TEXTS if queries else (*TEXTS, *PASSAGES)
    found = [asked] if asked else named(free, *known)
    if not found and len(free) == 1:
        found = free
    if len(found) != 1:
        raise _unclear(file, "queries" if queries else "passages", found, flag)
    own_ids = QUERY_IDS if queries else PASSAGE_IDS
    ids = named(file.columns, own_ids, ROW_IDS)
    title = named(free, TITLES) if titles and found[0] not in named(free, TITLES) else []
    return TextColumn(
        file,
        found[0],
        id_column=ids[0] if ids and ids[0] != found[0] else "",
        title_column=title[0] if title else "",
    )


class _Roles:
    """The search for the columns of one table."""

    def __init__(self, file: ColumnFile, fields: SourceFields, titled: bool) -> None:
        self._file, self._fields, self._titled = file, fields, titled
        self._free = _text_like(file, nested=True)

    def find(self) -> PairColumns:
        sets = [name for name in named(self._free, SETS) if is_list(self._type(name))]
        if sets and self._fields.query_column is None and not named(self._free, *QUERIES):
            return self._of_set(sets[0])
        if self._fields.query_column is None:
            self._refuse_chats()
        query, query_ids = self._queries()
        positive, positive_ids = self._positives(query)
        found = PairColumns(
            query=query,
            positive=positive,
            query_ids=query_ids,
            positive_ids=positive_ids,
            notes=("its titles are taken as queries",)
            if query and self._fields.query_column is None and plain(query.column) in TITLES
            else (),
        )
        if positive_ids and "document_ids" in plain(positive_ids.column) and self._has_scores():
            return self._of_scored_list(found, positive_ids)
        texts, ids = self._negatives(found.used)
        found = replace(found, negatives=texts, negative_ids=ids)
        return self._with_label(found)

    def _type(self, name: str) -> pa.DataType:
        return self._file.schema.field(name).type

    def _queries(self) -> tuple[TextColumn | None, IdColumn | None]:
        asked = self._fields.query_column
        names = [name for name in self._free if not is_list(self._type(name))]
        if "messages" in self._free:
            names.append("messages")
        found = (
            [asked] if asked else named(names, *QUERIES) or named(names, frozenset({"messages"}))
        )
        ids = [name for name in named(self._file.columns, QUERY_IDS) if name not in found]
        if not found and ids:
            return None, IdColumn(self._file, ids[0])
        if not found and (self._titled or not named(self._file.columns, ROW_IDS)):
            # Titles and what they stand above are pairs; beside ids they are a corpus.
            found = named(names, TITLES)
        lists = named(self._free, *QUERIES) if not found else []
        if lists:
            raise InputError(
                f"expected one query a row in column {lists[0]!r} of {self._file.name}, found "
                "lists; write a row for each query, or name another with --query-column"
            )
        if len(found) != 1:
            raise _unclear(self._file, "queries", found, "--query-column")
        ids = ids or [name for name in named(self._file.columns, ROW_IDS) if name not in found]
        ids = [name for name in ids if not pa.types.is_nested(self._type(name))]
        texts = self._texts(found[0])
        if is_list(self._type(found[0])):
            texts = replace(texts, part="first")
        return replace(texts, id_column=ids[0] if ids else "", title_field=""), None

    def _positives(self, query: TextColumn | None) -> tuple[TextColumn | None, IdColumn | None]:
        asked = self._fields.passage_column
        taken = {query.column} if query else set()
        names = [name for name in self._free if name not in taken and not is_negative(name)]
        found = [asked] if asked else named(names, *PASSAGES)
        found = found or named(names, frozenset({"positive_messages"}))
        ids = [name for name in named(self._file.columns, PASSAGE_IDS) if name not in found]
        if not found and ids:
            return None, IdColumn(self._file, ids[0])
        if len(found) != 1:
            raise _unclear(self._file, "passages", found, "--passage-column")
        if found[0] in taken:
            raise InputError(
                f"expected two columns of {self._file.name} for queries and passages, found "
                f"{found[0]!r} for both; name the other with --query-column or --passage-column"
            )
        texts = self._texts(found[0])
        if not texts.field and texts.id_field:
            return None, IdColumn(self._file, found[0], texts.id_field)
        same = [name for name in ids if is_list(self._type(name)) == is_list(self._type(found[0]))]
        return (replace(texts, id_column=same[0]) if same and not texts.id_field else texts), None

    def _negatives(self, taken: set[str]) -> tuple[tuple[TextColumn, ...], tuple[IdColumn, ...]]:
        asked = self._fields.negative_column
        if NONE in asked:
            return (), ()
        names = list(asked)
        if not names:
            names = [n for n in self._free if n not in taken and is_negative(n)]
            names += [name for name in self._free if plain(name) == "negative_messages"]
        texts, ids = list[TextColumn](), list[IdColumn]()
        for name in names:
            found = self._texts(name)
            if not found.field and found.id_field:
                ids.append(IdColumn(self._file, name, found.id_field))
            else:
                texts.append(found)
        if not names:
            ids = [
                IdColumn(self._file, name)
                for name in self._file.columns
                if NEGATIVE_IDS.fullmatch(plain(name))
            ]
        return tuple(texts), tuple(ids)

    def _texts(self, name: str) -> TextColumn:
        """A column of texts, or of structs that hold them."""
        kind = _value_type(self._type(name))
        if not pa.types.is_struct(kind):
            return TextColumn(self._file, name)
        fields = [one.name for one in kind]
        text = named(fields, *_TEXT_FIELDS)
        ids = named(fields, PASSAGE_IDS, ROW_IDS)
        title = named(fields, TITLES)
        if not text and not ids:
            way = "name another column"
            if is_negative(name):
                way = "write them as one list of texts, or give --negative-column none"
            raise InputError(
                f"expected text in column {name!r} of {self._file.name}, found objects of "
                f"{', '.join(fields) or 'many keys'}; {way}"
            )
        return TextColumn(
            self._file,
            name,
            field=text[0] if text else "",
            id_field=ids[0] if ids else "",
            title_field=title[0] if title and text else "",
        )

    def _refuse_chats(self) -> None:
        """Refuse turns of conversations, of which no column says which are pairs."""
        chats = named(self._free, CHATS)
        others = [name for name in self._free if name not in chats and is_passage(name)]
        if chats and not others and "positive_messages" not in map(plain, self._free):
            raise InputError(
                f"expected pairs in {self._file.name}, found conversations in column {chats[0]!r}; "
                "write the question and its answer of each as columns query and passage"
            )

    def _of_set(self, name: str) -> PairColumns:
        negatives, _ = self._negatives({name})
        query = TextColumn(self._file, name, part="first")
        found = PairColumns(
            query=query,
            positive=replace(query, part="rest"),
            negatives=negatives,
            notes=(f"the first text of {name!r} is the query of the others",),
        )
        if plain(name) in EXAMPLES:
            said = f"in {name!r} stand a query, its positive and known negatives, in this order"
            others = replace(query, part="others")
            found = replace(
                found,
                positive=replace(query, part="second"),
                negatives=(others, *negatives) if NONE not in self._fields.negative_column else (),
                notes=(said,),
            )
        return self._with_label(found)

    def _has_scores(self) -> bool:
        return any(is_list(self._type(name)) for name in named(self._file.columns, SCORE_NAMES))

    def _of_scored_list(self, found: PairColumns, ids: IdColumn) -> PairColumns:
        return replace(
            found,
            positive_ids=replace(ids, part="first"),
            negative_ids=(replace(ids, part="rest"),),
            notes=(f"the first of {ids.column!r} is the positive, the others are negatives",),
        )

    def _with_label(self, found: PairColumns) -> PairColumns:
        asked = self._fields.label_column
        if asked == NONE:
            return found
        if asked is not None:
            self._file.column(asked, "--label-column")
        if asked is None and found.positive and (field := self._label_field(found.positive)):
            return replace(
                found, label=found.positive.column, label_field=field, is_label_list=True
            )
        free = [name for name in self._file.columns if name not in found.used]
        names = [asked] if asked else named(free, LABEL_NAMES, SCORE_NAMES)
        if not names:
            answers = [name for name in free if plain(name) == "answers" and self._is_squad(name)]
            return replace(found, answers=answers[0]) if answers else found
        is_label_list = is_list(self._type(names[0]))
        positive = found.positive or found.positive_ids
        if is_label_list and (positive is None or not is_list(self._type(positive.column))):
            # Scores of the texts of a row, which are of no matter here.
            return found
        return replace(found, label=names[0], is_label_list=is_label_list)

    def _is_squad(self, name: str) -> bool:
        """Whether a column holds lists of answers beside the passage that they stand in."""
        kind = self._type(name)
        return pa.types.is_struct(kind) and "text" in [one.name for one in kind]

    def _label_field(self, texts: TextColumn) -> str:
        """The field of labels in the structs that hold the texts; empty for none."""
        kind = _value_type(self._type(texts.column))
        if not pa.types.is_struct(kind):
            return ""
        return next(iter(named([one.name for one in kind], LABEL_NAMES)), "")


def _text_like(file: ColumnFile, nested: bool) -> list[str]:
    """Columns that may hold texts: no ids, no labels; with `nested` also lists and structs."""
    found = []
    for column in file.schema:
        inner = _value_type(column.type)
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


def _value_type(kind: pa.DataType) -> pa.DataType:
    """The type of the values of lists, however deep; of anything else the type itself."""
    while is_list(kind):
        kind = kind.value_type
    return kind


def _flag_of(name: str, fields: SourceFields) -> str:
    if name == fields.query_column:
        return "--query-column"
    return "--passage-column" if name == fields.passage_column else "--negative-column"


def _unclear(file: ColumnFile, what: str, found: Sequence[str], flag: str) -> InputError:
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

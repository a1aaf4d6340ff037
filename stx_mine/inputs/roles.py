"""Which columns of a table hold queries, passages, negatives, labels: by name, never by place."""

from dataclasses import replace

import pyarrow as pa

from stx_mine.errors import InputError
from stx_mine.inputs.column_file import ColumnFile, is_list
from stx_mine.inputs.config import SourceFields
from stx_mine.inputs.folders import Tables
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
    is_negative,
    is_passage,
    named,
    plain,
)
from stx_mine.inputs.places import (
    PairColumns,
    columns_by_place,
    ids_by_place,
    qrels_columns,
)
from stx_mine.inputs.text_column import IdColumn, TextColumn
from stx_mine.inputs.text_table import text_like, unclear, value_type

NONE = "none"
_TEXT_FIELDS = (*TEXTS, frozenset({"context", "value"}))
_NEMO_PASSAGES, _NEMO_IDS = frozenset({"pos_doc", "neg_doc"}), {"question_id", "corpus_id"}


def table_columns(tables: Tables, fields: SourceFields) -> PairColumns:
    """Find the columns of the pairs of an input, which may be qrels or ids by where they lie.

    Raises:
        InputError: No column of a role has a name that is known, or several have.
    """
    if tables.are_qrels:
        return qrels_columns(tables.pairs, fields)
    if tables.are_ids and not tables.pairs.has_names:
        return ids_by_place(tables.pairs)
    return pair_columns(tables.pairs, fields)


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


class _Roles:
    """The search for the columns of one table."""

    def __init__(self, file: ColumnFile, fields: SourceFields, titled: bool) -> None:
        self._file, self._fields, self._titled = file, fields, titled
        self._free = text_like(file, nested=True)

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
        if positive and not texts and not ids and self._is_scored_list(positive):
            return replace(
                found,
                positive=replace(positive, part="first"),
                negatives=(replace(positive, part="rest"),),
                notes=(_first_of(positive.column),),
            )
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
            raise unclear(self._file, "queries", found, "--query-column")
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
            raise unclear(self._file, "passages", found, "--passage-column")
        if found[0] in taken:
            raise InputError(
                f"expected two columns of {self._file.name} for queries and passages, found "
                f"{found[0]!r} for both; name the other with --query-column or --passage-column"
            )
        if self._holds_ids(found[0]):
            return None, IdColumn(self._file, found[0])
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
            numbers = [name for name in self._file.columns if name not in (*names, *taken)]
            names += [name for name in numbers if self._holds_ids(name)]
        texts, ids = list[TextColumn](), list[IdColumn]()
        for name in names:
            if self._holds_ids(name):
                ids.append(IdColumn(self._file, name))
                continue
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
        kind = value_type(self._type(name))
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

    def _holds_ids(self, name: str) -> bool:
        """Whether a column of passages holds their ids: whole numbers in lists of negatives.

        NeMo's may hold other ids, beside the id of a corpus.
        """
        names = {plain(one) for one in self._file.columns}
        kind = value_type(self._type(name))
        if is_negative(name) and is_list(self._type(name)) and pa.types.is_integer(kind):
            return True
        is_plain = not pa.types.is_struct(kind)
        return is_plain and plain(name) in _NEMO_PASSAGES and names >= _NEMO_IDS

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
            notes=(_first_of(ids.column),),
        )

    def _is_scored_list(self, positive: TextColumn) -> bool:
        """Whether a row is a positive and its negatives in one list, beside one of their scores."""
        fields = self._fields
        asked = fields.label_column or fields.positive_label or fields.min_grade is not None
        is_plain = is_list(self._type(positive.column)) and not positive.field
        labels = named(self._file.columns, LABEL_NAMES)
        scores = "scores" in self._file.columns and is_list(self._type("scores"))
        return is_plain and scores and not labels and not asked and not fields.negative_column

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
        kind = value_type(self._type(texts.column))
        if not pa.types.is_struct(kind):
            return ""
        return next(iter(named([one.name for one in kind], LABEL_NAMES)), "")


def _first_of(column: str) -> str:
    return f"the first of {column!r} is the positive, the others are negatives"


def _flag_of(name: str, fields: SourceFields) -> str:
    if name == fields.query_column:
        return "--query-column"
    return "--passage-column" if name == fields.passage_column else "--negative-column"

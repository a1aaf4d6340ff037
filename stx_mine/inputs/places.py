"""Columns without names, and those of qrels: what each holds is told by its place and values."""

import re
from dataclasses import dataclass, replace

import pyarrow as pa

from stx_mine.errors import InputError
from stx_mine.inputs.column_file import ColumnFile, is_list
from stx_mine.inputs.config import SourceFields
from stx_mine.inputs.names import LABEL_NAMES, PASSAGE_IDS, QUERY_IDS, SCORE_NAMES, named
from stx_mine.inputs.text_column import IdColumn, TextColumn
from stx_mine.inputs.value_kinds import VALUE_KINDS, is_category, kind_of

_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?")
_SAMPLE_ROWS = 50
_MOST_GRADES = 6
_FEWEST_RANKS = 3


@dataclass(frozen=True)
class PairColumns:
    """What the columns of a table of pairs hold.

    Attributes:
        query: The queries; None where `query_ids` names them.
        positive: The positive passages; None where `positive_ids` names them.
        negatives: Known negatives.
        query_ids: Ids of queries in another table.
        positive_ids: Ids of passages in the corpus.
        negative_ids: Ids of known negatives in the corpus.
        label: Column of labels, scores or grades; empty for none.
        label_field: Field of the structs in that column that holds them; empty for none.
        is_label_list: Whether there is a label for each passage of a row.
        answers: Column of lists of answers, of which an empty one speaks against the pair; empty
            for none.
        notes: What was guessed.
    """

    query: TextColumn | None = None
    positive: TextColumn | None = None
    negatives: tuple[TextColumn, ...] = ()
    query_ids: IdColumn | None = None
    positive_ids: IdColumn | None = None
    negative_ids: tuple[IdColumn, ...] = ()
    label: str = ""
    label_field: str = ""
    is_label_list: bool = False
    answers: str = ""
    notes: tuple[str, ...] = ()

    @property
    def names_passages(self) -> bool:
        """Whether some passages are named by ids."""
        return self.positive_ids is not None or bool(self.negative_ids)

    @property
    def used(self) -> set[str]:
        """Names of the columns that are read."""
        texts = [one for one in (self.query, self.positive, *self.negatives) if one]
        ids = [one for one in (self.query_ids, self.positive_ids, *self.negative_ids) if one]
        names = {name for column in texts for name in (column.column, *column.beside)}
        return (names | {column.column for column in ids} | {self.label, self.answers}) - {""}


def columns_by_place(file: ColumnFile) -> PairColumns:
    """The columns of pairs in a table without names.

    Raises:
        InputError: It cannot be told what they are.
    """
    whole = _shape(file)
    # What holds nothing is no column of any role.
    columns = [name for name, kind in zip(file.columns, whole, strict=True) if kind != "-"]
    shape = whole.replace("-", "")
    if re.fullmatch("[INZ]{3}", shape):
        if not _are_grades(file, columns[2]):
            return ids_by_place(file)
        _refuse_ranks(file, columns)
    # The letters of a role stand where its column does: query, passage, negative; in small
    # letters their ids; a label; `-` is not read.
    for pattern, roles in (
        ("T[TL]+", "QP" + "N" * (len(shape) - 2)),
        ("[IN]TT+", "iQP" + "N" * (len(shape) - 3)),
        ("TT[NZ]", "QPl"),
        ("[INZ]Z[INZ][NZ]", "q-pl"),
        ("[INZ]{2}", "qp"),
        ("[INZ]{2}[NZ]", "qpl"),
    ):
        if re.fullmatch(pattern, shape):
            return _with_roles(file, columns, roles)
    is_json = file.files[0].suffix in (".jsonl", ".ndjson", ".json")
    if is_json and re.fullmatch("[INZ](L+|[INZ]{3,})", shape):
        return ids_by_place(file)
    if len(whole) == 1:
        raise InputError(
            f"expected several columns in {file.name}, found one without a name; say with "
            "--delimiter what stands between its values (tab, space or a character)"
        )
    names = ",".join(["query", "passage", "x", "y", "z"][: len(whole)])
    raise InputError(
        f"cannot tell what the {len(whole)} columns of {file.name} are, which have no names "
        f"({', '.join(VALUE_KINDS[one] for one in whole)}); name all of them with --columns, as in "
        f"--columns {names} (query, passage, negative, label, query_id ...; others are not read)"
    )


def _with_roles(file: ColumnFile, columns: list[str], roles: str) -> PairColumns:
    texts = {role: TextColumn(file, name) for role, name in zip(roles, columns, strict=True)}
    ids = {role: IdColumn(file, name) for role, name in zip(roles, columns, strict=True)}
    query = texts.get("Q")
    if query is not None and "i" in texts:
        query = replace(query, id_column=texts["i"].column)
    negatives = [name for role, name in zip(roles, columns, strict=True) if role == "N"]
    return PairColumns(
        query=query,
        positive=texts.get("P"),
        negatives=tuple(TextColumn(file, name) for name in negatives),
        query_ids=ids.get("q"),
        positive_ids=ids.get("p"),
        label=texts["l"].column if "l" in texts else "",
    )


def ids_by_place(file: ColumnFile) -> PairColumns:
    """The columns of a table of ids without names: query, positive, negatives.

    A passage may be a list, as those with scores are for ColBERT: its id is the first of it.

    Raises:
        InputError: There are fewer than two columns.
    """
    if len(file.columns) < 2:
        raise InputError(
            f"expected ids of a query and of its passages in {file.name}, found "
            f"{len(file.columns)} column; give the file in its layout"
        )
    query, positive, *negatives = (
        IdColumn(file, column.name, part="first" if is_list(column.type) else "all")
        for column in file.schema
    )
    return PairColumns(query_ids=query, positive_ids=positive, negative_ids=tuple(negatives))


def qrels_columns(file: ColumnFile, fields: SourceFields) -> PairColumns:
    """The columns of qrels, by name; without a header line by their number.

    Three are query-id, corpus-id, score, four have TREC's iteration in the second place.

    Args:
        file: The table.
        fields: The column of grades, if it was asked for by name.

    Raises:
        InputError: They are something else.
    """
    columns = file.columns
    if file.has_names:
        found = [
            named(columns, names) for names in (QUERY_IDS, PASSAGE_IDS, LABEL_NAMES | SCORE_NAMES)
        ]
    else:
        if re.fullmatch("[^L]Z[^L]NN[^L]", _shape(file)):
            raise InputError(
                f"expected judgements in {file.name}, found a TREC run, which ranks passages and "
                "judges none; give its qrels, or mine from it with `mine --candidates`"
            )
        order = {2: (0, 1), 3: (0, 1, 2), 4: (0, 2, 3)}.get(len(columns), ())
        is_numbered = len(columns) < 4 or _shape(file)[1] in ("Z", "N")
        found = [[columns[place]] for place in order] if is_numbered else []
        found += [[]] * (3 - len(found))
        if len(order) == 3 and is_numbered:
            _refuse_ranks(file, [columns[place] for place in order])
    if len(found[0]) != 1 or len(found[1]) != 1 or len(found[2]) > 1:
        raise InputError(
            f"expected query-id, corpus-id, score in {file.name}, found {', '.join(columns)}; add "
            "the header line"
        )
    return PairColumns(
        query_ids=IdColumn(file, found[0][0]),
        positive_ids=IdColumn(file, found[1][0]),
        label=fields.label_column or (found[2][0] if found[2] else ""),
    )


def texts_by_place(file: ColumnFile, flag: str) -> TextColumn:
    """The texts, with ids and titles, of a table without names.

    Args:
        file: The table.
        flag: The option that names the column of texts.

    Raises:
        InputError: It cannot be told what they are.
    """
    shape = _shape(file)
    columns = [name for name, kind in zip(file.columns, shape, strict=True) if kind != "-"]
    shape = shape.replace("-", "")
    if len(shape) == 1:
        return TextColumn(file, columns[0])
    if shape in ("IT", "NT"):
        return TextColumn(file, columns[1], id_column=columns[0])
    if shape in ("ITT", "NTT"):
        return TextColumn(file, columns[2], id_column=columns[0], title_column=columns[1])
    raise InputError(
        f"cannot tell what the {len(file.columns)} columns of {file.name} are, which have no "
        "names; add a header line (id, title, text)"
        + (f" or give {flag} with the place of the texts, from 1" if "column" in flag else "")
    )


def _shape(file: ColumnFile) -> str:
    """What each column without a name holds in the first rows: a letter of `VALUE_KINDS` each."""
    arrays = next(file.arrays(file.columns), [])
    found, texts = "", list[list[str]]()
    for array in arrays:
        values = array.slice(0, _SAMPLE_ROWS)
        if is_list(values.type):
            found += "L"
            continue
        own = [str(value) for value in values.to_pylist() if value is not None]
        kind = kind_of(own)
        if kind == "T":
            # Beside queries and passages stand negatives, or what tells them into classes.
            kind = "C" if len(texts) > 1 and is_category(own, texts[1]) else kind
            texts.append(own)
        found += kind
    return found


def _refuse_ranks(file: ColumnFile, columns: list[str]) -> None:
    """Refuse a run of a retriever, whose third column counts the documents of each query.

    Raises:
        InputError: It is one.
    """
    queries, _, ranks = next(iter(file.arrays(columns)), [pa.array([])] * 3)
    counts = dict[str, int]()
    for query, rank in zip(queries.to_pylist(), ranks.to_pylist(), strict=True):
        counts[query] = counts.get(query, 0) + 1
        if str(rank).strip() != str(counts[query]):
            return
    if max(counts.values(), default=0) >= _FEWEST_RANKS:
        raise InputError(
            f"expected grades in column 3 of {file.name}, found 1, 2, 3 ... for each query, as the "
            "ranks of a retriever's run are; give a run to mine --candidates, or --columns "
            "query_id,corpus_id,grade if they are grades"
        )


def _are_grades(file: ColumnFile, name: str) -> bool:
    """Whether the first rows hold no more than a few small numbers."""
    (array,) = next(file.arrays([name]), [pa.array([])])
    words = {str(value).strip() for value in array.to_pylist() if value is not None}
    if not all(map(_NUMBER.fullmatch, words)):
        return False
    return len(words) <= _MOST_GRADES and all(-2 <= float(word) <= 10 for word in words)

"""Where pairs and texts come from, whatever their layout: streams of (text, original id)."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stx_mine.errors import ConfigError, InputError
from stx_mine.inputs.column_file import ColumnFile, as_text, file_checksum
from stx_mine.inputs.config import LanguageFields, SourceFields, SymmetryFields
from stx_mine.inputs.folders import (
    Tables,
    find_corpus,
    find_queries,
    find_tables,
    open_corpus,
    open_queries,
)
from stx_mine.inputs.labels import LabelRule
from stx_mine.inputs.named_texts import with_named_texts
from stx_mine.inputs.names import OF_DOCUMENT, shown_column
from stx_mine.inputs.places import PairColumns
from stx_mine.inputs.roles import table_columns
from stx_mine.inputs.text_column import IdColumn, TextColumn, flat_values
from stx_mine.inputs.text_table import text_column

TextStream = Iterator[tuple[pa.Array, pa.Array]]
TitledStream = Iterator[tuple[pa.Array, pa.Array, pa.Array]]


@dataclass(frozen=True)
class PairSource:
    """A table of pairs and what its ids name.

    Attributes:
        pairs: The table.
        roles: What its columns hold.
        asked: The queries: in the table, or those that its ids name.
        corpus: The corpus; None where there is none.
        split: The split of the table; empty where it has none.
        other_splits: The splits beside it, which are not read.
        is_folder: Whether the queries and the corpus came with the pairs.
        label: How labels, scores or grades are read; None where there are none.
        titles: Whether the titles of a corpus are a part of its passages.
        language: Language of the texts for which no column names one.
        symmetric: Whether each pair holds both ways.
        reverse_pairs: Whether the reverse of each pair is a pair too.
    """

    pairs: ColumnFile
    roles: PairColumns
    asked: TextColumn
    corpus: TextColumn | None = None
    split: str = ""
    other_splits: tuple[str, ...] = ()
    is_folder: bool = False
    label: LabelRule | None = None
    titles: bool = True
    language: str | None = None
    symmetric: bool = False
    reverse_pairs: bool = False

    @classmethod
    def open(cls, path: str, fields: SourceFields, prefer_split: str) -> "PairSource":
        """Recognise what lies at `path`.

        Raises:
            InputError: A file or column is missing, or it cannot be told what one is.
            ConfigError: An option does not fit the kind of input.
        """
        tables = find_tables(path, fields, prefer_split)
        _refuse_unfit(path, tables, fields)
        roles = table_columns(tables, fields)
        queries, corpus = tables.queries, tables.corpus
        if fields.queries:
            queries = open_queries(fields.queries, fields)
        elif queries is None and roles.query is None:
            queries = find_queries(tables.pairs, tables.split)
        if fields.corpus:
            corpus = open_corpus(fields.corpus, fields)
        elif corpus is None and roles.names_passages:
            corpus = find_corpus(tables.pairs, tables.split)
        named = text_column(queries, None, "--queries", queries=True) if queries else None
        passages = None
        if corpus is not None:
            passages = text_column(corpus, fields.corpus_column, "--corpus-column")
        roles = with_named_texts(roles, named, passages)
        if roles.query is None and queries is None:
            assert roles.query_ids is not None
            raise InputError(
                f"{tables.pairs.name} names queries by id ({_shown(roles.query_ids)}), found no "
                "texts of them; give --queries FILE, or --query-column where it has their texts"
            )
        if roles.names_passages and corpus is None:
            ids = roles.positive_ids or roles.negative_ids[0]
            way = "--passage-column where it has their texts"
            raise InputError(
                f"{tables.pairs.name} names passages by id ({_shown(ids)}), found no corpus; give "
                f"--corpus FILE, or {way if roles.positive_ids else '--negative-column none'}"
            )
        asked = roles.query or named
        assert asked is not None
        if passages and not roles.names_passages:
            # Where pairs hold the texts of passages, they hold them without titles.
            passages = replace(passages, title_column="")
        found = cls(
            pairs=tables.pairs,
            roles=roles,
            asked=asked,
            corpus=passages,
            split=tables.split,
            other_splits=tables.other_splits,
            is_folder=tables.is_folder,
            label=_label_rule(tables, roles, fields),
        )
        if isinstance(fields, SymmetryFields):
            return replace(found, symmetric=fields.symmetric, reverse_pairs=fields.reverse_pairs)
        return found

    def with_languages(self, fields: LanguageFields) -> "PairSource":
        """The same source, whose languages are read as the fields say.

        Raises:
            InputError: No file has the column that is named.
        """
        name = fields.language_column or "language"

        def in_role(column: TextColumn, role: str) -> TextColumn:
            known = (f"{role}_{name}", name)
            own = next((one for one in known if one in column.file.columns), "")
            return replace(column, language_column="" if own == column.column else own)

        def passages(column: TextColumn | None) -> TextColumn | None:
            return column and in_role(column, "passage")

        roles = replace(
            self.roles,
            query=self.roles.query and in_role(self.roles.query, "query"),
            positive=passages(self.roles.positive),
            negatives=tuple(in_role(one, "passage") for one in self.roles.negatives),
        )
        found = replace(
            self,
            roles=roles,
            asked=in_role(self.asked, "query"),
            corpus=passages(self.corpus),
            language=fields.language,
        )
        if fields.language_column is not None and not found._has_language_column:
            files = {one.file.name: one.file.columns for one in found._text_columns}
            listed = "; ".join(f"{path}: {', '.join(names)}" for path, names in files.items())
            raise InputError(
                f"--language-column {fields.language_column!r} is a column of no file of this "
                f"input ({listed}); name one of theirs"
            )
        return found

    @property
    def passage_columns(self) -> list[TextColumn]:
        """The columns of passages in the order of their stream: corpus, positives, negatives."""
        texts = [self.corpus, self.roles.positive, *self.roles.negatives]
        return [one for one in texts if one] + ([self.asked] if self.reverse_pairs else [])

    @property
    def query_columns(self) -> list[TextColumn]:
        """The columns of queries in the order of their stream."""
        reverse = self.roles.positive if self.reverse_pairs else None
        return [self.asked, *([reverse] if reverse else [])]

    @property
    def _text_columns(self) -> list[TextColumn]:
        return [*self.query_columns, *self.passage_columns]

    @property
    def _has_language_column(self) -> bool:
        return any(one.language_column for one in self._text_columns)

    @property
    def names_languages(self) -> bool:
        """Whether there is a column of languages, or one language for all."""
        return self.language is not None or self._has_language_column

    @property
    def has_negatives(self) -> bool:
        """Whether the pairs name known negatives, or labels that may make some."""
        named = bool(self.roles.negatives or self.roles.negative_ids)
        return named or (self.label is not None and not self.label.is_judgement)

    def languages(self, role: str) -> Iterator[pa.Array]:
        """Stream the languages of the rows of `queries()` or `passages()`; null for unknown.

        Known negatives of a row are in the language of its passage.
        """
        otherwise = pa.scalar(self.language, pa.large_string())
        columns = self.query_columns if role == "query" else self.passage_columns
        for column in columns:
            for block in column.blocks(self.titles):
                blank = pc.equal(pc.utf8_trim_whitespace(block.languages), "")
                yield pc.if_else(pc.fill_null(blank, True), otherwise, block.languages)

    def fingerprint(self) -> dict[str, str]:
        """What decides the texts and pairs: checksums of the files by role, and `columns`."""
        files = {
            "pairs": self.pairs,
            "queries": None if self.roles.query else self.asked.file,
            "corpus": self.corpus and self.corpus.file,
        }
        columns = [_listed(self._columns_read)]
        columns += [_listed(_columns_of_texts(one)) for one in self._tables_beside]
        sums = {role: file_checksum(file) for role, file in files.items() if file}
        return {**sums, "columns": "; ".join(columns)}

    def passages(self) -> TextStream:
        """Stream (text, original id) of all passages.

        The corpus comes first, then the positives of all pairs, then each column of negatives.
        """
        for texts, ids, _ in self.titled_passages():
            yield texts, ids

    def titled_passages(self) -> TitledStream:
        """Stream (text, original id, title) as `passages` does; a text begins with its title."""
        for column in self.passage_columns:
            for block in column.blocks(self.titles):
                yield block.texts, block.ids, block.titles

    def queries(self) -> TextStream:
        """Stream (text, original id) of all queries."""
        for column in self.query_columns:
            for block in column.blocks(self.titles):
                yield block.texts, block.ids

    @property
    def min_grade(self) -> float | None:
        """Lowest grade of a positive in qrels; None for any above 0."""
        return self.label.min_grade if self.label else None

    @property
    def has_judgements(self) -> bool:
        """Whether the table holds qrels: an id of a query and one of a passage in each row."""
        roles = self.roles
        lists = [one for one in (roles.query_ids, roles.positive_ids) if one and one.is_list]
        by_id = roles.query_ids is not None and roles.positive_ids is not None
        return by_id and not lists and not roles.negative_ids

    def judgements(self) -> Iterator[tuple[pa.Array, pa.Array, NDArray[np.float64]]]:
        """Stream (query ids, passage ids, grades) of qrels; 1 without grades.

        A row whose grade is missing judges nothing and is left out.

        Raises:
            InputError: A row is broken, or a grade is no number.
        """
        roles = self.roles
        assert roles.query_ids is not None
        assert roles.positive_ids is not None
        columns = [roles.query_ids.column, roles.positive_ids.column]
        for arrays in self.pairs.batches([*columns, *([roles.label] if roles.label else [])]):
            grades = np.ones(len(arrays[0]))
            if self.label is not None:
                grades = self.label.grades(pa.chunked_array(arrays[2:]))
            known = ~np.isnan(grades)
            yield *(ids.filter(pa.array(known)) for ids in arrays[:2]), grades[known]

    def labels(self) -> pa.ChunkedArray | None:
        """The labels of all rows, or of all their passages; None where there are none."""
        if self.roles.answers:
            return pa.chunked_array(
                [
                    pc.if_else(
                        pc.greater(pc.fill_null(pc.list_value_length(texts), 0), 0), "true", "false"
                    ).cast(pa.large_string())
                    for (array,) in self.pairs.arrays([self.roles.answers])
                    for texts in [pc.struct_field(array, "text")]
                ],
                pa.large_string(),
            )
        if not self.roles.label:
            return None
        chunks = [pa.array([], pa.large_string())]
        where = f"column {self.roles.label!r} of {self.pairs.name}"
        for (array,) in self.pairs.arrays([self.roles.label]):
            values, _ = flat_values(array)
            if self.roles.label_field:
                values = pc.struct_field(values, self.roles.label_field)
            chunks.append(as_text(values, where))
        return pa.chunked_array(chunks)

    @property
    def _columns_read(self) -> dict[str, str]:
        """What is read from the table of pairs -> the column it stands in."""
        roles = self.roles
        asked: TextColumn | IdColumn | None = roles.query or roles.query_ids
        passages: TextColumn | IdColumn | None = roles.positive or roles.positive_ids
        negatives: list[TextColumn | IdColumn] = [*roles.negatives, *roles.negative_ids]
        named = {
            "query": _shown(asked),
            "passage": _shown(passages),
            "known negatives": ", ".join(map(_shown, negatives)),
            "query id": self.asked.id_column if roles.query else "",
            "label": roles.label_field or roles.label or roles.answers,
            "passage id": roles.positive.id_column if roles.positive else "",
        }
        return {role: column for role, column in named.items() if column}

    @property
    def _tables_beside(self) -> list[TextColumn]:
        """The queries and the corpus where they stand in tables of their own."""
        beside = [None if self.roles.query else self.asked, self.corpus]
        return [column for column in beside if column]

    def description(self) -> list[str]:
        """Which columns are read as what, and what was guessed, as sentences."""
        roles = self.roles
        rest = [name for name in self.pairs.columns if name not in roles.used]
        texts = [one for one in (roles.query, roles.positive, *roles.negatives) if one]
        labels = f"{roles.label}.{roles.label_field}"
        rest += [name for one in texts for name in one.other_fields if name != labels]
        lines = [f"read {self.pairs.name}: {_listed(self._columns_read)}" + _not_read(rest)]
        if self.other_splits:
            lines.append(f"split {self.split}; not read: {', '.join(self.other_splits)}")
        lines += [_table_line(column) for column in self._tables_beside]
        files = {one.file.name: one.file.notes for one in self._text_columns}
        files[self.pairs.name] = (*self.pairs.notes, *roles.notes)
        return lines + [
            f"{name}: {note}" for name, notes in files.items() for note in dict.fromkeys(notes)
        ]


def _shown(column: TextColumn | IdColumn | None) -> str:
    """A column as reports name it."""
    if column is None:
        return ""
    name = shown_column(column.column)
    return f"{name}.{column.field}" if column.field else name


def _not_read(columns: list[str]) -> str:
    columns = [name for name in columns if name != OF_DOCUMENT]
    shown = ", ".join(map(shown_column, columns[:8])) + (" ..." if len(columns) > 8 else "")
    return f"; not read: {shown}" if columns else ""


def _listed(columns: dict[str, str]) -> str:
    return ", ".join(f"{role} from {shown_column(column)}" for role, column in columns.items())


def _columns_of_texts(column: TextColumn) -> dict[str, str]:
    """What is read from a table of texts -> the column it stands in."""
    named = {"text": _shown(column), "title": column.title_column, "id": column.id_column}
    return {role: name for role, name in named.items() if name}


def _table_line(column: TextColumn) -> str:
    beside = {column.column, *column.beside}
    rest = [name for name in column.file.columns if name not in beside]
    used = _listed(_columns_of_texts(column))
    return f"read {column.file.name}: {used}" + _not_read(rest)


def _label_rule(tables: Tables, roles: PairColumns, fields: SourceFields) -> LabelRule | None:
    if roles.answers:
        return LabelRule(f"{roles.answers} (true: there are some)", tables.pairs.name)
    if not roles.label:
        unused = [name for name in ("positive_label", "negative_label") if getattr(fields, name)]
        if unused or fields.min_grade is not None:
            named = "--" + (unused or ["min_grade"])[0].replace("_", "-")
            raise ConfigError(
                f"{named} needs a column of labels or scores, found none in {tables.pairs.name} "
                f"({', '.join(tables.pairs.columns)}); name it with --label-column, or leave "
                f"{named} out"
            )
        return None
    return LabelRule(
        column=roles.label_field or roles.label,
        table=tables.pairs.name,
        min_grade=fields.min_grade,
        positive=fields.positive_label,
        negative=fields.negative_label,
        is_judgement=roles.query is None and roles.positive is None,
    )


def _refuse_unfit(path: str, tables: Tables, fields: SourceFields) -> None:
    """Refuse options that say nothing about this kind of input."""
    of_texts = ("corpus", "queries", "query_column", "passage_column", "negative_column")
    if tables.is_folder:
        unfit = [name for name in (*of_texts, "corpus_column") if getattr(fields, name)]
        if unfit:
            raise ConfigError(
                f"--{unfit[0].replace('_', '-')} does not fit a BEIR folder ({path}), which "
                "brings its own corpus and columns; leave it out"
            )
    elif not tables.split and (fields.split or fields.subset):
        named = "split" if fields.split else "subset"
        raise ConfigError(f"--{named} fits folders only, {path} is a file; leave it out")

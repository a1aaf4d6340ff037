"""Where pairs and texts come from, whatever their layout: streams of (text, original id)."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from stx_mine.errors import ConfigError, InputError
from stx_mine.inputs.beir import BeirFolder, beir_passages
from stx_mine.inputs.column_file import ColumnFile
from stx_mine.inputs.config import LanguageFields, SourceFields
from stx_mine.store.files import checksum

TextStream = Iterator[tuple[pa.Array, pa.Array]]
TitledStream = Iterator[tuple[pa.Array, pa.Array, pa.Array]]


@dataclass(frozen=True)
class PairSource:
    """Where pairs and texts come from: a BEIR folder, or a file of pairs with or without a corpus.

    Attributes:
        beir: The folder, if it is one.
        min_grade: Lowest grade of a positive in its qrels; None for any above 0.
        pairs: The file of pairs otherwise.
        query_column: Its column of queries.
        passage_column: Its column of positive passages.
        negative_columns: Its columns of known negatives.
        corpus: The corpus file, if there is one.
        corpus_column: Its column of passages.
        titles: Whether the titles of a folder are a part of its passages.
        language_column: Column of languages; None for `language` where there is one.
        language: Language of the texts for which no column names one.
    """

    beir: BeirFolder | None = None
    min_grade: float | None = None
    pairs: ColumnFile | None = None
    query_column: str = ""
    passage_column: str = ""
    negative_columns: tuple[str, ...] = ()
    corpus: ColumnFile | None = None
    corpus_column: str = ""
    titles: bool = True
    language_column: str | None = None
    language: str | None = None

    @classmethod
    def open(cls, path: str, fields: SourceFields, prefer_split: str) -> "PairSource":
        """Recognise what lies at `path`.

        Raises:
            InputError: A file or column is missing.
            ConfigError: An option does not fit the kind of input.
        """
        if Path(path).is_dir():
            unfit = [
                name
                for name in (
                    "corpus",
                    "query_column",
                    "passage_column",
                    "negative_column",
                    "corpus_column",
                )
                if getattr(fields, name)
            ]
            if unfit:
                raise ConfigError(
                    f"--{unfit[0].replace('_', '-')} does not fit a BEIR folder ({path}), which "
                    "brings its own corpus and columns; leave it out"
                )
            folder = BeirFolder.open(path, fields.split, prefer_split)
            return cls(beir=folder, min_grade=fields.min_grade)
        unfit = [name for name in ("split", "min_grade") if getattr(fields, name) is not None]
        if unfit:
            raise ConfigError(
                f"--{unfit[0].replace('_', '-')} fits BEIR folders only, {path} is a file; "
                "leave it out"
            )
        pairs = ColumnFile.open(path)
        corpus = ColumnFile.open(fields.corpus) if fields.corpus else None
        text_column = fields.corpus_column
        if corpus and text_column is None and "text" in corpus.columns:
            text_column = "text"
        return cls(
            pairs=pairs,
            query_column=pairs.pick(fields.query_column, 0, "--query-column"),
            passage_column=pairs.pick(fields.passage_column, 1, "--passage-column"),
            negative_columns=tuple(
                pairs.pick(name, 0, "--negative-column") for name in fields.negative_column
            ),
            corpus=corpus,
            corpus_column=corpus.pick(text_column, 0, "--corpus-column") if corpus else "",
        )

    def with_languages(self, fields: LanguageFields) -> "PairSource":
        """The same source, whose languages are read as the fields say.

        Raises:
            InputError: No file has the column that is named.
        """
        found = replace(self, language_column=fields.language_column, language=fields.language)
        if fields.language_column is not None and not any(
            column for _, column in found._language_columns()
        ):
            files = {str(file.path): file.columns for file, _ in found._language_columns()}
            listed = "; ".join(f"{path}: {', '.join(names)}" for path, names in files.items())
            raise InputError(
                f"--language-column {fields.language_column!r} is a column of no file of this "
                f"input ({listed}); name one of theirs"
            )
        return found

    def _language_columns(
        self, roles: tuple[str, ...] = ("query", "passage")
    ) -> list[tuple[ColumnFile, str | None]]:
        """The files of texts, in the order of their streams, and their columns of languages."""
        name = self.language_column or "language"
        found = []
        for role in roles:
            of_role = [f"{role}_{name}", name]
            for file in self._files(role):
                column = next((one for one in of_role if one in file.columns), None)
                found.append((file, column))
        return found

    def _files(self, role: str) -> list[ColumnFile]:
        """The files that the texts of a role come from, in the order of their stream."""
        if self.beir:
            return [self.beir.queries if role == "query" else self.beir.corpus]
        assert self.pairs is not None
        if role == "query":
            return [self.pairs]
        times = 1 + len(self.negative_columns)
        return [*([self.corpus] if self.corpus else []), *([self.pairs] * times)]

    @property
    def names_languages(self) -> bool:
        """Whether there is a column of languages, or one language for all."""
        return self.language is not None or any(one for _, one in self._language_columns())

    def languages(self, role: str) -> Iterator[pa.Array]:
        """Stream the languages of the rows of `queries()` or `passages()`; null for unknown.

        Known negatives of a row are in the language of its passage.
        """
        otherwise = pa.scalar(self.language, pa.large_string())
        for file, column in self._language_columns((role,)):
            for (values,) in file.batches([column or file.columns[0]]):
                blank = pc.fill_null(pc.equal(pc.utf8_trim_whitespace(values), ""), True)
                unknown = pa.array([True] * len(values)) if column is None else blank
                yield pc.if_else(unknown, otherwise, values)

    def fingerprint(self) -> dict[str, str]:
        """Checksums of the files, by role."""
        files = {
            "pairs": self.beir.qrels if self.beir else self.pairs,
            "queries": self.beir.queries if self.beir else None,
            "corpus": self.beir.corpus if self.beir else self.corpus,
        }
        return {role: checksum(file.path) for role, file in files.items() if file}

    def passages(self) -> TextStream:
        """Stream (text, original id) of all passages.

        The corpus comes first, then the positives of all pairs, then each column of negatives.
        """
        for texts, ids, _ in self.titled_passages():
            yield texts, ids

    def titled_passages(self) -> TitledStream:
        """Stream (text, original id, title) as `passages` does; a text begins with its title."""
        if self.beir:
            yield from beir_passages(self.beir.corpus, self.titles)
            return
        for texts, ids in self._passages_of_files():
            yield texts, ids, pa.nulls(len(texts), pa.large_string())

    def _passages_of_files(self) -> TextStream:
        if self.corpus:
            for (texts,) in self.corpus.batches([self.corpus_column]):
                yield texts, pa.nulls(len(texts), pa.large_string())
        for column in (self.passage_column, *self.negative_columns):
            yield from self._pair_texts(column)

    def queries(self) -> TextStream:
        """Stream (text, original id) of all queries."""
        if self.beir:
            yield from self.beir.query_texts()
        else:
            yield from self._pair_texts(self.query_column)

    def _pair_texts(self, column: str) -> TextStream:
        assert self.pairs is not None
        for (texts,) in self.pairs.batches([column]):
            yield texts, pa.nulls(len(texts), pa.large_string())

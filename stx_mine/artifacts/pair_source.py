"""Where pairs and texts come from, whatever their layout: streams of (text, original id)."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from stx_mine.artifacts.files import checksum
from stx_mine.artifacts.readers import BeirFolder, ColumnFile, beir_passages
from stx_mine.config import SourceFields
from stx_mine.errors import ConfigError

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

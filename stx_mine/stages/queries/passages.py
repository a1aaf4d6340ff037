"""Passages with their titles and where they stand, from pairs, a corpus file or a BEIR folder."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stx_mine.errors import ConfigError, InputError
from stx_mine.inputs.column_file import file_checksum
from stx_mine.inputs.config import SourceFields
from stx_mine.inputs.documents import DocumentFile, document_heading
from stx_mine.inputs.folders import brings_corpus, find_tables, open_corpus
from stx_mine.inputs.hub import local_copy
from stx_mine.inputs.names import OF_DOCUMENT
from stx_mine.inputs.roles import pair_columns
from stx_mine.inputs.text_column import TextBlock, TextColumn
from stx_mine.inputs.text_table import text_column
from stx_mine.stages.queries.config import QueriesConfig

# `title` is the query of a pair, or of a passage in a corpus; `passage_id` is its id there.
PASSAGE_SCHEMA = pa.schema(
    [
        ("passage", pa.large_string()),
        ("title", pa.large_string()),
        ("passage_id", pa.large_string()),
        ("source", pa.large_string()),
        ("source_row", pa.int64()),
        (OF_DOCUMENT, pa.large_string()),
    ]
)


@dataclass(frozen=True)
class PassageSource:
    """Passages in order: the corpus, then those of the pairs.

    Attributes:
        corpus: The corpus, if there is one.
        passages: The passages of the pairs, if there are any.
        titles: The queries of the pairs, in the same table.
    """

    corpus: TextColumn | None = None
    passages: TextColumn | None = None
    titles: TextColumn | None = None

    @classmethod
    def open(cls, config: QueriesConfig) -> "PassageSource":
        """Recognise what is named.

        Raises:
            ConfigError: Nothing is named, or an option does not fit the kind of input.
            InputError: A file or column is missing, or it cannot be told what one is.
        """
        if config.pairs is None and config.corpus is None:
            raise ConfigError(
                "expected PAIRS or --corpus, found neither; name a file of pairs, a BEIR folder, "
                "or a file of passages"
            )
        fields = SourceFields(
            query_column=config.query_column,
            passage_column=config.passage_column,
            encoding=config.encoding,
        )
        has_corpus = config.pairs is not None and brings_corpus(local_copy(config.pairs, None))
        options: tuple[str, ...] = ("corpus_column",) if config.corpus is None else ()
        kind = "--corpus"
        if config.pairs is None:
            options, kind = ("query_column", "passage_column"), "PAIRS"
        elif has_corpus:
            options = ("corpus", "query_column", "passage_column", "corpus_column")
            kind = f"a file instead of the BEIR folder {config.pairs}"
        for name in options:
            if getattr(config, name):
                raise ConfigError(
                    f"--{name.replace('_', '-')} needs {kind}, found none; leave it out"
                )
        path = config.pairs if has_corpus else config.corpus
        corpus = None
        if path is not None:
            file = open_corpus(path, fields)
            corpus = text_column(file, config.corpus_column, "--corpus-column")
        if config.pairs is None or has_corpus:
            return cls(corpus=corpus)
        roles = pair_columns(find_tables(config.pairs, fields, "train").pairs, fields, titled=True)
        if roles.query is None or roles.positive is None:
            raise InputError(
                f"expected texts in {config.pairs}, found ids; give the folder with its corpus"
            )
        return cls(corpus, roles.positive, roles.query)

    def fingerprint(self) -> dict[str, str]:
        """Checksums of the files, by role."""
        files = {"corpus": self.corpus, "pairs": self.passages}
        return {role: file_checksum(column.file) for role, column in files.items() if column}

    def blocks(self, block_size: int) -> Iterator[pa.Table]:
        """Stream all rows in `PASSAGE_SCHEMA`, so many a table; the last may have fewer."""
        waiting, num_waiting = list[pa.Table](), 0
        for table in self._tables():
            waiting.append(table)
            num_waiting += len(table)
            if num_waiting >= block_size:
                rows, start = pa.concat_tables(waiting), 0
                while num_waiting - start >= block_size:
                    yield rows.slice(start, block_size)
                    start += block_size
                waiting, num_waiting = [rows.slice(start)], num_waiting - start
        if num_waiting:
            yield pa.concat_tables(waiting)

    def _tables(self) -> Iterator[pa.Table]:
        if self.corpus is not None:
            start = 0
            for block in self.corpus.blocks():
                rows = np.arange(start, start + len(block.texts))
                yield _table(self.corpus, block, _titles(self.corpus, block), rows)
                start += len(block.texts)
        if self.passages is not None:
            assert self.titles is not None
            start = 0
            own = self.titles.read
            for arrays in self.passages.file.arrays([*own, *self.passages.read]):
                titles = self.titles.block(arrays[: len(own)])
                block = self.passages.block(arrays[len(own) :])
                num_rows = len(titles.texts)
                rows = np.arange(num_rows)
                if block.lengths is not None:
                    rows = np.repeat(rows, block.lengths)
                yield _table(self.passages, block, titles.texts.take(pa.array(rows)), start + rows)
                start += num_rows


def _table(
    column: TextColumn, block: TextBlock, titles: pa.Array, rows: NDArray[np.int64]
) -> pa.Table:
    """The texts of a block with the file and the rows in which they stand."""
    name = pa.scalar(column.file.path.name, pa.large_string())
    whole = pa.nulls(len(rows), pa.large_string())
    columns = [block.texts, titles, block.ids, pa.repeat(name, len(rows)), rows, whole]
    return pa.table(columns, schema=PASSAGE_SCHEMA)


def _titles(column: TextColumn, block: TextBlock) -> pa.Array:
    """The titles of passages; of documents their first headings."""
    if not isinstance(column.file.formats[0], DocumentFile):
        return block.titles
    texts, names = block.texts.to_pylist(), block.ids.to_pylist()
    found = [document_heading(name, text)[0] for name, text in zip(names, texts, strict=True)]
    return pa.array([title or None for title in found], pa.large_string())

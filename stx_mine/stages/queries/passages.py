"""Passages with their titles and where they stand, from pairs, a corpus file or a BEIR folder."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from stx_mine.errors import ConfigError
from stx_mine.inputs.beir import beir_passages, open_beir_corpus
from stx_mine.inputs.column_file import ColumnFile
from stx_mine.stages.queries.config import QueriesConfig
from stx_mine.store.files import checksum

# `title` is the query of a pair, or the title of a BEIR passage; `passage_id` is its `_id` there.
PASSAGE_SCHEMA = pa.schema(
    [
        ("passage", pa.large_string()),
        ("title", pa.large_string()),
        ("passage_id", pa.large_string()),
        ("source", pa.large_string()),
        ("source_row", pa.int64()),
    ]
)


@dataclass(frozen=True)
class PassageSource:
    """Files of passages, in order: the corpus, then the pairs.

    Attributes:
        beir: The corpus of a BEIR folder, if that is the input.
        corpus: The corpus file and its column of passages, if there is one.
        pairs: The file of pairs and its columns of titles and of passages, if there is one.
    """

    beir: ColumnFile | None = None
    corpus: tuple[ColumnFile, str] | None = None
    pairs: tuple[ColumnFile, str, str] | None = None

    @classmethod
    def open(cls, config: QueriesConfig) -> "PassageSource":
        """Recognise what is named.

        Raises:
            ConfigError: Nothing is named, or an option does not fit the kind of input.
            InputError: A file or column is missing.
        """
        if config.pairs is None and config.corpus is None:
            raise ConfigError(
                "expected PAIRS or --corpus, found neither; name a file of pairs, a BEIR folder, "
                "or a file of passages"
            )
        options: tuple[str, ...] = ("corpus_column",) if config.corpus is None else ()
        kind = "--corpus"
        if config.pairs is None:
            options, kind = ("query_column", "passage_column"), "PAIRS"
        elif Path(config.pairs).is_dir():
            options = ("corpus", "query_column", "passage_column", "corpus_column")
            kind = f"a file instead of the BEIR folder {config.pairs}"
        for name in options:
            if getattr(config, name):
                raise ConfigError(
                    f"--{name.replace('_', '-')} needs {kind}, found none; leave it out"
                )
        if config.pairs is not None and Path(config.pairs).is_dir():
            return cls(beir=open_beir_corpus(config.pairs))
        corpus = pairs = None
        if config.corpus is not None:
            file = ColumnFile.open(config.corpus)
            named = config.corpus_column or ("text" if "text" in file.columns else None)
            corpus = (file, file.pick(named, 0, "--corpus-column"))
        if config.pairs is not None:
            file = ColumnFile.open(config.pairs)
            titles = file.pick(config.query_column, 0, "--query-column")
            pairs = (file, titles, file.pick(config.passage_column, 1, "--passage-column"))
        return cls(corpus=corpus, pairs=pairs)

    def fingerprint(self) -> dict[str, str]:
        """Checksums of the files, by role."""
        files = {
            "beir": self.beir,
            "corpus": self.corpus and self.corpus[0],
            "pairs": self.pairs and self.pairs[0],
        }
        return {role: checksum(file.path) for role, file in files.items() if file}

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
        if self.beir:
            yield from _placed(self.beir, beir_passages(self.beir))
        if self.corpus:
            file, column = self.corpus
            yield from _placed(file, ((one, None, None) for (one,) in file.batches([column])))
        if self.pairs:
            file, title_column, column = self.pairs
            rows = file.batches([title_column, column])
            yield from _placed(file, ((texts, None, titles) for titles, texts in rows))


def _placed(
    file: ColumnFile, batches: Iterable[tuple[pa.Array, pa.Array | None, pa.Array | None]]
) -> Iterator[pa.Table]:
    """Tables of (texts, ids, titles) with the file and the rows in which they stand."""
    start = 0
    for texts, ids, titles in batches:
        num_rows = len(texts)
        none = pa.nulls(num_rows, pa.large_string())
        columns = [
            texts,
            none if titles is None else titles,
            none if ids is None else ids,
            pa.repeat(pa.scalar(file.path.name, pa.large_string()), num_rows),
            np.arange(start, start + num_rows),
        ]
        yield pa.table(columns, schema=PASSAGE_SCHEMA)
        start += num_rows

"""Candidates that another retriever found: a TREC run, or a file of (query, passage) texts."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray

from stx_mine.errors import InputError
from stx_mine.inputs.column_file import ColumnFile
from stx_mine.store.columns import find_rows
from stx_mine.store.digests import text_digests
from stx_mine.store.files import checksum
from stx_mine.store.texts import TextStore

_TREC_COLUMNS = ["query", "Q0", "passage", "rank", "score", "tag"]
_BLOCK_BYTES = 1 << 24


@dataclass(frozen=True)
class CandidateFile:
    """A file of candidates.

    Attributes:
        path: The file.
        columns: The file of texts; None for a TREC run, which names original ids.
    """

    path: Path
    columns: ColumnFile | None

    @classmethod
    def open(cls, path: str) -> "CandidateFile":
        """Recognise a file by its name: .trec, .run and .txt are TREC runs.

        Raises:
            InputError: It is missing, empty or of an unknown kind.
        """
        file = Path(path)
        if file.suffix not in (".trec", ".run", ".txt"):
            columns = ColumnFile.open(path)
            if len(columns.columns) < 2:
                raise InputError(
                    f"expected columns of queries and of passages in {path}, found "
                    f"{', '.join(columns.columns)}; name the right file"
                )
            return cls(file, columns)
        if not file.is_file() or file.stat().st_size == 0:
            what = "an empty file" if file.is_file() else "nothing"
            raise InputError(f"expected a TREC run at {path}, found {what}; check the path")
        return cls(file, None)

    def digest(self) -> str:
        """Checksum of the file."""
        return checksum(self.path)

    def pairs(self, store: TextStore) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
        """Candidates by the ids of a run; a document that was cut stands for all of its chunks.

        Returns:
            query_ids and passage_ids, int64 (C,) each, and the number of lines that name a query
            or a passage that the run does not have.

        Raises:
            InputError: A line is malformed, or no line names texts of the run.
        """
        query_keys, passage_keys = self._keys(store, "queries"), self._keys(store, "passages")
        queries, passages = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for query_column, passage_column in self._lines():
            found = find_rows(passage_column, passage_keys)
            rows, chunks = np.empty(0, np.int64), np.empty(0, np.int64)
            if store.documents is not None:
                by_digest = self.columns is not None
                rows, chunks = store.documents.chunks_named(passage_column, by_digest)
            whole = np.setdiff1d(np.arange(len(found)), rows)
            asking = find_rows(query_column, query_keys)
            queries += [asking[whole], asking[rows]]
            passages += [found[whole], chunks]
        query_ids, passage_ids = np.concatenate(queries), np.concatenate(passages)
        known = (query_ids >= 0) & (passage_ids >= 0)
        if not known.any():
            what = "texts" if self.columns else "original ids"
            raise InputError(
                f"none of the {len(known):,} lines of {self.path} names a query and a passage of "
                f"this run; expected their {what}"
                + ("" if self.columns else " (only BEIR folders bring ids; give texts otherwise)")
            )
        return query_ids[known], passage_ids[known], int((~known).sum())

    def _keys(self, store: TextStore, role: str) -> pa.Array:
        table = getattr(store, role)
        if self.columns is None:
            return table.column("original_id").combine_chunks()
        digests = [text_digests(chunk) for chunk in table.column("text").chunks]
        return pa.chunked_array(digests, pa.binary(16)).combine_chunks()

    def _lines(self) -> Iterator[tuple[pa.Array, pa.Array]]:
        if self.columns is not None:
            for queries, passages in self.columns.batches(list(self.columns.columns[:2])):
                yield text_digests(queries), text_digests(passages)
            return
        with self.path.open("rb") as handle:
            delimiter = "\t" if b"\t" in handle.readline() else " "
        try:
            reader = pa.csv.open_csv(
                self.path,
                read_options=pa.csv.ReadOptions(
                    column_names=_TREC_COLUMNS, block_size=_BLOCK_BYTES
                ),
                parse_options=pa.csv.ParseOptions(delimiter=delimiter, quote_char=False),
                convert_options=pa.csv.ConvertOptions(
                    include_columns=["query", "passage"],
                    column_types={name: pa.large_string() for name in ("query", "passage")},
                ),
            )
            for batch in reader:
                yield batch.column("query"), batch.column("passage")
        except pa.ArrowInvalid as error:
            raise InputError(
                f"expected a TREC run (query Q0 passage rank score tag) in {self.path}, found "
                f"something else ({' '.join(str(error).split())}); fix that line"
            ) from error

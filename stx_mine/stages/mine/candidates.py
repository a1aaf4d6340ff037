"""Candidates that another retriever found: a run of ids, or a file with columns of texts or ids."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stx_mine.core.role import Role
from stx_mine.errors import InputError
from stx_mine.inputs.column_file import ColumnFile, is_column_file
from stx_mine.inputs.config import SourceFields
from stx_mine.inputs.files import suffix_of
from stx_mine.inputs.names import PASSAGE_IDS, QUERY_IDS, named
from stx_mine.inputs.roles import pair_columns
from stx_mine.inputs.run_file import RunFile
from stx_mine.inputs.spaced import SPACED
from stx_mine.store.columns import find_rows
from stx_mine.store.digests import text_digests
from stx_mine.store.files import checksum
from stx_mine.store.made_ids import made_ids
from stx_mine.store.texts import TextStore

ROLES: tuple[Role, Role] = ("query", "passage")
_EXAMPLES, _EXAMPLE_LENGTH = 3, 60


class CandidateColumns(NamedTuple):
    """The columns of a file that name queries and passages.

    Attributes:
        query: Of the queries.
        passage: Of the passages.
        are_ids: Whether they hold original ids; texts otherwise.
    """

    query: str
    passage: str
    are_ids: bool


def choose_columns(file: ColumnFile) -> CandidateColumns:
    """The columns of ids where a file has both by name; else those of texts.

    Raises:
        InputError: It cannot be told which columns are meant.
    """
    ids = [named(file.columns, names) for names in (QUERY_IDS, PASSAGE_IDS)]
    if all(len(found) == 1 for found in ids):
        return CandidateColumns(ids[0][0], ids[1][0], are_ids=True)
    roles = pair_columns(file, SourceFields(label_column="none", negative_column=("none",)))
    if roles.query is None or roles.positive is None:
        raise InputError(
            f"expected texts, or ids of both queries and passages, in {file.name}, found "
            f"{', '.join(file.columns)}; name the columns query-id and corpus-id, or query and "
            "passage"
        )
    return CandidateColumns(roles.query.column, roles.positive.column, are_ids=False)


@dataclass
class Candidates:
    """What a file of candidates names.

    Attributes:
        query_ids: int64 (C,).
        passage_ids: int64 (C,); may repeat for a query.
        num_lines: Lines of the file.
        num_unknown: Role -> lines that name a text of that role that the run does not have; a
            line with two of them counts as one of an unknown query.
        examples: Role -> some of these names, distinct, in the order of the file.
    """

    query_ids: NDArray[np.int64]
    passage_ids: NDArray[np.int64]
    num_lines: int = 0
    num_unknown: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ROLES, 0))
    examples: dict[str, list[str]] = field(default_factory=lambda: {role: [] for role in ROLES})

    def add_unknown(self, role: str, names: pa.Array) -> None:
        """Count the lines that name an unknown text."""
        self.num_unknown[role] += len(names)
        shown = self.examples[role]
        if len(shown) < _EXAMPLES:
            new = [_shortened(name) for name in names.drop_null().unique().to_pylist()]
            shown += [name for name in dict.fromkeys(new) if name not in shown]
            del shown[_EXAMPLES:]


@dataclass(frozen=True)
class CandidateFile:
    """A file of candidates.

    Attributes:
        run: The run of another retriever; None for a file of columns.
        table: The file of columns; None for a run.
        columns: Those that name queries and passages; None for a run.
    """

    run: RunFile | None
    table: ColumnFile | None = None
    columns: CandidateColumns | None = None

    @classmethod
    def open(cls, path: str) -> "CandidateFile":
        """Recognise a file by its lines, and by its name where it has columns.

        Raises:
            InputError: It is missing, empty or of an unknown kind.
        """
        file = Path(path)
        if not is_column_file(file) or suffix_of(file) in SPACED:
            return cls(RunFile.open(file))
        if ".tsv" in file.suffixes and (run := RunFile.recognise(file, may_be_texts=True)):
            return cls(run)
        table = ColumnFile.open(file)
        return cls(None, table, choose_columns(table))

    @property
    def path(self) -> Path:
        """The file."""
        found = self.run or self.table
        assert found is not None, "a file is a run or a table"
        return found.path

    def digest(self) -> str:
        """Checksum of the file."""
        return checksum(self.path)

    @property
    def names(self) -> list[str]:
        """How it names texts: what decides, beside its bytes, which candidates it holds."""
        if self.run is not None:
            return [*self.run.layout.names.split(), "ids"]
        assert self.columns is not None
        return [self.columns.query, self.columns.passage, "ids" if self._by_id else "texts"]

    @property
    def _by_id(self) -> bool:
        return self.columns is None or self.columns.are_ids

    def candidates(self, store: TextStore) -> Candidates:
        """Candidates by the ids of a run; a document that was cut stands for all of its chunks.

        Raises:
            InputError: A line is malformed, or no line names texts of the run.
        """
        query_keys = self._keys(store.queries, "query")
        passage_keys = self._keys(store.passages, "passage")
        queries, passages = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        found = Candidates(queries[0], passages[0])
        for query_names, passage_names in self._lines():
            asking = find_rows(self._named(query_names), query_keys)
            wanted = self._named(passage_names)
            rows, ids = np.arange(len(asking)), find_rows(wanted, passage_keys)
            if store.documents is not None:
                cut, chunks = store.documents.chunks_named(wanted, by_digest=not self._by_id)
                whole = np.setdiff1d(rows, cut)
                rows, ids = np.concatenate([whole, cut]), np.concatenate([ids[whole], chunks])
            real = (ids >= 0) & (asking[rows] >= 0)
            queries.append(asking[rows[real]])
            passages.append(ids[real])
            found.num_lines += len(asking)
            found.add_unknown("query", query_names.filter(pa.array(asking < 0)))
            unknown = np.zeros(len(asking), np.bool_)
            unknown[rows[ids < 0]] = True
            found.add_unknown("passage", passage_names.filter(pa.array(unknown & (asking >= 0))))
        found.query_ids, found.passage_ids = np.concatenate(queries), np.concatenate(passages)
        if not len(found.query_ids):
            self._refuse_strange(found)
        return found

    def _refuse_strange(self, found: Candidates) -> None:
        of_ids = "original ids, or those that `export --to trec-run` makes"
        expected = of_ids if self._by_id else "texts"
        examples = [f"{role} {found.examples[role][0]!r}" for role in ROLES if found.examples[role]]
        raise InputError(
            f"none of the {found.num_lines:,} lines of {self.path} names a query and a passage of "
            f"this run{' (' + ', '.join(examples) + ')' if examples else ''}; expected their "
            f"{expected}"
        )

    def _keys(self, texts: pa.Table, role: Role) -> pa.Array:
        if not self._by_id:
            digests = [text_digests(chunk) for chunk in texts.column("text").chunks]
            return pa.chunked_array(digests, pa.binary(16)).combine_chunks()
        originals = texts.column("original_id")
        if originals.null_count == len(originals):
            # What `export` calls texts whose source has no ids.
            return made_ids(role, np.arange(len(originals)))
        return originals.combine_chunks()

    def _named(self, names: pa.Array) -> pa.Array:
        """What `_keys` holds, of names in the file."""
        return names if self._by_id else text_digests(names)

    def _lines(self) -> Iterator[tuple[pa.Array, pa.Array]]:
        if self.run is not None:
            yield from self.run.batches()
        if self.table is not None and self.columns is not None:
            batches = self.table.batches([self.columns.query, self.columns.passage])
            yield from ((queries, passages) for queries, passages in batches)


def _shortened(name: str) -> str:
    name = " ".join(name.split())
    return name if len(name) <= _EXAMPLE_LENGTH else name[: _EXAMPLE_LENGTH - 3] + "..."

"""What a layout is: the files that a trainer wants, and the lines of them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stx_mine.core.ragged import offsets_of
from stx_mine.stages.export.core.mined_rows import MinedRows
from stx_mine.stages.export.row_source import RowSource
from stx_mine.stages.export.text_ids import IdKind, NamedTexts, TextIds
from stx_mine.store.tables import TableWriter

_TEXTS_AT_ONCE = 8_192
_BREAKS = r"[\t\r\n]+"


@dataclass(frozen=True)
class SideFile:
    """A file beside those of rows.

    Attributes:
        write: How it is written.
        tables: Its lines, some at a time.
    """

    write: TableWriter
    tables: Iterator[pa.Table]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a trainer wants its rows.

    Attributes:
        use: How to load it, as its dataset card says.
        path: Its file of lines, below the folder of the export; with a `*` where there may be
            several, which stands for the number of each.
        write: How lines are written.
        lines: (rows, texts, k, whether scores are wanted) -> lines; None where the file of lines
            is one of those beside.
        fewest: Fewest negatives of a row that it can hold; None for k.
        per_query: Whether all positives of a query share one list of negatives.
        id_kind: The ids of texts that it holds.
        beside: Path -> the other files.
        configs: Name -> files, for `datasets.load_dataset`; empty where it is loaded otherwise.
        one_line: Whether it holds texts as lines, whose tabs and line breaks become spaces.
        equal_for: Who fails on rows of different lengths; empty where nobody does.
    """

    use: str
    path: str
    write: TableWriter
    lines: Callable[[MinedRows, NamedTexts, int, bool], pa.Table] | None
    fewest: int | None = 1
    per_query: bool = False
    id_kind: IdKind = "none"
    beside: Callable[[RowSource], Mapping[str, SideFile]] = field(default=lambda source: {})
    configs: Mapping[str, str] = field(default_factory=dict)
    one_line: bool = False
    equal_for: str = ""

    def needs(self, k: int, drop_short: bool) -> int:
        """Fewest negatives of the rows that are kept."""
        return k if drop_short or self.fewest is None else self.fewest


def numbered(path: str, number: int, num_files: int) -> str:
    """One of the files that a path with a `*` stands for."""
    return path.replace("*", f"{number:05d}-of-{num_files:05d}")


def lists(offsets: NDArray[np.int64], values: pa.Array) -> pa.Array:
    """A column of lists; list i is values[offsets[i]:offsets[i + 1]]."""
    return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), values)


def structs(**columns: pa.Array) -> pa.Array:
    """Columns as one column of objects."""
    return pa.StructArray.from_arrays(list(columns.values()), names=list(columns))


def query_offsets(rows: MinedRows) -> NDArray[np.int64]:
    """int64 (Q + 1,): where the rows, and so the positives, of each query begin and end."""
    return np.append(rows.firsts(), len(rows))


@dataclass(frozen=True)
class Joined:
    """Positives and negatives of each owner in one sequence, positives first.

    Attributes:
        owners: int64 (M,), rising.
        passage_ids: int64 (M,).
        labels: int64 (M,), 1 for a positive, 0 for a negative.
        scores: float32 (M,).
    """

    owners: NDArray[np.int64]
    passage_ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    scores: NDArray[np.float32]

    @classmethod
    def of(
        cls, owner_of_row: NDArray[np.int64], positives: MinedRows, negatives: MinedRows
    ) -> "Joined":
        """Join the positives of rows with the negatives of owners, row numbers of `negatives`."""
        lengths = negatives.negatives.lengths()
        owners = np.concatenate([owner_of_row, np.repeat(np.arange(len(negatives)), lengths)])
        order = np.argsort(owners, kind="stable")
        ids = np.concatenate([positives.positive_ids, negatives.negatives.values])
        scores = np.concatenate([positives.positive_scores, negatives.negative_scores])
        labels = (order < len(positives)).astype(np.int64)
        return cls(owners[order], ids[order], labels, scores[order])

    @property
    def offsets(self) -> NDArray[np.int64]:
        """Where each owner begins and ends."""
        return offsets_of(np.bincount(self.owners))

    def best_first(self) -> "Joined":
        """Those of each owner by score; equal ones in the order in which they stand."""
        order = np.lexsort((-self.scores, self.owners))
        return Joined(self.owners, self.passage_ids[order], self.labels[order], self.scores[order])


def text_tables(
    texts: pa.Table, ids: TextIds | None, id_name: str, **more: str
) -> Iterator[pa.Table]:
    """Yield all texts of one role with their ids, a block at a time, at least one table.

    Args:
        texts: Row number = id.
        ids: Their names; None for int64 numbers.
        id_name: Name of the column of ids.
        **more: Columns between those of ids and of texts, of one value each.
    """
    for start in range(0, max(texts.num_rows, 1), _TEXTS_AT_ONCE):
        block = texts.column("text").slice(start, _TEXTS_AT_ONCE)
        rows = np.arange(start, start + len(block))
        names = pa.array(rows) if ids is None else ids.take(rows)
        constant = {name: pa.array([value] * len(block)) for name, value in more.items()}
        yield pa.table({id_name: names, **constant, "text": block})


def text_lines(texts: pa.Table, ids: TextIds) -> Iterator[pa.Table]:
    """Yield all texts of one role with their ids, tabs and line breaks as spaces."""
    for table in text_tables(texts, ids, "id"):
        line = pc.replace_substring_regex(table.column("text"), _BREAKS, " ")
        yield table.set_column(1, "text", line)


def num_broken(texts: pa.Table) -> int:
    """How many texts hold tabs or line breaks."""
    return sum(
        pc.sum(pc.match_substring_regex(chunk, _BREAKS)).as_py() or 0
        for chunk in texts.column("text").chunks
    )

"""Blocks of passages: which are still to make, the pairs of each, the counts of all."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stx_mine.inputs.names import OF_DOCUMENT
from stx_mine.stages.queries.chunked import ChunkedSource
from stx_mine.stages.queries.config import QueriesConfig
from stx_mine.stages.queries.counts import (
    BlockCounts,
    FilterCounts,
    MethodCounts,
    QueriesCounts,
    WrittenCounts,
)
from stx_mine.stages.queries.makers import Made, Maker, Passage, crop_passages, cut_titles
from stx_mine.stages.queries.passages import PASSAGE_SCHEMA
from stx_mine.store.digests import text_numbers

_COUNTS = b"counts"
# What filters read, and nobody after them: the row of the input, that with which the block begins,
# and the number of the query in it.
HIDDEN = ("row", "block", "item")
_SCHEMA = pa.schema(
    [
        ("query", pa.large_string()),
        ("passage", pa.large_string()),
        ("method", pa.large_string()),
        ("kind", pa.large_string()),
        *(field for field in PASSAGE_SCHEMA if field.name not in ("passage", "title")),
        *((name, pa.int64()) for name in HIDDEN),
    ]
)


@dataclass(frozen=True)
class Rows:
    """Which text each row of the input holds.

    Attributes:
        numbers: int64 (rows,) number of each text; -1 where it is empty.
        first: Bool (rows,) the first row of each text.
        documents: int64 (rows,) number of the document of each chunk; -1 for none.
        starts: int64 (blocks,) the row with which each block begins.
    """

    numbers: NDArray[np.int64]
    first: NDArray[np.bool_]
    documents: NDArray[np.int64]
    starts: NDArray[np.int64]

    @classmethod
    def read(cls, source: ChunkedSource, block_size: int) -> "Rows":
        """Read the input once, `block_size` rows at a time."""
        parts, documents, sizes = [np.empty(0, np.int64)], [np.empty(0, np.int64)], [0]
        for block in source.blocks(block_size):
            parts += [text_numbers(chunk) for chunk in block.column("passage").chunks]
            documents += [text_numbers(chunk) for chunk in block.column(OF_DOCUMENT).chunks]
            sizes.append(len(block))
        numbers = np.concatenate(parts)
        first = np.zeros(len(numbers), bool)
        first[np.unique(numbers, return_index=True)[1]] = True
        starts = np.cumsum(sizes)[:-1]
        return cls(numbers, first & (numbers >= 0), np.concatenate(documents), starts)


def missing_blocks(
    source: ChunkedSource, config: QueriesConfig, rows: Rows, wanted: set[str], names: list[str]
) -> Iterator[tuple[str, pa.Table, list[Passage], int]]:
    """Yield name, rows, passages and first row of each block that is wanted.

    Args:
        source: The input.
        config: The config.
        rows: Which text each row holds.
        wanted: Names of the blocks that are not made yet.
        names: Names of all blocks, in order.

    Yields:
        The passages are those that may get a query: each text once, but all rows for titles.
    """
    for number, block in enumerate(source.blocks(config.block_size)):
        if names[number] not in wanted:
            continue
        start = int(rows.starts[number])
        texts, titles = (block.column(name).to_pylist() for name in ("passage", "title"))
        passages = [
            Passage(
                row,
                texts[row],
                (titles[row] or "").strip(),
                int(rows.numbers[start + row]),
                bool(rows.first[start + row]),
            )
            for row in range(len(block))
            if rows.numbers[start + row] >= 0
            and (rows.first[start + row] or "titles" in config.method)
        ]
        yield names[number], block, passages, start


@dataclass(frozen=True)
class PairMaker:
    """Makes pairs of passages.

    Attributes:
        config: The config.
        makers: One per method.
        written: Has a server write queries of the passages of a block, which begins with a row of
            the input; None without a server.
    """

    config: QueriesConfig
    makers: dict[str, Maker]
    written: Callable[[list[Passage], int], WrittenCounts] | None = None

    def pairs_of(self, block: pa.Table, passages: list[Passage], start: int) -> pa.Table:
        """The pairs of a block in the order of its rows, with `BlockCounts` in the metadata.

        Args:
            block: Its rows.
            passages: Those that may get a query.
            start: The row of the input with which it begins.
        """
        config = self.config
        cut = cut_titles(passages) if config.cut_titles else None
        crops = written = None
        if "crop" in self.makers:
            crops = crop_passages([one for one in passages if one.text], config)
        if self.written is not None:
            written = self.written([one for one in passages if one.first and one.text], start)
        methods: dict[str, MethodCounts] = {}
        lines = list[_Line]()
        for method, make in self.makers.items():
            asked = [passage for passage in passages if passage.first or method == "titles"]
            left = [one for one in asked if one.text]
            made = make(left) if left else []
            methods[method] = _method_counts(made, len(asked), self._wanted(method))
            for one, found in zip(left, made, strict=True):
                lines += _lines_of(one, found, method, len(lines))
        lines.sort(key=lambda line: line.row)
        table = _table(block, lines, start)
        counts = BlockCounts(methods, cut, crops, written)
        metadata = {_COUNTS: json.dumps(counts.to_json()).encode()}
        return table.replace_schema_metadata(metadata)

    def _wanted(self, method: str) -> int:
        """Queries that a passage should get."""
        if method != "generate" or self.written is None:
            return self.config.per_passage
        singles = [kind for kind in self.config.kinds if kind != "multi"]
        return self.config.per_passage * max(1, len(singles))


class _Line(NamedTuple):
    row: int
    query: str
    passage: str
    method: str
    kind: str | None
    item: int


def _lines_of(passage: Passage, made: Made, method: str, number: int) -> Iterator[_Line]:
    """The pairs of a passage; `number` are before it."""
    kinds = made.kinds or (None,) * len(made.queries)
    items = made.items or (0,) * len(made.queries)
    for place, (query, kind, item) in enumerate(zip(made.queries, kinds, items, strict=True)):
        yield _Line(passage.row, query, passage.text, method, kind, item or number + place)


def _table(block: pa.Table, lines: list[_Line], start: int) -> pa.Table:
    rows = np.array([line.row for line in lines], np.int64)
    taken = block.take(pa.array(rows))
    columns = {
        name: pa.array([getattr(line, name) for line in lines], pa.large_string())
        for name in ("query", "passage", "method", "kind")
    }
    columns |= {name: taken.column(name) for name in ("passage_id", "source", "source_row")}
    columns[OF_DOCUMENT] = taken.column(OF_DOCUMENT)
    columns["row"] = pa.array(start + rows)
    columns["block"] = pa.repeat(pa.scalar(start, pa.int64()), len(rows))
    columns["item"] = pa.array([line.item for line in lines], pa.int64())
    return pa.table([columns[name] for name in _SCHEMA.names], schema=_SCHEMA)


def _method_counts(made: list[Made], num_asked: int, wanted: int) -> MethodCounts:
    reasons = Counter(one.reason for one in made if not one.queries)
    if num_asked > len(made):
        reasons["only_its_title"] = num_asked - len(made)
    lengths = [len(one.queries) for one in made]
    return MethodCounts(
        passages_in=num_asked,
        passages_kept=sum(map(bool, lengths)),
        dropped=dict(sorted(reasons.items())),
        queries=sum(lengths),
        passages_with_fewer=sum(0 < length < wanted for length in lengths),
    )


def counts_of(
    tables: list[pa.Table], rows: Rows, filtered: FilterCounts | None, documents_cut: int
) -> QueriesCounts:
    """The counts of all blocks.

    Args:
        tables: At least one, as `PairMaker` makes them.
        rows: Which text each row holds.
        filtered: What filters dropped of them; None where there was none.
        documents_cut: Documents that were cut into chunks.
    """
    num_distinct, num_filled = int(rows.first.sum()), int((rows.numbers >= 0).sum())
    made = [BlockCounts.from_json(json.loads(table.schema.metadata[_COUNTS])) for table in tables]
    return QueriesCounts(
        rows_in=len(rows.numbers),
        passages=num_distinct,
        rows_dropped={
            "empty": len(rows.numbers) - num_filled,
            "repeated": num_filled - num_distinct,
        },
        pairs=sum(map(len, tables)) if filtered is None else filtered.pairs_kept,
        made=reduce(add, made),
        filtered=filtered,
        documents_cut=documents_cut,
    )

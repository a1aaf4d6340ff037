"""Blocks of passages: which are still to make, the pairs of each, the counts of all."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stx_mine.stages.queries.config import QueriesConfig
from stx_mine.stages.queries.counts import BlockCounts, MethodCounts, QueriesCounts
from stx_mine.stages.queries.makers import Made, Maker, Passage, crop_passages, cut_titles
from stx_mine.stages.queries.passages import PASSAGE_SCHEMA, PassageSource
from stx_mine.store.digests import text_numbers

_COUNTS = b"counts"
_SCHEMA = pa.schema(
    [
        ("query", pa.large_string()),
        ("passage", pa.large_string()),
        ("method", pa.large_string()),
        *(field for field in PASSAGE_SCHEMA if field.name not in ("passage", "title")),
    ]
)


@dataclass(frozen=True)
class Rows:
    """Which text each row of the input holds.

    Attributes:
        numbers: int64 (rows,) number of each text; -1 where it is empty.
        first: Bool (rows,) the first row of each text.
    """

    numbers: NDArray[np.int64]
    first: NDArray[np.bool_]

    @classmethod
    def read(cls, source: PassageSource, block_size: int) -> "Rows":
        """Read the input once, `block_size` rows at a time."""
        parts = [np.empty(0, np.int64)]
        for block in source.blocks(block_size):
            parts += [text_numbers(chunk) for chunk in block.column("passage").chunks]
        numbers = np.concatenate(parts)
        first = np.zeros(len(numbers), bool)
        first[np.unique(numbers, return_index=True)[1]] = True
        return cls(numbers, first & (numbers >= 0))


def missing_blocks(
    source: PassageSource, config: QueriesConfig, rows: Rows, wanted: set[str], names: list[str]
) -> Iterator[tuple[str, pa.Table, list[Passage]]]:
    """Yield the name, the rows and the passages of each block that is wanted.

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
        start = number * config.block_size
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
        yield names[number], block, passages


def pairs_of(
    block: pa.Table, passages: list[Passage], config: QueriesConfig, makers: dict[str, Maker]
) -> pa.Table:
    """The pairs of a block in the order of its rows, with `BlockCounts` in the metadata."""
    cut = cut_titles(passages) if config.cut_titles else None
    crops = None
    if "crop" in makers:
        crops = crop_passages([one for one in passages if one.text], config)
    methods: dict[str, MethodCounts] = {}
    lines = list[tuple[int, str, str, str]]()
    for method, make in makers.items():
        asked = [passage for passage in passages if passage.first or method == "titles"]
        left = [one for one in asked if one.text]
        made = make(left) if left else []
        methods[method] = _method_counts(made, len(asked), config.per_passage)
        for one, found in zip(left, made, strict=True):
            lines += [(one.row, query, one.text, method) for query in found.queries]
    lines.sort(key=lambda line: line[0])
    rows, *texts = [list(column) for column in zip(*lines, strict=True)] if lines else [[]] * 4
    taken = block.take(pa.array(rows, pa.int64()))
    columns = [pa.array(text, pa.large_string()) for text in texts]
    columns += [taken.column(name) for name in ("passage_id", "source", "source_row")]
    counts = BlockCounts(methods, cut, crops)
    metadata = {_COUNTS: json.dumps(counts.to_json()).encode()}
    return pa.table(columns, schema=_SCHEMA).replace_schema_metadata(metadata)


def _method_counts(made: list[Made], num_asked: int, per_passage: int) -> MethodCounts:
    reasons = Counter(one.reason for one in made if not one.queries)
    if num_asked > len(made):
        reasons["only_its_title"] = num_asked - len(made)
    lengths = [len(one.queries) for one in made]
    return MethodCounts(
        passages_in=num_asked,
        passages_kept=sum(map(bool, lengths)),
        dropped=dict(sorted(reasons.items())),
        queries=sum(lengths),
        passages_with_fewer=sum(0 < length < per_passage for length in lengths),
    )


def counts_of(tables: list[pa.Table], rows: Rows) -> QueriesCounts:
    """The counts of all blocks.

    Args:
        tables: At least one, as `pairs_of` makes them.
        rows: Which text each row holds.
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
        pairs=sum(map(len, tables)),
        made=reduce(add, made),
    )

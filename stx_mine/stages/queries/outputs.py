"""The files of finished queries: pairs, and all passages where documents were cut."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stx_mine.inputs.names import OF_DOCUMENT
from stx_mine.stages.queries.blocks import HIDDEN, Rows
from stx_mine.stages.queries.chunked import ChunkedSource
from stx_mine.stages.queries.config import QueriesConfig

PASSAGES_FILE = "passages.parquet"
_SCHEMA = pa.schema([(name, pa.large_string()) for name in ("_id", "text", OF_DOCUMENT)])


@dataclass(frozen=True)
class QueryOutputs:
    """What is written of the pairs of all blocks.

    Attributes:
        config: The config.
        source: The passages.
        rows: Which text each row of them holds.
        tables: The pairs of each block.
    """

    config: QueriesConfig
    source: ChunkedSource
    rows: Rows
    tables: list[pa.Table]

    def pairs(self, kept: NDArray[np.bool_] | None) -> Iterator[pa.Table]:
        """The pairs that are kept, in their order; None for all."""
        config = self.config
        left = [*HIDDEN, *([] if config.is_served else ["kind"])]
        left += [] if config.chunk else [OF_DOCUMENT]
        start = 0
        for table in self.tables:
            found = table.replace_schema_metadata().drop_columns(left)
            if kept is not None:
                found = found.filter(pa.array(kept[start : start + len(table)]))
            start += len(table)
            yield found

    def others(self, with_pairs: NDArray[np.int64]) -> pa.Array:
        """The distinct texts of all rows of the input but some, as large strings."""
        parts = [pa.array([], pa.large_string())]
        for numbers, block in self._distinct():
            parts += block["passage"].filter(pa.array(~np.isin(numbers, with_pairs))).chunks
        return pa.concat_arrays(parts)

    def passages(self) -> Iterator[pa.Table]:
        """All distinct passages, each as its pairs have it."""
        texts = pa.concat_tables(self.tables).select(["row", "passage"])
        rows, first = np.unique(texts["row"].to_numpy(), return_index=True)
        for numbers, block in self._distinct():
            places = np.searchsorted(rows, numbers)
            has_pairs = np.isin(numbers, rows)
            own = texts["passage"].take(pa.array(first[places[has_pairs]]))
            found = pc.replace_with_mask(
                block["passage"].combine_chunks(), pa.array(has_pairs), own.combine_chunks()
            )
            yield pa.table([block["passage_id"], found, block[OF_DOCUMENT]], schema=_SCHEMA)

    def _distinct(self) -> Iterator[tuple[NDArray[np.int64], pa.Table]]:
        """The first row of each text, in blocks: int64 numbers of the rows, and their table."""
        start = 0
        for block in self.source.blocks(self.config.block_size):
            places = np.flatnonzero(self.rows.first[start : start + len(block)])
            yield start + places, block.take(pa.array(places))
            start += len(block)

"""The rows of a TREC run: one a query, its hits in order."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stx_mine.inputs.run_file import RunFile
from stx_mine.stages.verify.row_blocks import RowBlock, RowColumn, RowReader


def run_rows(path: Path) -> RowReader:
    """The hits of a query, which stand one after the other, as the negatives of a row.

    Raises:
        InputError: The first line is none of a run.
    """
    run = RunFile.open(path)

    def read(negatives: bool) -> Iterator[tuple[int, RowBlock]]:
        # The hits of the last query may go on, over many batches.
        waiting: list[tuple[pa.Array, pa.Array]] = []
        for queries, hits in run.batches():
            whole = int(_starts(queries)[-1]) if len(queries) else 0
            if whole or (waiting and len(queries) and waiting[-1][0][-1] != queries[0]):
                waiting.append((queries.slice(0, whole), hits.slice(0, whole)))
                yield 0, _block(waiting)
                waiting = []
            if len(queries):
                waiting.append((queries.slice(whole), hits.slice(whole)))
        if waiting:
            yield 0, _block(waiting)

    described = "read a TREC run: a row per query, each document at most once; it holds no texts"
    return RowReader((path,), read, (described,))


def _starts(queries: pa.Array) -> NDArray[np.int64]:
    """Where the hits of each query begin."""
    changed = pc.not_equal(queries.slice(1), queries.slice(0, len(queries) - 1))
    return np.append(0, np.flatnonzero(changed.to_numpy(zero_copy_only=False)) + 1)


def _block(parts: list[tuple[pa.Array, pa.Array]]) -> RowBlock:
    """The rows of whole queries."""
    queries, hits = map(pa.concat_arrays, zip(*parts, strict=True))
    starts = _starts(queries)
    # A query and a document may have the same id.
    prefix, space = (pa.scalar(text, pa.large_string()) for text in ("query", " "))
    names = pc.binary_join_element_wise(prefix, queries.take(pa.array(starts)), space)
    lengths = np.diff(starts, append=len(hits))
    return RowBlock(RowColumn("qid", None, names), (), (RowColumn("docid", lengths, hits),))

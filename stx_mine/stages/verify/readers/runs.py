"""TREC runs: a row per query, its hits in order."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stx_mine.errors import InputError
from stx_mine.stages.verify.readers.blocks import RowBlock, RowColumn, RowReader
from stx_mine.stages.verify.readers.documents import opened
from stx_mine.stages.verify.readers.tables import TEXT, separated


def run_rows(path: Path) -> RowReader:
    """`qid Q0 docid rank score tag` a line, the hits of a query one after the other.

    Raises:
        InputError: The first line is none.
    """
    separator = _separator(path)

    def read(path: Path, negatives: bool) -> Iterator[RowBlock]:
        queries, hits = (pa.array([], TEXT) for _ in range(2))
        for more_queries, _, more_hits, *_ in separated(path, separator, 6):
            queries, hits = (
                pa.concat_arrays(both) for both in ((queries, more_queries), (hits, more_hits))
            )
            starts = _starts(queries)
            # The hits of the last query may go on.
            whole = int(starts[-1])
            if whole:
                yield _block(queries.slice(0, whole), hits.slice(0, whole), starts[:-1])
            queries, hits = queries.slice(whole), hits.slice(whole)
        if len(queries):
            yield _block(queries, hits, np.zeros(1, np.int64))

    described = "read a TREC run: a row per query, each document at most once; it holds no texts"
    return RowReader((path,), read, described)


def _separator(path: Path) -> str:
    """What parts the fields of the first line: a space or a tab."""
    with opened(path) as handle:
        line = handle.readline().rstrip("\r\n")
    for separator in " \t":
        if len(line.split(separator)) >= 6 and "" not in line.split(separator):
            return separator
    raise InputError(
        f"expected qid Q0 docid rank score tag in the first line of {path}, one space or tab "
        f"between them, found {line[:60]!r}; write it so"
    )


def _starts(queries: pa.Array) -> NDArray[np.int64]:
    """Where the hits of each query begin."""
    changed = pc.not_equal(queries.slice(1), queries.slice(0, len(queries) - 1))
    return np.append(0, np.flatnonzero(changed.to_numpy(zero_copy_only=False)) + 1)


def _block(queries: pa.Array, hits: pa.Array, starts: NDArray[np.int64]) -> RowBlock:
    # A query and a document may have the same id.
    prefix, space = (pa.scalar(text, TEXT) for text in ("query", " "))
    names = pc.binary_join_element_wise(prefix, queries.take(pa.array(starts)), space)
    lengths = np.diff(starts, append=len(hits))
    return RowBlock(RowColumn("qid", None, names), (), (RowColumn("docid", lengths, hits),))

"""Texts once, and lists of ids with the scores to distil, as PyLate's `KDProcessing` joins them.

Source: `pylate/utils/processing.py` and `collator.py` of lightonai/pylate (1.6): tables with
`query_id` and `text`, `document_id` and `text`, and rows of `query_id`, `document_ids`, `scores`.
"""

import numpy as np
import pyarrow as pa

from stx_mine.stages.export.core.mined_rows import MinedRows
from stx_mine.stages.export.layouts.layout import Joined, Layout, SideFile, lists, text_tables
from stx_mine.stages.export.row_source import RowSource
from stx_mine.stages.export.text_ids import NamedTexts
from stx_mine.store.tables import write_parquet


def _lines(rows: MinedRows, texts: NamedTexts, k: int, scores: bool) -> pa.Table:
    """One line per row: ids of its positive, then of its negatives."""
    joined = Joined.of(np.arange(len(rows)), rows, rows)
    return pa.table(
        {
            "query_id": rows.query_ids,
            "document_ids": lists(joined.offsets, pa.array(joined.passage_ids)),
            "scores": lists(joined.offsets, pa.array(joined.scores)),
        }
    )


def _texts(source: RowSource) -> dict[str, SideFile]:
    store = source.texts.store
    queries = text_tables(store.queries, None, "query_id")
    documents = text_tables(store.passages, None, "document_id")
    return {
        "queries/train-00000-of-00001.parquet": SideFile(write_parquet, queries),
        "documents/train-00000-of-00001.parquet": SideFile(write_parquet, documents),
    }


THREE_TABLE = Layout(
    use='`load_dataset(DIR, "scores")` gives ids of documents, the positive first, and their\n'
    'scores; `"queries"` and `"documents"` hold the texts (PyLate joins them with\n'
    "`KDProcessing`; its collator wants lists of equal length: `--short-rows drop`).",
    path="scores/train-*.parquet",
    write=write_parquet,
    lines=_lines,
    id_kind="number",
    beside=_texts,
    configs={
        "scores": "scores/*.parquet",
        "queries": "queries/*.parquet",
        "documents": "documents/*.parquet",
    },
    equal_for="the collator of PyLate",
)

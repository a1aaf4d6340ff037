"""Training data of Tevatron: passages inline, or ids and a corpus.

Source: `README.md` and `src/tevatron/retriever/dataset.py` of texttron/tevatron. Inline:
`query_id`, `query`, and lists `positive_passages` and `negative_passages` of `docid`, `title`,
`text`; a title is put before the text where there is one, and `score` is what `DistilTrainDataset`
distils. By ids: `query_id`, `query_text`, lists `positive_document_ids` and
`negative_document_ids`, and a corpus of `docid` and `text`.
"""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stx_mine.stages.export.core.mined_rows import MinedRows
from stx_mine.stages.export.layouts.layout import (
    Layout,
    SideFile,
    lists,
    query_offsets,
    structs,
    text_tables,
)
from stx_mine.stages.export.row_source import RowSource
from stx_mine.stages.export.text_ids import NamedTexts
from stx_mine.store.tables import write_json_lines, write_parquet


def _inline(rows: MinedRows, texts: NamedTexts, k: int, scores: bool) -> pa.Table:
    """One line per query with the texts of all its passages."""

    def passages(ids: NDArray[np.int64], values: NDArray[np.float32]) -> pa.Array:
        score = {"score": pa.array(values, pa.float64())} if scores else {}
        return structs(docid=texts.passage_ids.take(ids), text=texts.passages(ids), **score)

    queries = rows.take(rows.firsts())
    positives = passages(rows.positive_ids, rows.positive_scores)
    negatives = passages(queries.negatives.values, queries.negative_scores)
    return pa.table(
        {
            "query_id": texts.query_ids.take(queries.query_ids),
            "query": texts.queries(queries.query_ids),
            "positive_passages": lists(query_offsets(rows), positives),
            "negative_passages": lists(queries.negatives.offsets, negatives),
        }
    )


def _by_ids(rows: MinedRows, texts: NamedTexts, k: int, scores: bool) -> pa.Table:
    """One line per query with the ids of all its passages."""
    queries, ids = rows.take(rows.firsts()), texts.passage_ids
    return pa.table(
        {
            "query_id": texts.query_ids.take(queries.query_ids),
            "query_text": texts.queries(queries.query_ids),
            "positive_document_ids": lists(query_offsets(rows), ids.take(rows.positive_ids)),
            "negative_document_ids": lists(
                queries.negatives.offsets, ids.take(queries.negatives.values)
            ),
        }
    )


def _corpus(source: RowSource) -> dict[str, SideFile]:
    tables = text_tables(source.texts.store.passages, source.texts.passage_ids, "docid")
    return {"corpus/train-00000-of-00001.parquet": SideFile(write_parquet, tables)}


TEVATRON = Layout(
    use="Tevatron: `--dataset_name DIR`, or `--dataset_name json --dataset_path FILE`;\n"
    "`--train_group_size` counts the positive and its negatives.",
    path="data/train-*.jsonl",
    write=write_json_lines,
    lines=_inline,
    per_query=True,
    id_kind="original",
    configs={"default": "data/*.jsonl"},
)
TEVATRON_IDS = Layout(
    use="Tevatron: `--dataset_name DIR --corpus_name DIR --corpus_config corpus`.",
    path="data/train-*.parquet",
    write=write_parquet,
    lines=_by_ids,
    per_query=True,
    id_kind="original",
    beside=_corpus,
    configs={"default": "data/*.parquet", "corpus": "corpus/*.parquet"},
)

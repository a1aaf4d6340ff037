"""Columns of sentence-transformers: a line a negative, a row, a passage, or a list.

They are the `output_format`s of `sentence_transformers.util.mine_hard_negatives` (6.2): the same
columns, types and order.
"""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stx_mine.stages.export.core.mined_rows import MinedRows
from stx_mine.stages.export.layouts.layout import Joined, Layout, lists
from stx_mine.stages.export.text_ids import NamedTexts
from stx_mine.store.batches import negative_columns
from stx_mine.store.tables import write_parquet


def _triplet(rows: MinedRows, texts: NamedTexts, k: int, scores: bool) -> pa.Table:
    """One line per (row, negative)."""
    lengths = rows.negatives.lengths()
    columns: dict[str, pa.Array] = {
        "anchor": texts.queries(np.repeat(rows.query_ids, lengths)),
        "positive": texts.passages(np.repeat(rows.positive_ids, lengths)),
        "negative": texts.passages(rows.negatives.values),
    }
    if scores:
        both = np.stack([np.repeat(rows.positive_scores, lengths), rows.negative_scores], axis=1)
        columns["scores"] = _matrix(both)
    return pa.table(columns)


def _n_tuple(rows: MinedRows, texts: NamedTexts, k: int, scores: bool) -> pa.Table:
    """One line per row; every row has k negatives."""
    negatives_Rk = rows.negatives.values.reshape(len(rows), k)
    columns: dict[str, pa.Array] = {
        "anchor": texts.queries(rows.query_ids),
        "positive": texts.passages(rows.positive_ids),
    }
    for slot, name in enumerate(negative_columns(k)):
        columns[name] = texts.passages(negatives_Rk[:, slot])
    if scores:
        scores_Rk = rows.negative_scores.reshape(len(rows), k)
        columns["scores"] = _matrix(np.concatenate([rows.positive_scores[:, None], scores_Rk], 1))
    return pa.table(columns)


def _labeled_pair(rows: MinedRows, texts: NamedTexts, k: int, scores: bool) -> pa.Table:
    """One line per passage: all positives of a query, then its negatives, once."""
    queries = rows.take(rows.firsts())
    joined = Joined.of(rows.query_numbers(), rows, queries)
    columns: dict[str, pa.Array] = {
        "anchor": texts.queries(queries.query_ids[joined.owners]),
        "positive": texts.passages(joined.passage_ids),
    }
    if scores:
        columns["score"] = joined.scores.astype(np.float64)
    else:
        columns["label"] = joined.labels
    return pa.table(columns)


def _labeled_list(rows: MinedRows, texts: NamedTexts, k: int, scores: bool) -> pa.Table:
    """One line per row: its positive, then its negatives."""
    joined = Joined.of(np.arange(len(rows)), rows, rows)
    columns: dict[str, pa.Array] = {
        "anchor": texts.queries(rows.query_ids),
        "positive": lists(joined.offsets, texts.passages(joined.passage_ids)),
    }
    if scores:
        columns["scores"] = lists(joined.offsets, pa.array(joined.scores, pa.float64()))
    else:
        columns["labels"] = lists(joined.offsets, pa.array(joined.labels))
    return pa.table(columns)


def _labeled_query(rows: MinedRows, texts: NamedTexts, k: int, scores: bool) -> pa.Table:
    """One line per query: all its positives and its negatives, best first."""
    queries = rows.take(rows.firsts())
    joined = Joined.of(rows.query_numbers(), rows, queries).best_first()
    return pa.table(
        {
            "anchor": texts.queries(queries.query_ids),
            "positive": lists(joined.offsets, texts.passages(joined.passage_ids)),
            "labels": lists(joined.offsets, pa.array(joined.labels)),
        }
    )


def _matrix(values: NDArray[np.float32]) -> pa.Array:
    offsets = np.arange(len(values) + 1) * values.shape[1]
    return lists(offsets, pa.array(values.ravel(), pa.float64()))


_PATH, _CONFIGS = "data/train-*.parquet", {"default": "data/*.parquet"}
_MINED = (
    '`load_dataset(DIR, split="train")` gives the columns of `mine_hard_negatives` in\n'
    "sentence-transformers"
)
TRIPLET = Layout(
    use=f"{_MINED}, one line a negative.",
    path=_PATH,
    write=write_parquet,
    lines=_triplet,
    configs=_CONFIGS,
)
N_TUPLE = Layout(
    use=f"{_MINED}, one line a pair.",
    path=_PATH,
    write=write_parquet,
    lines=_n_tuple,
    fewest=None,
    configs=_CONFIGS,
)
LABELED_PAIR = Layout(
    use=f"{_MINED}, one line a passage.",
    path=_PATH,
    write=write_parquet,
    lines=_labeled_pair,
    fewest=0,
    per_query=True,
    configs=_CONFIGS,
)
LABELED_LIST = Layout(
    use=f"{_MINED}, one line a pair, the positive first.",
    path=_PATH,
    write=write_parquet,
    lines=_labeled_list,
    configs=_CONFIGS,
)
LABELED_QUERY = Layout(
    use='`load_dataset(DIR, split="train")` gives a query, the list of its passages, best first,\n'
    "and their labels: what the listwise losses of `CrossEncoder` take.",
    path=_PATH,
    write=write_parquet,
    lines=_labeled_query,
    per_query=True,
    configs=_CONFIGS,
)

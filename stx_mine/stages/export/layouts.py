"""Layouts of other trainers: mined rows to Arrow tables of the columns that they read.

`triplet`, `n-tuple`, `labeled-pair` and `labeled-list` are the `output_format`s of
`sentence_transformers.util.mine_hard_negatives` (6.2): the same columns, types and order.
`flagembedding` is the JSONL that FlagEmbedding trains on. `three-table` is what PyLate's
`KDProcessing` joins: texts once, and lists of ids with the scores to distil.

Shape letters: R rows.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stx_mine.core.ragged import offsets_of
from stx_mine.stages.export.core.mined_rows import MinedRows
from stx_mine.store.batches import negative_columns
from stx_mine.store.texts import TextStore, take_texts


@dataclass(frozen=True)
class Layout:
    """How a trainer wants its rows.

    Attributes:
        table: (rows, texts, k, whether scores are wanted) -> lines.
        needs: Fewest negatives of a row that it can hold; None for k.
        per_query: Whether all positives of a query share one list of negatives.
        folder: Where its lines lie, below that of the export.
        suffix: Suffix of its files.
        use: How to load it, as its dataset card says.
    """

    table: Callable[[MinedRows, TextStore, int, bool], pa.Table]
    needs: int | None
    use: str
    per_query: bool = False
    folder: str = "data"
    suffix: str = ".parquet"


def triplet(rows: MinedRows, store: TextStore, k: int, scores: bool) -> pa.Table:
    """One line per (row, negative)."""
    lengths = rows.negatives.lengths()
    columns: dict[str, pa.Array] = {
        "anchor": _queries(store, np.repeat(rows.query_ids, lengths)),
        "positive": _passages(store, np.repeat(rows.positive_ids, lengths)),
        "negative": _passages(store, rows.negatives.values),
    }
    if scores:
        both = np.stack([np.repeat(rows.positive_scores, lengths), rows.negative_scores], axis=1)
        columns["scores"] = _matrix(both)
    return pa.table(columns)


def n_tuple(rows: MinedRows, store: TextStore, k: int, scores: bool) -> pa.Table:
    """One line per row; every row has k negatives."""
    negatives_Rk = rows.negatives.values.reshape(len(rows), k)
    columns: dict[str, pa.Array] = {
        "anchor": _queries(store, rows.query_ids),
        "positive": _passages(store, rows.positive_ids),
    }
    for slot, name in enumerate(negative_columns(k)):
        columns[name] = _passages(store, negatives_Rk[:, slot])
    if scores:
        scores_Rk = rows.negative_scores.reshape(len(rows), k)
        columns["scores"] = _matrix(np.concatenate([rows.positive_scores[:, None], scores_Rk], 1))
    return pa.table(columns)


def labeled_pair(rows: MinedRows, store: TextStore, k: int, scores: bool) -> pa.Table:
    """One line per passage: all positives of a query, then its negatives, once."""
    queries = rows.take(rows.firsts())
    joined = _joined(rows.query_numbers(), rows, queries)
    columns: dict[str, pa.Array] = {
        "anchor": _queries(store, queries.query_ids[joined.owners]),
        "positive": _passages(store, joined.passage_ids),
    }
    if scores:
        columns["score"] = joined.scores.astype(np.float64)
    else:
        columns["label"] = joined.labels
    return pa.table(columns)


def labeled_list(rows: MinedRows, store: TextStore, k: int, scores: bool) -> pa.Table:
    """One line per row: its positive, then its negatives."""
    joined = _joined(np.arange(len(rows)), rows, rows)
    columns: dict[str, pa.Array] = {
        "anchor": _queries(store, rows.query_ids),
        "positive": _lists(joined.offsets, _passages(store, joined.passage_ids)),
    }
    if scores:
        columns["scores"] = _lists(joined.offsets, pa.array(joined.scores, pa.float64()))
    else:
        columns["labels"] = _lists(joined.offsets, pa.array(joined.labels))
    return pa.table(columns)


def flagembedding(rows: MinedRows, store: TextStore, k: int, scores: bool) -> pa.Table:
    """One line per query with all its positives."""
    queries = rows.take(rows.firsts())
    positive_offsets = np.append(rows.firsts(), len(rows))
    negative_offsets = queries.negatives.offsets
    return pa.table(
        {
            "query": _queries(store, queries.query_ids),
            "pos": _lists(positive_offsets, _passages(store, rows.positive_ids)),
            "neg": _lists(negative_offsets, _passages(store, queries.negatives.values)),
            "pos_scores": _lists(positive_offsets, pa.array(rows.positive_scores, pa.float64())),
            "neg_scores": _lists(negative_offsets, pa.array(queries.negative_scores, pa.float64())),
        }
    )


def score_table(rows: MinedRows, store: TextStore, k: int, scores: bool) -> pa.Table:
    """One line per row of `three-table`: ids of its positive, then of its negatives."""
    joined = _joined(np.arange(len(rows)), rows, rows)
    return pa.table(
        {
            "query_id": rows.query_ids,
            "document_ids": _lists(joined.offsets, pa.array(joined.passage_ids)),
            "scores": _lists(joined.offsets, pa.array(joined.scores)),
        }
    )


@dataclass(frozen=True)
class _Joined:
    """Positives and negatives of each owner in one sequence, positives first."""

    owners: NDArray[np.int64]
    passage_ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    scores: NDArray[np.float32]

    @property
    def offsets(self) -> NDArray[np.int64]:
        return offsets_of(np.bincount(self.owners))


def _joined(owner_of_row: NDArray[np.int64], positives: MinedRows, negatives: MinedRows) -> _Joined:
    """Join the positives of rows with the negatives of owners, row numbers of `negatives`."""
    lengths = negatives.negatives.lengths()
    owners = np.concatenate([owner_of_row, np.repeat(np.arange(len(negatives)), lengths)])
    order = np.argsort(owners, kind="stable")
    ids = np.concatenate([positives.positive_ids, negatives.negatives.values])
    scores = np.concatenate([positives.positive_scores, negatives.negative_scores])
    return _Joined(
        owners[order],
        ids[order],
        (order < len(positives)).astype(np.int64),
        scores[order],
    )


def _queries(store: TextStore, ids: NDArray[np.int64]) -> pa.DictionaryArray:
    return take_texts(store.queries.column("text"), ids)


def _passages(store: TextStore, ids: NDArray[np.int64]) -> pa.DictionaryArray:
    return take_texts(store.passages.column("text"), ids)


def _lists(offsets: NDArray[np.int64], values: pa.Array) -> pa.Array:
    return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), values)


def _matrix(values: NDArray[np.float32]) -> pa.Array:
    offsets = np.arange(len(values) + 1) * values.shape[1]
    return _lists(offsets, pa.array(values.ravel(), pa.float64()))


_MINED = (
    '`load_dataset(DIR, split="train")` gives the columns of `mine_hard_negatives` in\n'
    "sentence-transformers"
)
LAYOUTS = {
    "triplet": Layout(triplet, 1, f"{_MINED}, one line a negative."),
    "n-tuple": Layout(n_tuple, None, f"{_MINED}, one line a pair."),
    "labeled-pair": Layout(labeled_pair, 0, f"{_MINED}, one line a passage.", per_query=True),
    "labeled-list": Layout(labeled_list, 1, f"{_MINED}, one line a pair, the positive first."),
    "flagembedding": Layout(
        flagembedding,
        1,
        "FlagEmbedding: `--train_data DIR/data`; `--knowledge_distillation True` uses the scores.",
        per_query=True,
        suffix=".jsonl",
    ),
    "three-table": Layout(
        score_table,
        1,
        '`load_dataset(DIR, "scores")` gives ids of documents, the positive first, and their\n'
        'scores; `"queries"` and `"documents"` hold the texts (PyLate joins them with\n'
        "`KDProcessing`; its collator wants lists of equal length in a batch).",
        folder="scores",
    ),
}

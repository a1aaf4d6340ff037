"""Packed batches of chosen shapes, made by the functions that `pack` itself uses.

Every shape holds all invariants; texts are words of a number, so that each id has one of its own.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stx_mine.core.forbidden import forbidden_groups, positive_groups
from stx_mine.core.groups import Groups
from stx_mine.core.ragged import Ragged, offsets_of
from stx_mine.stages.pack.core.assign import assign_merge
from stx_mine.stages.pack.core.bind import ignored_passages, pools_without
from stx_mine.stages.pack.labels.core.batches import assign_labels
from stx_mine.stages.pack.labels.core.labels import Labels
from stx_mine.stages.pack.shard_files import (
    shard_path,
    write_groups,
    write_positives,
    write_shard,
)
from stx_mine.store.batches import (
    GROUPS,
    POSITIVES,
    id_schema,
    list_column,
    text_columns,
)
from stx_mine.store.labels import LABELS, SHARD_COLUMNS, write_labels

_SHARD_ROWS = 1 << 16
_WORDS = "river stone light winter garden paper signal market bridge copper silent number".split()


@dataclass(frozen=True)
class Shape:
    """Pairs and what is packed of them.

    Attributes:
        queries: int64 (N,) query of each row.
        passages: int64 (N,) positive of each row.
        groups: int64 (num passages,) group of each passage: the smallest id of its members.
        batch_size: B.
        k: Negatives a row.
        one_negative: Whether all negatives are one passage, the last, positive of no query.
    """

    queries: NDArray[np.int64]
    passages: NDArray[np.int64]
    groups: NDArray[np.int64]
    batch_size: int
    k: int = 8
    one_negative: bool = False


def typical(num_rows: int, batch_size: int) -> Shape:
    """Half of the rows are of a query with two positives; a passage is positive of one or two."""
    rows = np.arange(num_rows)
    return Shape(rows - rows % 4 // 3, rows - rows % 5 // 4, np.arange(num_rows), batch_size)


def giant_query(num_positives: int, batch_size: int) -> Shape:
    """One query with very many positives; there are as many other passages."""
    rows = np.arange(num_positives)
    return Shape(np.zeros_like(rows), rows, np.arange(2 * num_positives), batch_size)


def giant_passage(num_queries: int, batch_size: int) -> Shape:
    """One passage that is the positive of very many queries, each of which has one of its own."""
    rows = np.arange(2 * num_queries)
    passages = np.where(rows % 2, 0, 1 + rows // 2)
    return Shape(rows // 2, passages, np.arange(2 * num_queries), batch_size)


def one_negative(num_rows: int, batch_size: int) -> Shape:
    """One passage is the only negative of every row."""
    rows = np.arange(num_rows)
    return Shape(rows, rows, np.arange(num_rows + 1), batch_size, k=1, one_negative=True)


def giant_groups(num_rows: int, size: int, batch_size: int) -> Shape:
    """Passages that count as the same in groups of so many."""
    rows = np.arange(num_rows)
    return Shape(rows, rows, rows - rows % size, batch_size)


def write_shape(folder: Path, shape: Shape, seed: int = 0) -> Path:
    """Write `batches/` with one packing, without a manifest; returns its folder."""
    rng = np.random.default_rng(seed)
    num_passages, num_queries = len(shape.groups), int(shape.queries.max()) + 1
    query_texts = num_passages + np.arange(num_queries)
    pairs = shape.queries, shape.passages
    forbidden = forbidden_groups(*pairs, query_texts, shape.groups)
    num_groups = num_passages + num_queries
    rows_PB = assign_merge(
        query_texts[shape.queries],
        shape.groups[shape.passages],
        shape.batch_size,
        rng.permutation(len(shape.queries)),
        rng,
    ).rows_PB
    per_shard = max(1, _SHARD_ROWS // shape.batch_size)
    num_shards = -(-len(rows_PB) // per_shard)
    footer = {"batch_size": shape.batch_size, "k": shape.k, "policy": "merge", "layout": "text"}
    for shard in range(num_shards):
        batches = rows_PB[shard * per_shard : (shard + 1) * per_shard]
        table = _table(shape, batches, query_texts, forbidden, num_groups, rng)
        write_shard(folder / shard_path(0, shard, num_shards), table, footer)
    known = positive_groups(*pairs, shape.groups, num_queries)
    nothing = Ragged(np.zeros(num_queries + 1, np.int64), np.empty(0, np.int64))
    write_positives(folder / POSITIVES, query_texts, known, nothing)
    groups = Groups.of_all(np.concatenate([shape.groups, query_texts]))
    write_groups(folder / GROUPS, groups.texts, groups.groups)
    return folder


def _table(
    shape: Shape,
    rows_PB: NDArray[np.int64],
    query_texts: NDArray[np.int64],
    forbidden: Ragged,
    num_groups: int,
    rng: np.random.Generator,
) -> pa.Table:
    rows = rows_PB.ravel()
    queries, passages = shape.queries[rows], shape.passages[rows]
    negatives_NK = _negatives(shape, queries, forbidden, num_groups, rng)
    real = negatives_NK >= 0
    size = shape.batch_size
    ignored = [
        ignored_passages(
            queries[start : start + size],
            passages[start : start + size],
            negatives_NK[start : start + size],
            shape.groups,
            forbidden,
            num_groups,
        )
        for start in range(0, len(rows), size)
    ]
    lengths = np.concatenate([one.lengths() for one in ignored])
    lists = Ragged(offsets_of(lengths), np.concatenate([one.values for one in ignored]))
    ids = [
        pa.array(rows),
        pa.array(query_texts[queries]),
        pa.array(passages),
        list_column(Ragged(offsets_of(real.sum(1)), negatives_NK[real])),
        list_column(lists),
        pa.array(np.zeros(len(rows), np.int64)),
    ]
    texts = [texts_of(query_texts[queries]), texts_of(passages), *map(texts_of, negatives_NK.T)]
    names = [*text_columns(shape.k), *id_schema().names]
    return pa.table([*texts, *ids], names=names)


def _negatives(
    shape: Shape,
    queries: NDArray[np.int64],
    forbidden: Ragged,
    num_groups: int,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Distinct passages that their queries do not forbid; -1 pads."""
    num_passages = len(shape.groups)
    if shape.one_negative:
        return np.full((len(queries), 1), num_passages - 1)
    drawn = np.sort(rng.integers(0, num_passages, (len(queries), 2 * shape.k), np.int32), axis=1)
    # One of each group.
    groups = shape.groups[drawn]
    drawn[:, 1:][groups[:, 1:] == groups[:, :-1]] = -1
    pools = pools_without(drawn, queries, shape.groups, forbidden, num_groups)
    return pools[:, : shape.k].astype(np.int64)


def texts_of(ids: NDArray[np.int64]) -> pa.Array:
    """A text of about 60 characters for each id; null for -1."""
    words = pa.array(_WORDS, pa.large_string())
    numbers = pa.array(ids)
    parts = [words.take(pa.array(ids // 12**place % 12)) for place in range(8)]
    joined = pc.binary_join_element_wise(
        numbers.cast(pa.large_string()), *parts, pa.scalar(" ", pa.large_string())
    )
    return pc.if_else(pa.array(ids >= 0), joined, pa.scalar(None, pa.large_string()))


def write_labels_shape(
    folder: Path, sizes: NDArray[np.int64], batch_size: int, each: int, seed: int = 0
) -> Path:
    """Write `batches/` of (text, label) rows.

    Args:
        folder: Where.
        sizes: int64 (L,): texts of each label; a text has one label.
        batch_size: B.
        each: Texts that a label has in a batch at most.
        seed: Decides which rows meet.
    """
    rng = np.random.default_rng(seed)
    texts = Ragged(offsets_of(sizes), np.arange(int(sizes.sum())))
    nothing = Ragged(np.zeros(len(sizes) + 1, np.int64), np.empty(0, np.int64))
    labels = Labels(texts, nothing)
    rows_PB = assign_labels(labels, batch_size, each, np.empty(0, np.int64), rng).rows_PB
    columns = [
        texts_of(rows_PB.ravel()),
        pa.array(labels.of_rows[rows_PB.ravel()]),
        pa.array(rows_PB.ravel()),
    ]
    footer = {"batch_size": batch_size, "texts_per_label": each, "layout": "labels"}
    table = pa.table(columns, names=list(SHARD_COLUMNS))
    write_shard(folder / shard_path(0, 0, 1), table, footer)
    names = pa.array([str(label) for label in range(len(sizes))], pa.large_string())
    write_labels(folder / LABELS, names, texts)
    none = Ragged(np.zeros(1, np.int64), np.empty(0, np.int64))
    write_positives(folder / POSITIVES, np.empty(0, np.int64), none, none)
    return folder

"""How many strict batches there can be at most, and why, before any is made.

Shape letters: N rows of the set, R rows that are to be packed, B rows a batch.
"""

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from stx_mine.core.ragged import Ragged

_NUM_BOTTLENECKS = 5


@dataclass(frozen=True)
class StrictBound:
    """No assignment makes more strict batches than this.

    Attributes:
        batches: At least the number of strict batches that exist.
        cause: What bounds it, in words.
        bottlenecks: int64 (up to 5,) groups that repeat most often where repeats are the cause,
            most often first; empty otherwise.
    """

    batches: int
    cause: str
    bottlenecks: NDArray[np.int64]


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _how_many(sizes: Any) -> Any:
    """int64 (largest + 1,): how many sets have each size but 0."""
    largest = 0
    for size in sizes:
        largest = max(largest, size)
    found = np.zeros(largest + 1, np.int64)
    for size in sizes:
        if size:
            found[size] += 1
    return found


def largest_count(sizes: NDArray[Any], batch_size: int) -> int:
    """The largest p with sum over sizes of min(size, p) >= p * batch_size.

    Of each set of rows that conflict pairwise, p batches hold at most p.

    Args:
        sizes: Whole numbers, rows of each set; zeros count nothing.
        batch_size: How many a batch takes.
    """
    num_sets = _how_many(sizes)
    values = np.flatnonzero(num_sets)
    numbers = num_sets[values]
    low, high = 0, int(values @ numbers) // batch_size
    while low < high:
        middle = (low + high + 1) // 2
        if int(np.minimum(values, middle) @ numbers) >= middle * batch_size:
            low = middle
        else:
            high = middle - 1
    return low


def strict_bound(
    query_ids: NDArray[np.int64],
    anchor_groups: NDArray[np.int64],
    positive_groups: NDArray[np.int64],
    passage_groups: NDArray[np.int64],
    forbidden: Ragged,
    num_groups: int,
    batch_size: int,
    num_negatives: int,
    rows: NDArray[np.int64],
) -> StrictBound:
    """The lowest of the bounds by rows, repeats, known positives and distinct texts.

    Args:
        query_ids: int64 (N,) query of each row.
        anchor_groups: int64 (N,).
        positive_groups: int64 (N,).
        passage_groups: int64 (num passages,).
        forbidden: Forbidden groups of each query; its positives and itself are among them.
        num_groups: Size of the group space.
        batch_size: B.
        num_negatives: Negatives a row.
        rows: int64 (R,) rows to pack, each once.
    """
    none = np.empty(0, np.int64)
    anchors = np.bincount(anchor_groups[rows], minlength=num_groups)
    positives = np.bincount(positive_groups[rows], minlength=num_groups)
    cliques = _cliques(
        query_ids, positive_groups, forbidden.offsets, forbidden.values, num_groups, rows
    )
    bounds = [StrictBound(len(rows) // batch_size, "the number of rows", none)]
    for words, sizes, a_row in (
        ("repeated anchors", anchors, 1),
        ("repeated positives", positives, 1),
        ("texts that repeat as anchor and as positive", anchors + positives, 2),
        ("rows that know each other's positive", cliques, 1),
    ):
        most = none if sizes is cliques else _most_repeated(sizes)
        bounds.append(StrictBound(largest_count(sizes, batch_size * a_row), words, most))
    present = np.zeros(num_groups, np.bool_)
    present[passage_groups] = True
    num_passages = int(present.sum())
    present[anchor_groups[rows]] = True
    num_texts = int(present.sum())
    if num_passages < batch_size * (1 + num_negatives):
        words = (
            f"{num_passages:,} distinct passages, where a batch takes "
            f"{batch_size * (1 + num_negatives):,}"
        )
        bounds.append(StrictBound(0, words, none))
    elif num_texts < batch_size * (2 + num_negatives):
        wanted = batch_size * (2 + num_negatives)
        words = f"{num_texts:,} distinct texts, where a batch takes {wanted:,}"
        bounds.append(StrictBound(0, words, none))
    return min(bounds, key=lambda bound: bound.batches)


def _most_repeated(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    last = max(0, len(sizes) - _NUM_BOTTLENECKS)
    most = np.argpartition(sizes, last)[last:]
    most = most[np.lexsort((most, -sizes[most]))]
    return most[sizes[most] > 1]


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _root(parents: Any, node: Any) -> Any:
    while parents[node] != node:
        parents[node] = parents[parents[node]]
        node = parents[node]
    return node


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _complete(
    has_rows: Any, is_positive: Any, forbidden_offsets: Any, forbidden_values: Any
) -> Any:
    """Components of queries and the positives that they know, and which are complete."""
    num_queries, num_groups = len(has_rows), len(is_positive)
    parents = np.arange(num_queries + num_groups)
    known = np.zeros(num_queries, np.int64)
    for query in range(num_queries):
        if not has_rows[query]:
            continue
        for f in range(forbidden_offsets[query], forbidden_offsets[query + 1]):
            group = forbidden_values[f]
            if is_positive[group]:
                known[query] += 1
                parents[_root(parents, num_queries + group)] = _root(parents, query)
    num_positives = np.zeros(len(parents), np.int64)
    for group in range(num_groups):
        if is_positive[group]:
            num_positives[_root(parents, num_queries + group)] += 1
    complete = np.ones(len(parents), np.bool_)
    for query in range(num_queries):
        root = _root(parents, query)
        parents[query] = root
        if has_rows[query] and known[query] < num_positives[root]:
            complete[root] = False
    return parents[:num_queries], complete


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _stars(keys: Any, num_keys: Any) -> Any:
    """Places of each key, as offsets and flat places."""
    offsets = np.zeros(num_keys + 1, np.int64)
    for key in keys:
        offsets[key + 1] += 1
    for key in range(num_keys):
        offsets[key + 1] += offsets[key]
    cursor = offsets[:-1].copy()
    places = np.empty(len(keys), np.int64)
    for place in range(len(keys)):
        places[cursor[keys[place]]] = place
        cursor[keys[place]] += 1
    return offsets, places


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _take(star: Any, key: Any, clique_of: Any, clique: Any) -> Any:
    taken = 0
    for place in star[1][star[0][key] : star[0][key + 1]]:
        if clique_of[place] < 0:
            clique_of[place] = clique
            taken += 1
    return taken


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _partition(queries: Any, positives: Any, roots: Any, complete: Any, num_groups: Any) -> Any:
    """Sizes of disjoint cliques that cover all rows."""
    sizes = np.zeros(len(complete) + len(queries), np.int64)
    clique_of = np.full(len(queries), -1, np.int64)
    for place in range(len(queries)):
        root = roots[queries[place]]
        if complete[root]:
            clique_of[place] = root
            sizes[root] += 1
    by_query, by_positive = _stars(queries, len(roots)), _stars(positives, num_groups)
    both = np.empty(len(queries), np.int64)
    for place in range(len(queries)):
        query, positive = queries[place], positives[place]
        both[place] = by_query[0][query + 1] - by_query[0][query]
        both[place] += by_positive[0][positive + 1] - by_positive[0][positive]
    _, smallest_first = _stars(both, both.max() + 1 if len(both) else 1)
    clique = len(complete)
    # A star is walked once: all its rows are taken then, and none is a centre again.
    for place in smallest_first[::-1]:
        if clique_of[place] < 0:
            sizes[clique] = _take(by_query, queries[place], clique_of, clique)
            sizes[clique] += _take(by_positive, positives[place], clique_of, clique)
            clique += 1
    return sizes


def _cliques(
    query_ids: NDArray[np.int64],
    positive_groups: NDArray[np.int64],
    forbidden_offsets: NDArray[np.int64],
    forbidden_values: NDArray[np.int64],
    num_groups: int,
    rows: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Sizes of disjoint sets of rows, in each of which no two rows may meet, that cover all rows.

    A set is a component in which every query knows every positive; elsewhere, all rows of one
    query with all rows of one of its positives, the largest such sets first.
    """
    queries, positives = query_ids[rows], positive_groups[rows]
    has_rows = np.zeros(len(forbidden_offsets) - 1, np.bool_)
    has_rows[queries] = True
    is_positive = np.zeros(num_groups, np.bool_)
    is_positive[positives] = True
    roots, complete = _complete(has_rows, is_positive, forbidden_offsets, forbidden_values)
    sizes: NDArray[np.int64] = _partition(queries, positives, roots, complete, num_groups)
    return sizes[sizes > 0]

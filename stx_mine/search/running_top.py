"""The running top K of many queries over a stream of products that are known to be inexact.

A buffer a query holds what may still be among its best: first with its product, later with its
fixed-order score. A passage is passed over only where its product lies so far below K others that
no rounding can lift it above them, so that the result is exact by construction and never depends
on blocks, precision or threads. Few passages are scored: those that are still in a buffer at the
end of their block.

*Values* are what products estimate: q.p, or 2 q.p - |p|^2 for Euclidean distance, which orders
like -|q - p|^2 because |q|^2 is the same for all passages of a query.

Shape letters: Q queries, P passages of a block, S slots of a buffer, K hits a query, D dimensions.
"""

from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from stx_mine.core.similarity import Similarity
from stx_mine.search.lanes import MASK_LANES, above_mask, lowest_bit, value_at
from stx_mine.search.score import score_one

_BISECTIONS = 32


class _Buffers(NamedTuple):
    """What is kept of some queries; slots are in rising order of id."""

    queries_QD: Any
    squares_Q: Any
    values_QS: Any
    scores_QS: Any
    ids_QS: Any
    # Slots in use, how many of them hold a score (the rest are of this block), pairs ever scored.
    counts_Q3: Any
    # At least K hits of the query have a value that is not lower.
    floors_Q: Any


class RunningTop:
    """Collects the best `num_hits` passages of each query; passages come in rising order of id.

    Everything runs on the thread that calls and holds no lock of Python's for long: the threads of
    a parallel kernel would spin while they wait, and take the cores from the next product.
    """

    def __init__(
        self,
        queries_QD: NDArray[np.float32],
        num_hits: int,
        similarity: Similarity,
        floors_Q: NDArray[np.float32] | None = None,
        rounding: float = 0.0,
    ) -> None:
        """Start empty.

        Args:
            queries_QD: float32 (Q, D), prepared as `Vectors.rows` gives them.
            num_hits: Hits a query, at least 1.
            similarity: How vectors are compared.
            floors_Q: float32 (Q,) scores that at least `num_hits` passages are known to reach.
            rounding: What products lost when they were rounded, as a share of their value at most.
        """
        self._num_hits, self.rounding = num_hits, rounding
        self._by_distance = similarity.by_distance
        num_queries, slots = len(queries_QD), 2 * num_hits + MASK_LANES
        squares_Q = np.einsum("qd,qd->q", queries_QD, queries_QD)
        values_Q = np.full(num_queries, -np.inf, np.float32)
        if floors_Q is not None:
            values_Q = similarity.order_of_score(floors_Q, squares_Q)
            # Below, because equal scores count: ties go by id.
            values_Q = np.nextafter(values_Q, np.float32(-np.inf))
        self._buffers = _Buffers(
            np.ascontiguousarray(queries_QD),
            squares_Q,
            np.empty((num_queries, slots), np.float32),
            np.empty((num_queries, slots), np.float32),
            np.empty((num_queries, slots), np.int64),
            np.zeros((num_queries, 3), np.int64),
            values_Q,
        )

    @property
    def num_scored(self) -> int:
        """Pairs scored so far."""
        return int(self._buffers.counts_Q3[:, 2].sum())

    def offer(
        self,
        product_QP: NDArray[np.float32] | NDArray[np.int16],
        passages_PD: NDArray[np.float32],
        bounds_Q: NDArray[np.float32],
        first_id: int,
        first_column: int,
    ) -> None:
        """Take in the products of the queries with some passages of the current block.

        Args:
            product_QP: Values of some columns of the block: float32, or bfloat16 as its bits.
            passages_PD: The whole current block, prepared.
            bounds_Q: float32 (Q,) how far a value can lie from that of its score, beside its own
                rounding; never smaller than for an earlier block.
            first_id: Id of the first passage of the block.
            first_column: Position in the block of the first column.
        """
        _offer(
            product_QP,
            first_column,
            passages_PD,
            first_id,
            (bounds_Q, self.rounding),
            self._buffers,
            self._num_hits,
            self._by_distance,
        )

    def end_block(
        self, passages_PD: NDArray[np.float32], bounds_Q: NDArray[np.float32], first_id: int
    ) -> None:
        """Score what is left of the current block; its vectors are not needed after that."""
        errors = (bounds_Q, self.rounding)
        _end_block(passages_PD, first_id, errors, self._buffers, self._num_hits, self._by_distance)

    def best(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The hits, best first, ties by id.

        Returns:
            int64 (Q, K) ids and float32 (Q, K) scores; -1 and minus infinity pad.
        """
        scores_QS, ids_QS = self._buffers.scores_QS, self._buffers.ids_QS
        unused_QS = np.arange(scores_QS.shape[1]) >= self._buffers.counts_Q3[:, :1]
        scores_QS[unused_QS], ids_QS[unused_QS] = -np.inf, -1
        # Stable, and ids rise with the slots.
        order_QK = np.argsort(-scores_QS, axis=1, kind="stable")[:, : self._num_hits]
        return (
            np.take_along_axis(ids_QS, order_QK, axis=1),
            np.take_along_axis(scores_QS, order_QK, axis=1),
        )


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _reached_by(values_S: Any, num: int) -> Any:
    """A value that at least `num` entries reach and, where no ties forbid it, few more."""
    low, high = values_S[0], values_S[0]
    for value in values_S:
        low, high = min(low, value), max(high, value)
    enough = num + num // 8
    for _ in range(_BISECTIONS):
        middle = low + (high - low) * np.float32(0.5)
        count = np.int32(0)
        for value in values_S:
            count += np.int32(value >= middle)
        if count < num:
            high = middle
        else:
            low = middle
            if count <= enough:
                break
    return low


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _order_of_bits(bits: Any) -> Any:
    """A number that orders as the float32 of these bits does."""
    return bits if bits >= 0 else bits ^ np.int32(0x7FFFFFFF)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def nth_largest(scores_S: Any, num: int) -> Any:
    """The largest score that at least `num` entries reach."""
    bits_S = scores_S.view(np.int32)
    low, high = np.int64(-(2**31)), np.int64(2**31 - 1)
    while low < high:
        middle = (low + high + 1) >> 1
        count = np.int32(0)
        for bits in bits_S:
            count += np.int32(_order_of_bits(bits) >= middle)
        if count >= num:
            low = middle
        else:
            high = middle - 1
    found = np.float32(np.inf)
    for slot in range(len(bits_S)):
        if _order_of_bits(bits_S[slot]) >= low:
            found = min(found, scores_S[slot])
    return found


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _keep_from(buffers: Any, q: int, cut: Any) -> None:
    """Keep what has a value of at least `cut`."""
    values_S, scores_S, ids_S = buffers.values_QS[q], buffers.scores_QS[q], buffers.ids_QS[q]
    used, scored, _ = buffers.counts_Q3[q]
    kept = 0
    for slot in range(used):
        if slot == scored:
            buffers.counts_Q3[q, 1] = kept
        value = values_S[slot]
        values_S[kept], scores_S[kept], ids_S[kept] = value, scores_S[slot], ids_S[slot]
        kept += value >= cut
    if scored == used:
        buffers.counts_Q3[q, 1] = kept
    buffers.counts_Q3[q, 0] = kept


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _keep_best(buffers: Any, q: int, num: int) -> None:
    """Keep exactly the best `num` by score, ties by id; all have scores."""
    values_S, scores_S, ids_S = buffers.values_QS[q], buffers.scores_QS[q], buffers.ids_QS[q]
    used = buffers.counts_Q3[q, 0]
    worst = nth_largest(scores_S[:used], num)
    ties = num
    for slot in range(used):
        ties -= scores_S[slot] > worst
    kept = 0
    for slot in range(used):
        tie = scores_S[slot] == worst and ties > 0
        ties -= tie
        if tie or scores_S[slot] > worst:
            values_S[kept], scores_S[kept] = values_S[slot], scores_S[slot]
            ids_S[kept] = ids_S[slot]
            kept += 1
    buffers.counts_Q3[q, :2] = kept


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _score_new(passages_PD: Any, first_id: int, buffers: Any, q: int, by_distance: bool) -> None:
    used, scored, _ = buffers.counts_Q3[q]
    for slot in range(scored, used):
        row = buffers.ids_QS[q, slot] - first_id
        score = score_one(buffers.queries_QD[q], passages_PD[row], by_distance)
        buffers.scores_QS[q, slot] = score
        value = buffers.squares_Q[q] - score * score if by_distance else score
        buffers.values_QS[q, slot] = value
    buffers.counts_Q3[q, 1] = used
    buffers.counts_Q3[q, 2] += used - scored


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _floor_of(value: Any, error: Any) -> Any:
    """What the scores of all products from `value` on are worth at least."""
    bound, rounding = error
    return value - rounding * abs(value) - bound


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _cut_of(floor: Any, error: Any) -> Any:
    """What no product of a score that is worth `floor` lies below."""
    bound, rounding = error
    lowest = floor - bound
    return lowest if lowest == -np.inf else lowest - rounding * abs(lowest)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _make_room(
    passages_PD: Any, first_id: int, error: Any, buffers: Any, q: int, num: int, by_distance: bool
) -> None:
    """Drop what cannot be among the best `num`, down to half as many more."""
    values_S = buffers.values_QS[q]
    reached = _reached_by(values_S[: buffers.counts_Q3[q, 0]], num)
    floor = _floor_of(reached, error)
    _keep_from(buffers, q, _cut_of(floor, error))
    buffers.floors_Q[q] = max(buffers.floors_Q[q], floor)
    if buffers.counts_Q3[q, 0] > num + num // 2:
        # Many near-ties: only scores tell them apart.
        _score_new(passages_PD, first_id, buffers, q, by_distance)
        _keep_best(buffers, q, num)
        buffers.floors_Q[q] = max(buffers.floors_Q[q], values_S[:num].min())


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _offer_row(
    row_P: Any,
    first_column: int,
    passages_PD: Any,
    first_id: int,
    error: Any,
    buffers: Any,
    q: int,
    num: int,
    by_distance: bool,
) -> None:
    values_S, ids_S = buffers.values_QS[q], buffers.ids_QS[q]
    full = len(values_S) - MASK_LANES
    used = buffers.counts_Q3[q, 0]
    cut = np.float32(_cut_of(buffers.floors_Q[q], error))
    for start in range(0, len(row_P), MASK_LANES):
        mask = np.uint32(0)
        if start + MASK_LANES <= len(row_P):
            mask = above_mask(row_P, start, cut)
        else:
            for column in range(start, len(row_P)):
                if value_at(row_P, column) > cut:
                    mask |= np.uint32(1) << np.uint32(column - start)
        while mask:
            column = start + lowest_bit(mask)
            mask &= mask - np.uint32(1)
            values_S[used] = value_at(row_P, column)
            ids_S[used] = first_id + first_column + column
            used += 1
        if used > full:
            buffers.counts_Q3[q, 0] = used
            _make_room(passages_PD, first_id, error, buffers, q, num, by_distance)
            used = buffers.counts_Q3[q, 0]
            cut = np.float32(_cut_of(buffers.floors_Q[q], error))
    buffers.counts_Q3[q, 0] = used


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _end_row(
    passages_PD: Any, first_id: int, error: Any, buffers: Any, q: int, num: int, by_distance: bool
) -> None:
    if buffers.counts_Q3[q, 0] > num:
        _make_room(passages_PD, first_id, error, buffers, q, num, by_distance)
    _score_new(passages_PD, first_id, buffers, q, by_distance)
    used = buffers.counts_Q3[q, 0]
    # Where products are coarse, scores rule out much more.
    if used > num + num // 4:
        reached = _reached_by(buffers.values_QS[q, :used], num)
        _keep_from(buffers, q, np.float64(reached))
        buffers.floors_Q[q] = max(buffers.floors_Q[q], reached)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _offer(
    product_QP: Any,
    first_column: int,
    passages_PD: Any,
    first_id: int,
    errors: Any,
    buffers: Any,
    num: int,
    by_distance: bool,
) -> None:
    bounds_Q, rounding = errors
    for q in range(len(product_QP)):
        _offer_row(
            product_QP[q],
            first_column,
            passages_PD,
            first_id,
            (bounds_Q[q], rounding),
            buffers,
            q,
            num,
            by_distance,
        )


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _end_block(
    passages_PD: Any,
    first_id: int,
    errors: Any,
    buffers: Any,
    num: int,
    by_distance: bool,
) -> None:
    bounds_Q, rounding = errors
    for q in range(len(bounds_Q)):
        _end_row(passages_PD, first_id, (bounds_Q[q], rounding), buffers, q, num, by_distance)

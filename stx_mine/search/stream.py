"""The CPU's exact search: one pass over the blocks of a corpus, and what a search returns.

Shape letters: Q queries, P passages of a block, K hits a query, D dimensions.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from stx_mine.core.similarity import Similarity
from stx_mine.search.product import (
    Rounded,
    error_bound,
    product_values,
    products,
    rounding_share,
)
from stx_mine.search.propose import DeviceCorpus
from stx_mine.search.running_top import RunningTop
from stx_mine.search.threads import own_threads

# What a thread multiplies at a time: the product and its factors stay in cache.
QUERY_TILE, PASSAGE_TILE = 512, 1_024


@dataclass(frozen=True)
class Hits:
    """The top K of some queries, best first, ties by passage_id.

    Attributes:
        ids_QK: int64 (Q, K) passage ids; -1 pads where the corpus is smaller.
        scores_QK: float32 (Q, K); minus infinity pads.
        num_redone: Queries, counted once a device, whose proposals were not certain.
        num_scored: Pairs scored in fixed order.
    """

    ids_QK: NDArray[np.int64]
    scores_QK: NDArray[np.float32]
    num_redone: int = 0
    num_scored: int = 0


def stream_top(
    corpus: DeviceCorpus,
    queries_QD: NDArray[np.float32],
    queries: Rounded,
    wanted: int,
    floors_Q: NDArray[np.float32] | None = None,
) -> Hits:
    """The top of one slice of the corpus, by one pass that keeps what no product rules out.

    Args:
        corpus: The slice.
        queries_QD: float32, prepared.
        queries: The same in the precision of the products, on the device of the corpus.
        wanted: K, at most the passages of the slice.
        floors_Q: float32 scores that at least K passages are known to reach.
    """
    num_queries, similarity = len(queries_QD), corpus.passages.similarity
    size = min(QUERY_TILE, -(-num_queries // torch.get_num_threads()))
    tiles = [slice(start, start + size) for start in range(0, num_queries, size)]
    rounding = rounding_share(corpus.precision, similarity)
    tops = [
        RunningTop(
            queries_QD[tile],
            wanted,
            similarity,
            None if floors_Q is None else floors_Q[tile],
            rounding,
        )
        for tile in tiles
    ]
    longest = residual = 0.0

    def read(first: int) -> tuple[NDArray[np.float32], Rounded]:
        block_PD = corpus.passages.rows(first, min(first + corpus.block, corpus.stop))
        return block_PD, Rounded.of(block_PD, corpus.device, corpus.precision)

    with own_threads() as threads:
        upcoming = threads.submit(read, corpus.start)
        for first in range(corpus.start, corpus.stop, corpus.block):
            block_PD, passages = upcoming.result()
            if first + corpus.block < corpus.stop:
                # Read beside the products of this one.
                upcoming = threads.submit(read, first + corpus.block)
            longest = max(longest, float(passages.norms.max()))
            residual = max(residual, float(passages.residuals.max()))
            bounds_Q = error_bound(
                queries, longest, residual, corpus.passages.dim, similarity, wide=rounding > 0
            )
            offer = partial(_offer_block, block_PD, passages, first, similarity)
            inputs = [
                (top, queries.vectors[t], bounds_Q[t]) for top, t in zip(tops, tiles, strict=True)
            ]
            list(threads.map(offer, *zip(*inputs, strict=True)))
        found = list(threads.map(RunningTop.best, tops))
    return Hits(
        np.concatenate([ids_QK for ids_QK, _ in found]),
        np.concatenate([scores_QK for _, scores_QK in found]),
        num_scored=sum(top.num_scored for top in tops),
    )


def _offer_block(
    block_PD: NDArray[np.float32],
    passages: Rounded,
    first_id: int,
    similarity: Similarity,
    top: RunningTop,
    queries_QD: torch.Tensor,
    bounds_Q: NDArray[np.float32],
) -> None:
    """Take one block of passages past some queries."""
    squares_P = passages.norms.square() if similarity.by_distance else None
    out_N = queries_QD.new_empty(len(queries_QD) * PASSAGE_TILE)
    for column in range(0, len(block_PD), PASSAGE_TILE):
        columns = slice(column, column + PASSAGE_TILE)
        passages_PD = passages.vectors[columns]
        if top.rounding:
            # As they leave the product: bits of bfloat16.
            values = products(queries_QD, passages_PD, out_N).view(torch.int16)
        else:
            squares = None if squares_P is None else squares_P[columns]
            values = product_values(queries_QD, passages_PD, squares, out_N)
        top.offer(values.cpu().numpy(), block_PD, bounds_Q, first_id, column)
    top.end_block(block_PD, bounds_Q, first_id)


def best_first(
    ids_QK: NDArray[np.int64], scores_QK: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Sort each row by falling score, ties by rising id."""
    by_id = np.argsort(ids_QK, axis=1, kind="stable")
    ids, scores = np.take_along_axis(ids_QK, by_id, 1), np.take_along_axis(scores_QK, by_id, 1)
    order = np.argsort(-scores, axis=1, kind="stable")
    return np.take_along_axis(ids, order, 1), np.take_along_axis(scores, order, 1)

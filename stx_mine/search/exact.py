"""Exact search in blocks: an inexact product proposes, the fixed-order score decides.

On the CPU one pass keeps, a query, all that a product cannot rule out. An accelerator proposes the
best K and some more by low-precision product; a query whose K-th score does not lie above all that
was not proposed by more than the error bound of that product takes the CPU's way, with products
in float32.

Shape letters: Q queries, P passages of a block, K hits a query, D dimensions.
"""

from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from stx_mine.core.similarity import Similarity
from stx_mine.errors import ConfigError
from stx_mine.search.product import (
    PRECISIONS,
    Rounded,
    best_precision,
    error_bound,
    honest_products,
    product_values,
)
from stx_mine.search.propose import DeviceCorpus, Proposals, propose
from stx_mine.search.running_top import RunningTop
from stx_mine.search.score import score_hits
from stx_mine.search.threads import own_threads
from stx_mine.store.vectors import Vectors

# What a thread multiplies at a time: the product and its factors stay in cache.
_QUERY_TILE, _PASSAGE_TILE = 512, 1_024
# Proposals beside K, fixed and as a share of K: coarser products need more to be sure.
_SLACK = {"float32": (16, 0.0), "float16": (16, 0.25), "bfloat16": (16, 1.0)}


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


class Searcher(Protocol):
    """Finds the closest passages of queries."""

    def search(self, queries_QD: NDArray[np.float32], num_hits: int) -> Hits:
        """The top `num_hits` of each query, best first, ties by passage_id."""
        ...


@dataclass(frozen=True)
class ExactSearcher:
    """Exact search of stored passages; nothing but `passages` changes what it finds.

    Attributes:
        passages: The stored vectors.
        passage_block: Passages read at a time.
        device: Where products run; of several, each takes a slice of the corpus. None for all
            CUDA devices that are seen, else the CPU.
        precision: Of the products: float32, bfloat16, or float16 for cosine; None for the fastest.
        proposes: Whether a device only proposes; None for all but the CPU.
        start: First id that is searched.
        stop: Id after the last that is searched; None for all from `start` on.
    """

    passages: Vectors
    passage_block: int = 16_384
    device: str | tuple[str, ...] | None = None
    precision: str | None = None
    proposes: bool | None = None
    start: int = 0
    stop: int | None = None

    def __post_init__(self) -> None:
        """Refuse a precision that cannot hold the vectors.

        Raises:
            ConfigError: The precision is unknown, or float16 for vectors of any length.
        """
        if self.precision is not None and self.precision not in PRECISIONS:
            raise ConfigError(
                f"precision is {self.precision!r}, expected one of {', '.join(PRECISIONS)}"
            )
        if self.precision == "float16" and not self.passages.similarity.unit_length:
            raise ConfigError(
                f"precision is 'float16' and similarity '{self.passages.similarity}': vectors may "
                f"leave the range of float16; choose bfloat16 or float32"
            )

    @property
    def _end(self) -> int:
        return len(self.passages) if self.stop is None else self.stop

    @cached_property
    def _slices(self) -> tuple[DeviceCorpus, ...]:
        if self.device is None:
            count = torch.cuda.device_count()
            devices = tuple(f"cuda:{number}" for number in range(count)) or ("cpu",)
        else:
            devices = (self.device,) if isinstance(self.device, str) else self.device
        edges = np.linspace(self.start, self._end, len(devices) + 1).astype(int)
        return tuple(
            DeviceCorpus.of(
                self.passages,
                int(start),
                int(stop),
                self.passage_block,
                device,
                self.precision or best_precision(device, self.passages.similarity),
            )
            for device, start, stop in zip(devices, edges[:-1], edges[1:], strict=True)
            if start < stop
        )

    def search(self, queries_QD: NDArray[np.float32], num_hits: int) -> Hits:
        """The exact top `num_hits` of each query.

        Args:
            queries_QD: float32 (Q, D), prepared as `Vectors.rows` gives them.
            num_hits: Hits a query, at least 1.
        """
        wanted = min(num_hits, self._end - self.start)
        if not len(queries_QD) or not wanted:
            shape = (len(queries_QD), wanted)
            return Hits(np.empty(shape, np.int64), np.empty(shape, np.float32))
        with honest_products():
            # All devices are at work before the first is waited for.
            begun = [self._begin(corpus, queries_QD, wanted) for corpus in self._slices]
            parts = [
                self._finish(corpus, queries_QD, wanted, *one)
                for corpus, one in zip(self._slices, begun, strict=True)
            ]
        if len(parts) == 1:
            return parts[0]
        ids_QK, scores_QK = best_first(
            np.concatenate([part.ids_QK for part in parts], 1),
            np.concatenate([part.scores_QK for part in parts], 1),
        )
        return Hits(
            ids_QK[:, :wanted],
            scores_QK[:, :wanted],
            sum(part.num_redone for part in parts),
            sum(part.num_scored for part in parts),
        )

    def _begin(
        self, corpus: DeviceCorpus, queries_QD: NDArray[np.float32], wanted: int
    ) -> tuple[Rounded, Proposals | None]:
        queries = Rounded.of(queries_QD, corpus.device, corpus.precision)
        if not (corpus.device != "cpu" if self.proposes is None else self.proposes):
            return queries, None
        fixed, share = _SLACK[corpus.precision]
        num = min(wanted + fixed + int(share * wanted), corpus.stop - corpus.start)
        return queries, propose(queries, corpus, num)

    def _finish(
        self,
        corpus: DeviceCorpus,
        queries_QD: NDArray[np.float32],
        wanted: int,
        queries: Rounded,
        proposals: Proposals | None,
    ) -> Hits:
        """The top `wanted` of one slice of the corpus, fewer where it is smaller."""
        wanted = min(wanted, corpus.stop - corpus.start)
        if proposals is None:
            return self._stream(corpus, queries_QD, queries, wanted)
        proposed_QK = proposals.ids_QK.cpu().numpy()
        ids_QK, scores_QK = best_first(proposed_QK, self._score(queries_QD, proposed_QK))
        ids_QK, scores_QK = ids_QK[:, :wanted].copy(), scores_QK[:, :wanted].copy()
        unsure = np.empty(0, np.int64)
        if proposed_QK.shape[1] < corpus.stop - corpus.start:
            bounds_Q = self._bound(queries, float(proposals.longest), float(proposals.residual))
            values_Q = scores_QK[:, -1].astype(np.float64)
            squares_Q = np.einsum("qd,qd->q", queries_QD, queries_QD)
            values_Q = self.passages.similarity.order_of_score(values_Q, squares_Q)
            unsure = np.flatnonzero(values_Q <= proposals.worst_Q.cpu().numpy() + bounds_Q)
        num_scored = proposed_QK.size
        if len(unsure):
            rows = queries_QD[unsure]
            full = Rounded.of(rows, corpus.device, "float32")
            redone = self._stream(
                replace(corpus, precision="float32"),
                rows,
                full,
                wanted,
                floors_Q=scores_QK[unsure, -1],
            )
            ids_QK[unsure], scores_QK[unsure] = redone.ids_QK, redone.scores_QK
            num_scored += redone.num_scored
        return Hits(ids_QK, scores_QK, len(unsure), num_scored)

    def _stream(
        self,
        corpus: DeviceCorpus,
        queries_QD: NDArray[np.float32],
        queries: Rounded,
        wanted: int,
        floors_Q: NDArray[np.float32] | None = None,
    ) -> Hits:
        """One pass that keeps whatever a product cannot rule out."""
        num_queries, similarity = len(queries_QD), self.passages.similarity
        size = min(_QUERY_TILE, -(-num_queries // torch.get_num_threads()))
        tiles = [slice(start, start + size) for start in range(0, num_queries, size)]
        tops = [
            RunningTop(
                queries_QD[tile],
                wanted,
                similarity,
                None if floors_Q is None else floors_Q[tile],
            )
            for tile in tiles
        ]
        longest = residual = 0.0

        def read(first: int) -> tuple[NDArray[np.float32], Rounded]:
            block_PD = self.passages.rows(first, min(first + corpus.block, corpus.stop))
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
                bounds_Q = self._bound(queries, longest, residual)
                offer = partial(_offer_block, block_PD, passages, first, similarity)
                inputs = [
                    (top, queries.vectors[t], bounds_Q[t])
                    for top, t in zip(tops, tiles, strict=True)
                ]
                list(threads.map(offer, *zip(*inputs, strict=True)))
            found = list(threads.map(RunningTop.best, tops))
        return Hits(
            np.concatenate([ids_QK for ids_QK, _ in found]),
            np.concatenate([scores_QK for _, scores_QK in found]),
            num_scored=sum(top.num_scored for top in tops),
        )

    def _bound(self, queries: Rounded, longest: float, residual: float) -> NDArray[np.float32]:
        passages = self.passages
        return error_bound(queries, longest, residual, passages.dim, passages.similarity)

    def _score(
        self, queries_QD: NDArray[np.float32], ids_QK: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Fixed-order scores; each distinct passage is read once."""
        seen = np.zeros(len(self.passages), bool)
        seen[ids_QK] = True
        rows_QK = (np.cumsum(seen) - 1)[ids_QK]
        vectors = self.passages.take(np.flatnonzero(seen))
        return score_hits(queries_QD, vectors, rows_QK, self.passages.similarity)


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
    out_N = torch.empty(len(queries_QD) * _PASSAGE_TILE, device=queries_QD.device)
    for column in range(0, len(block_PD), _PASSAGE_TILE):
        columns = slice(column, column + _PASSAGE_TILE)
        squares = None if squares_P is None else squares_P[columns]
        product = product_values(queries_QD, passages.vectors[columns], squares, out_N)
        top.offer(product.cpu().numpy(), block_PD, bounds_Q, first_id, column)
    top.end_block(block_PD, bounds_Q, first_id)


def best_first(
    ids_QK: NDArray[np.int64], scores_QK: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Sort each row by falling score, ties by rising id."""
    by_id = np.argsort(ids_QK, axis=1, kind="stable")
    ids, scores = np.take_along_axis(ids_QK, by_id, 1), np.take_along_axis(scores_QK, by_id, 1)
    order = np.argsort(-scores, axis=1, kind="stable")
    return np.take_along_axis(ids, order, 1), np.take_along_axis(scores, order, 1)

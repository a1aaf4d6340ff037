"""Exact search in blocks: an inexact product proposes, the fixed-order score decides.

On the CPU one pass keeps, a query, all that a product cannot rule out. An accelerator proposes the
best K and some more by low-precision product, and scores them where it holds the vectors. A query
whose K-th score does not lie above all that was not proposed by more than the error bound of that
product is searched again with more proposals, and then in the CPU's way with products in float32.

Shape letters: Q queries, P passages of a block, K hits a query, D dimensions.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from stx_mine.core.ahead import ahead
from stx_mine.errors import ConfigError
from stx_mine.search.copies import HostCopy, pinned
from stx_mine.search.product import (
    PRECISIONS,
    Rounded,
    best_precision,
    error_bound,
    honest_products,
)
from stx_mine.search.propose import DeviceCorpus, propose
from stx_mine.search.resident import ResidentCorpus, find_top, what_fits
from stx_mine.search.score import score_hits
from stx_mine.search.stream import Hits, best_first, stream_top
from stx_mine.search.threads import BLOCKS_AHEAD
from stx_mine.search.ways import TORCH, WAYS, Way, way_of
from stx_mine.store.vectors import Vectors

# Queries that are read and searched at a time where there are many, and threads that read them.
_QUERY_BLOCK, _READERS = 16_384, 4
# More proposals, where the first are not certain, before the CPU's way is taken.
_RETRY, _RETRIED_ON_CPU = 8, 256
# Proposals beside K, fixed and as a share of K: coarser products need more to be sure.
_SLACK = {"float32": (16, 0.0), "float16": (16, 0.25), "bfloat16": (16, 1.0)}


class Searcher(Protocol):
    """Finds the closest passages of queries."""

    def search(self, queries_QD: NDArray[np.float32], num_hits: int) -> Hits:
        """The top `num_hits` of each query, best first, ties by passage_id."""
        ...


class _Slice(NamedTuple):
    """A slice of the corpus, as blocks and, where a device proposes and has room, on it."""

    corpus: DeviceCorpus
    resident: ResidentCorpus | None = None
    way: Way = TORCH


class _Begun(NamedTuple):
    """A slice's search of some queries; what a device proposed is on its way."""

    part: _Slice
    queries_QD: NDArray[np.float32]
    queries: Rounded
    wanted: int
    proposed: HostCopy | None = None
    is_retry: bool = False


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
        resident: Whether a device that proposes keeps the passages; None where they fit.
        kernels: What such a device computes with: torch, or triton, which is checked at first use.
    """

    passages: Vectors
    passage_block: int = 16_384
    device: str | tuple[str, ...] | None = None
    precision: str | None = None
    proposes: bool | None = None
    start: int = 0
    stop: int | None = None
    resident: bool | None = None
    kernels: str = "torch"

    def __post_init__(self) -> None:
        """Refuse a precision that cannot hold the vectors.

        Raises:
            ConfigError: The precision is unknown, or float16 for vectors of any length; or nobody
                knows the kernels.
        """
        if self.kernels not in WAYS:
            raise ConfigError(f"kernels are {self.kernels!r}, expected one of {', '.join(WAYS)}")
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
    def _slices(self) -> tuple[_Slice, ...]:
        if self.device is None:
            count = torch.cuda.device_count()
            devices = tuple(f"cuda:{number}" for number in range(count)) or ("cpu",)
        else:
            devices = (self.device,) if isinstance(self.device, str) else self.device
        edges = np.linspace(self.start, self._end, len(devices) + 1).astype(int)
        return tuple(
            self._slice(device, int(start), int(stop))
            for device, start, stop in zip(devices, edges[:-1], edges[1:], strict=True)
            if start < stop
        )

    def _slice(self, device: str, start: int, stop: int) -> _Slice:
        passages, block = self.passages, self.passage_block
        precision = self.precision or best_precision(device, passages.similarity)
        if self._proposes_on(device) and self.resident is not False:
            fits, exact_fits = what_fits(stop - start, passages.dim, device, precision)
            if fits or self.resident:
                way = way_of(device, precision, passages.similarity.by_distance, self.kernels)
                resident = ResidentCorpus.load(
                    passages, start, stop, block, device, precision, exact_fits
                )
                # Its blocks are read again for the queries that proposals leave unsure.
                corpus = DeviceCorpus(passages, start, stop, block, device, precision, False)
                return _Slice(corpus, resident, way)
        return _Slice(DeviceCorpus.of(passages, start, stop, block, device, precision))

    def _proposes_on(self, device: str) -> bool:
        return device != "cpu" if self.proposes is None else self.proposes

    def search(self, queries_QD: NDArray[np.float32], num_hits: int) -> Hits:
        """The exact top `num_hits` of each query.

        Args:
            queries_QD: float32 (Q, D), prepared as `Vectors.rows` gives them.
            num_hits: Hits a query, at least 1.
        """
        wanted = min(num_hits, self._end - self.start)
        return self._finish(self._begin(queries_QD, wanted), len(queries_QD), wanted)

    def search_all(
        self, queries: Vectors, num_hits: int, block: int = _QUERY_BLOCK
    ) -> Iterator[Hits]:
        """The exact top `num_hits` of all queries, block by block.

        A device searches one block while the next is read and the last is copied back.

        Args:
            queries: The queries.
            num_hits: Hits a query, at least 1.
            block: Queries of a block.
        """
        wanted = min(num_hits, self._end - self.start)

        def read(first: int) -> NDArray[np.float32]:
            return queries.rows(first, min(first + block, len(queries)))

        before: tuple[list[_Begun], int, int] | None = None
        with ThreadPoolExecutor(_READERS) as threads:
            firsts = range(0, len(queries), block)
            for rows_QD in ahead(read, firsts, threads, BLOCKS_AHEAD):
                now = (self._begin(rows_QD, wanted), len(rows_QD), wanted)
                if before is not None:
                    yield self._finish(*before)
                before = now
        if before is not None:
            yield self._finish(*before)

    def _begin(self, queries_QD: NDArray[np.float32], wanted: int) -> list[_Begun]:
        """All devices are at work before the first is waited for."""
        if not len(queries_QD) or not wanted:
            return []
        with honest_products():
            return [self._begin_slice(part, queries_QD, wanted) for part in self._slices]

    def _finish(self, begun: list[_Begun], num_queries: int, wanted: int) -> Hits:
        if not begun:
            shape = (num_queries, wanted)
            return Hits(np.empty(shape, np.int64), np.empty(shape, np.float32))
        with honest_products():
            parts = [self._finish_slice(one) for one in begun]
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

    def _begin_slice(
        self, part: _Slice, queries_QD: NDArray[np.float32], wanted: int, *, is_retry: bool = False
    ) -> _Begun:
        corpus, resident = part.corpus, part.resident
        wanted = min(wanted, corpus.stop - corpus.start)
        if not self._proposes_on(corpus.device):
            queries = Rounded.of(queries_QD, corpus.device, corpus.precision)
            return _Begun(part, queries_QD, queries, wanted)
        fixed, share = _SLACK[corpus.precision]
        num = wanted + fixed + int(share * wanted)
        num = min(_RETRY * num if is_retry else num, corpus.stop - corpus.start)
        exact = pinned(queries_QD, corpus.device).to(corpus.device, non_blocking=True)
        queries = Rounded.measured(exact, corpus.precision)
        if resident is None:
            one = propose(queries, corpus, num)
            worst_Q = one.worst_Q
            if num == corpus.stop - corpus.start:
                worst_Q = torch.full_like(worst_Q, -torch.inf)
            sizes = [torch.tensor(one.ids_QK.numel()), one.longest, one.residual]
            found = [one.ids_QK]
        else:
            top = find_top(resident, exact, queries.vectors, wanted, num, part.way)
            worst_Q = top.worst_Q
            sizes = [
                top.num_proposed,
                torch.tensor(resident.longest),
                torch.tensor(resident.residual),
            ]
            found = [top.ids_QM] if top.scores_QM is None else [top.ids_QM, top.scores_QM]
        copied = HostCopy([queries.norms, queries.residuals, worst_Q, *sizes, *found])
        return _Begun(part, queries_QD, queries, wanted, copied, is_retry)

    def _finish_slice(self, begun: _Begun) -> Hits:
        """The top of one slice of the corpus, fewer where it is smaller."""
        part, queries_QD, queries, wanted, proposed, is_retry = begun
        if proposed is None:
            return stream_top(part.corpus, queries_QD, queries, wanted)
        norms, residuals, worst_Q, num, longest, residual, *found = proposed.arrays()
        if len(found) == 2:
            ids_QK, scores_QK = found
        else:
            ids_QK, scores_QK = best_first(found[0], self._score(queries_QD, found[0]))
            ids_QK, scores_QK = ids_QK[:, :wanted].copy(), scores_QK[:, :wanted].copy()
        queries = replace(
            queries, norms=torch.from_numpy(norms), residuals=torch.from_numpy(residuals)
        )
        bounds_Q = self._bound(queries, float(longest), float(residual), part.way.wide)
        values_Q = scores_QK[:, -1].astype(np.float64)
        squares_Q = np.einsum("qd,qd->q", queries_QD, queries_QD)
        values_Q = self.passages.similarity.order_of_score(values_Q, squares_Q)
        unsure = np.flatnonzero((values_Q <= worst_Q + bounds_Q) & (worst_Q > -np.inf))
        num_scored = int(num)
        if len(unsure):
            # A CPU's pass takes many at once in less time than more proposals of each.
            few = part.corpus.device != "cpu" or len(unsure) <= _RETRIED_ON_CPU
            if part.resident is not None and not is_retry and few:
                again = self._begin_slice(part, queries_QD[unsure], wanted, is_retry=True)
                redone = self._finish_slice(again)
            else:
                redone = self._redo(part.corpus, queries_QD[unsure], scores_QK[unsure, -1], wanted)
            ids_QK[unsure], scores_QK[unsure] = redone.ids_QK, redone.scores_QK
            num_scored += redone.num_scored
        return Hits(ids_QK, scores_QK, len(unsure), num_scored)

    def _redo(
        self,
        corpus: DeviceCorpus,
        queries_QD: NDArray[np.float32],
        floors_Q: NDArray[np.float32],
        wanted: int,
    ) -> Hits:
        """What proposals were not certain of, in the CPU's way."""
        full = Rounded.of(queries_QD, corpus.device, "float32")
        return stream_top(
            replace(corpus, precision="float32"), queries_QD, full, wanted, floors_Q=floors_Q
        )

    def _bound(
        self, queries: Rounded, longest: float, residual: float, wide: bool = False
    ) -> NDArray[np.float32]:
        passages = self.passages
        return error_bound(queries, longest, residual, passages.dim, passages.similarity, wide=wide)

    def _score(
        self, queries_QD: NDArray[np.float32], ids_QK: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Fixed-order scores, minus infinity for -1; each distinct passage is read once."""
        seen = np.zeros(len(self.passages), bool)
        seen[ids_QK[ids_QK >= 0]] = True
        rows_QK = np.where(ids_QK < 0, -1, (np.cumsum(seen) - 1)[ids_QK])
        vectors = self.passages.take(np.flatnonzero(seen))
        return score_hits(queries_QD, vectors, rows_QK, self.passages.similarity)

"""A slice of the corpus that stays on a device, and the search of it.

Shape letters: Q queries, P passages, R rows, M most proposals a query, K hits a query,
D dimensions, W dimensions padded with zeros.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from stx_mine.core.ahead import ahead
from stx_mine.core.similarity import Similarity
from stx_mine.errors import ConfigError
from stx_mine.search.copies import pinned
from stx_mine.search.device_memory import free_gpu_memory
from stx_mine.search.device_score import best_scored, distance_scores
from stx_mine.search.groups import COPIED, MEMBERS, group_size
from stx_mine.search.product import PRECISIONS, Rounded
from stx_mine.search.threads import BLOCKS_AHEAD, own_threads
from stx_mine.search.ways import Way
from stx_mine.store.vectors import Vectors

_STEP = 64
# Of the free memory, what passages may take, and what one search of queries may take.
_PASSAGE_SHARE, _QUERY_SHARE = 0.8, 0.5
_LEAST_QUERIES, _MOST_QUERIES = 128, 65_536


@dataclass(frozen=True)
class ResidentCorpus:
    """Passages on a device, in groups of rows.

    Attributes:
        start: Id of the first passage.
        num_passages: P.
        similarity: How vectors are compared.
        rounded_RW: In the precision of the product.
        bias_R: float32; what is taken from a product, or from twice a product for Euclidean
            distance: |p|^2 there, else 0; infinity for padding.
        numbers_R: int32; which passage of the slice each row is, from 0.
        padding: Rows that are padding, rising.
        exact_PD: float32, prepared, in the order of ids; None where memory is too small for them.
        longest: Length of the longest passage.
        residual: The largest residual of a passage.
    """

    start: int
    num_passages: int
    similarity: Similarity
    rounded_RW: torch.Tensor
    bias_R: torch.Tensor
    numbers_R: torch.Tensor
    padding: list[int]
    exact_PD: torch.Tensor | None
    longest: float
    residual: float

    @property
    def by_distance(self) -> bool:
        """Whether a value is twice the product less the squared length."""
        return self.similarity.by_distance

    def widened(self, rounded_QD: torch.Tensor) -> torch.Tensor:
        """(Q, W): rounded queries with the zeros that passages have behind them."""
        width = self.rounded_RW.shape[1] - rounded_QD.shape[1]
        return torch.nn.functional.pad(rounded_QD, (0, width))

    @classmethod
    def load(
        cls,
        passages: Vectors,
        start: int,
        stop: int,
        block: int,
        device: str,
        precision: str,
        with_exact: bool,
    ) -> "ResidentCorpus":
        """Read a slice of the stored passages; blocks are read beside each other."""
        num, dim = stop - start, passages.dim
        rows_P, padding = _layout(num)
        num_rows = num + len(padding)
        rounded_RW = torch.zeros(
            (num_rows, padded(dim)), dtype=PRECISIONS[precision], device=device
        )
        bias_R = torch.full((num_rows,), torch.inf, device=device)
        numbers_R = torch.zeros(num_rows, dtype=torch.int32, device=device)
        exact_PD = torch.empty((num, dim), device=device) if with_exact else None
        longest, residual = torch.zeros(2, device=device)
        firsts = range(start, stop, block)

        def read(first: int) -> tuple[torch.Tensor, torch.Tensor]:
            last = min(first + block, stop)
            rows = torch.from_numpy(rows_P[first - start : last - start])
            return pinned(passages.rows(first, last), device), rows

        with own_threads() as threads:
            first = 0
            for exact_host, rows_host in ahead(read, firsts, threads, BLOCKS_AHEAD):
                exact = exact_host.to(device, non_blocking=True)
                rows = rows_host.to(device)
                rounded = Rounded.measured(exact, precision)
                square = rounded.norms.square()
                rounded_RW[rows, :dim] = rounded.vectors
                bias_R[rows] = square if passages.similarity.by_distance else 0 * square
                numbers = torch.arange(first, first + len(rows), device=device)
                numbers_R[rows] = numbers.int()
                longest = torch.maximum(longest, rounded.norms.max())
                residual = torch.maximum(residual, rounded.residuals.max())
                if exact_PD is not None:
                    exact_PD[first : first + len(rows)] = exact
                first += len(rows)
        # Copies change no maximum of a group that has a member.
        copied = torch.tensor(padding, dtype=torch.int64, device=device)
        rounded_RW[copied] = rounded_RW[copied // COPIED * COPIED]
        return cls(
            start,
            num,
            passages.similarity,
            rounded_RW,
            bias_R,
            numbers_R,
            padding,
            exact_PD,
            float(longest),
            float(residual),
        )


def _layout(num: int) -> tuple[NDArray[np.int64], list[int]]:
    """int64 (P,) the row of each passage, drawn at random, and the rows that are padding.

    Texts of a document or topic follow each other in most corpora, or come in a rhythm. In a few
    groups they would fill them with all that a query wants; here no group has more than its share.
    Padding is last of its groups.
    """
    num_groups = -(-num // MEMBERS)
    places = np.arange(num_groups * MEMBERS)
    rows_R = places % num_groups * MEMBERS + places // num_groups
    order = np.random.default_rng(0).permutation(num)
    return rows_R[:num][order], sorted(rows_R[num:].tolist())


class Found(NamedTuple):
    """What a search of a slice found, on its device.

    Attributes:
        ids_QM: int64 ids, best first where they have scores; -1 pads.
        scores_QM: float32 scores in fixed order, minus infinity pads; None where the host scores.
        worst_Q: float32; no passage that is not proposed has a higher value.
        num_proposed: int64 (), pairs that were proposed.
    """

    ids_QM: torch.Tensor
    scores_QM: torch.Tensor | None
    worst_Q: torch.Tensor
    num_proposed: torch.Tensor


def padded(dim: int) -> int:
    """W: what a step of the product divides."""
    return -(-dim // _STEP) * _STEP


def what_fits(num: int, dim: int, device: str, precision: str) -> tuple[bool, bool]:
    """Whether rounded passages fit on a device, and whether exact ones do beside them."""
    if not device.startswith("cuda"):
        return True, True
    room = _PASSAGE_SHARE * torch.cuda.mem_get_info(device)[0]
    rounded = num * (padded(dim) * PRECISIONS[precision].itemsize + 8)
    return rounded <= room, rounded + num * dim * 4 <= room


def find_top(
    corpus: ResidentCorpus,
    exact_QD: torch.Tensor,
    rounded_QD: torch.Tensor,
    num_hits: int,
    num: int,
    way: Way,
) -> Found:
    """The best of each query, as sure as proposals are.

    Args:
        corpus: The passages.
        exact_QD: float32 queries, prepared, on the device.
        rounded_QD: The same in the precision of the product.
        num_hits: K.
        num: Proposals a query, at most P.
        way: What computes.

    Raises:
        ConfigError: The memory of the device is too small for a few queries.
    """
    rounded_QW = corpus.widened(rounded_QD)
    size = _queries_at_a_time(corpus, num, way)
    parts: list[Found] = []
    first = 0
    while first < len(exact_QD):
        rows = slice(first, first + size)
        part = _find_where_memory_is(corpus, exact_QD[rows], rounded_QW[rows], num_hits, num, way)
        if part is not None:
            parts.append(part)
            first += size
        elif size <= _LEAST_QUERIES:
            raise ConfigError(
                f"{exact_QD.device} has too little free memory for {size} queries past "
                f"{corpus.num_passages:,} passages; stop what else uses it, or raise corpus_parts"
            )
        else:
            torch.cuda.empty_cache()
            size = max(_LEAST_QUERIES, size // 2)
    if len(parts) == 1:
        return parts[0]
    scores = [part.scores_QM for part in parts if part.scores_QM is not None]
    return Found(
        torch.cat([part.ids_QM for part in parts]),
        torch.cat(scores) if scores else None,
        torch.cat([part.worst_Q for part in parts]),
        torch.stack([part.num_proposed for part in parts]).sum(),
    )


def _find_where_memory_is(corpus: ResidentCorpus, *inputs: object) -> Found | None:
    """What is found; None where memory ran out."""
    find_part: partial[Found] = partial(_find_part, corpus)
    try:
        return find_part(*inputs)
    except torch.cuda.OutOfMemoryError:
        return None


def _find_part(
    corpus: ResidentCorpus,
    exact_QD: torch.Tensor,
    rounded_QW: torch.Tensor,
    num_hits: int,
    num: int,
    way: Way,
) -> Found:
    num_queries, device = len(exact_QD), exact_QD.device
    most = most_proposals(num)
    if num >= corpus.num_passages:
        most = corpus.num_passages
        numbers_QM = torch.arange(most, dtype=torch.int32, device=device).repeat(num_queries, 1)
        counts_Q = torch.full((num_queries,), most, dtype=torch.int32, device=device)
        worst_Q = torch.full((num_queries,), -torch.inf, device=device)
    else:
        size = group_size(num, len(corpus.rounded_RW), way.group)
        maxima_QG = way.maxima(rounded_QW, corpus, size)
        best = maxima_QG.topk(num, dim=1, sorted=False)
        del maxima_QG
        floors_Q = best.values.amin(1).float()
        rows_QM, counts_Q = way.members(rounded_QW, corpus, size, best.indices, floors_Q, most)
        numbers_QM = corpus.numbers_R[rows_QM]
        # What found no room may be better than what did: enough is scored for a floor.
        no_room_Q = counts_Q > most
        worst_Q = torch.where(no_room_Q, torch.inf, floors_Q)
        counts_Q = torch.where(no_room_Q, num_hits, counts_Q).int()
    num_proposed = counts_Q.sum()
    if corpus.exact_PD is None:
        empty = torch.arange(most, device=device) >= counts_Q[:, None]
        ids_QM = (numbers_QM.long() + corpus.start).masked_fill_(empty, -1)
        return Found(ids_QM, None, worst_Q, num_proposed)
    sums_QM = way.sums(exact_QD, corpus.exact_PD, numbers_QM, counts_Q, corpus.by_distance)
    scores_QM = distance_scores(sums_QM) if corpus.by_distance else sums_QM
    numbers_QK, scores_QK = best_scored(numbers_QM, scores_QM, counts_Q, num_hits)
    ids_QK = torch.where(numbers_QK < 0, -1, numbers_QK + corpus.start)
    return Found(ids_QK, scores_QK, worst_Q, num_proposed)


def most_proposals(num: int) -> int:
    """M: room for what ties with the floor; a power of 2, which sorts fastest."""
    return 1 << (num + 3 * num // 4).bit_length()


def _queries_at_a_time(corpus: ResidentCorpus, num: int, way: Way) -> int:
    if not corpus.rounded_RW.is_cuda:
        return _MOST_QUERIES
    num_rows = len(corpus.rounded_RW)
    num_groups = num_rows // group_size(num, num_rows, way.group)
    # Maxima; groups wanted with their sorted pairs; rows, sums, and keys with room to sort.
    each = 4 * num_groups + 48 * num + 48 * most_proposals(num)
    free = free_gpu_memory(corpus.rounded_RW.device)
    return int(min(_MOST_QUERIES, max(_LEAST_QUERIES, _QUERY_SHARE * free / each)))

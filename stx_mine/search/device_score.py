"""Scores in fixed order, and the best of them, where the vectors are: bit by bit those of the CPU.

Every product and every sum is an operation of its own, so that nothing contracts the two into one
that rounds once. The order is that of `lanes.py`: entry d goes to lane d % 16, then the lanes one
by one.

Shape letters: Q queries, P passages, M candidates a query, K hits a query, D dimensions.
"""

import torch

from stx_mine.search.lanes import SUM_LANES

# Entries of vectors that are gathered at a time: on a CPU they stay in cache.
_GATHERED, _GATHERED_ON_CPU = 2**26, 2**19
_INT32 = 0x7FFF_FFFF
_NOTHING = torch.iinfo(torch.int64).max


def lane_sums(
    queries_QD: torch.Tensor,
    passages_PD: torch.Tensor,
    ids_QM: torch.Tensor,
    counts_Q: torch.Tensor,
    by_distance: bool,
) -> torch.Tensor:
    """Sums of products, or of squared differences, of queries with their candidates.

    Args:
        queries_QD: float32, prepared.
        passages_PD: float32, prepared.
        ids_QM: int32 rows of `passages_PD`; anything where there is no candidate.
        counts_Q: int32, candidates of each query; they stand first.
        by_distance: Whether differences are squared.

    Returns:
        float32 (Q, M).
    """
    used = int(counts_Q.max()) if len(counts_Q) else 0
    sums_QM = torch.zeros(ids_QM.shape, device=ids_QM.device)
    dim = queries_QD.shape[1]
    gathered = _GATHERED if queries_QD.is_cuda else _GATHERED_ON_CPU
    rows = max(1, gathered // max(1, used * dim))
    for part in range(0, len(queries_QD), rows):
        queries = queries_QD[part : part + rows, None, :]
        ids = ids_QM[part : part + rows, :used].clamp(0, len(passages_PD) - 1)
        terms = passages_PD[ids.long()]
        if by_distance:
            terms.sub_(queries)
            terms.mul_(terms)
        else:
            terms.mul_(queries)
        lanes = torch.zeros((*ids.shape, SUM_LANES), device=ids.device)
        for first in range(0, dim, SUM_LANES):
            some = terms[:, :, first : first + SUM_LANES]
            lanes[:, :, : some.shape[2]].add_(some)
        total = torch.zeros(ids.shape, device=ids.device)
        for lane in range(SUM_LANES):
            total.add_(lanes[:, :, lane])
        sums_QM[part : part + rows, :used] = total
    return sums_QM


def distance_scores(sums_QM: torch.Tensor) -> torch.Tensor:
    """float32 negative roots, rounded correctly as those of NumPy are.

    float32 roots of torch are not on every device. One of float64 rounds to the nearest float32,
    for no root of a float32 lies so near to the middle of two that float64 cannot tell the side.
    """
    return sums_QM.double().sqrt().float().neg()


def best_scored(
    ids_QM: torch.Tensor, scores_QM: torch.Tensor, counts_Q: torch.Tensor, num: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The best `num`, best first, ties by rising id.

    Args:
        ids_QM: int32, at least 0; anything where there is no candidate.
        scores_QM: float32.
        counts_Q: int32, candidates of each query; they stand first.
        num: K, at most M.

    Returns:
        int64 (Q, K) ids and float32 (Q, K) scores; -1 and minus infinity pad.
    """
    # One whole number orders by falling score, then by rising id.
    falling = ~_ordered(scores_QM.view(torch.int32))
    keys_QM = (falling.long() << 32) | ids_QM.long()
    slots = torch.arange(ids_QM.shape[1], device=ids_QM.device)
    keys_QM.masked_fill_(slots >= counts_Q[:, None], _NOTHING)
    keys_QK = keys_QM.sort(dim=1).values[:, :num]
    missing = keys_QK == _NOTHING
    scores_QK = _ordered((~(keys_QK >> 32)).int()).view(torch.float32)
    return (
        (keys_QK & _INT32).masked_fill_(missing, -1),
        scores_QK.masked_fill_(missing, -torch.inf),
    )


def _ordered(bits: torch.Tensor) -> torch.Tensor:
    """Bits of a float32 as a whole number that orders like it, and the other way round."""
    return bits ^ ((bits >> 31) & _INT32)

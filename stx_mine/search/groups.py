"""Proposals by groups of passages: maxima of all groups first, then the members of the best.

A corpus is laid out in groups. The `num` groups of highest maximum hold the best `num` values, for
another group would need a value that exceeds one of each of those; so the lowest of those maxima
is a floor that at least `num` values reach and that no other group exceeds. The members of these
groups are multiplied once more, each group with all queries that want it, and those that reach
the floor are what is proposed. No product is stored as a whole: a kernel keeps it in registers,
and here it is reduced while it lies in the cache of the device.

What is done here with torch is done by `kernels.py` with fewer passes through memory.

Shape letters: Q queries, R rows of a corpus, G groups, C members of a group, N groups that a query
wants, M most proposals a query, W dimensions padded with zeros, B groups of a batch.
"""

from bisect import bisect_left
from collections.abc import Iterator
from typing import Protocol

import torch

# Members of a group; smaller corpora use halves, quarters and so on of each.
MEMBERS = 256
# Padding is a copy of the first of as many rows, so that few products have to look at it.
COPIED = 64
# Groups for each that is wanted: with 4, a sixth more members reach the floor than are wanted.
_GROUPS_FOR_ONE = 4
# Rows of queries of a product, and entries of one that the cache of a device holds.
_PRODUCT_ROWS, _PRODUCT_ENTRIES = 4_096, 2**24
# Entries of factors and products of members at a time.
_MEMBER_ENTRIES = 2**27


class Grouped(Protocol):
    """Passages that lie in groups."""

    @property
    def rounded_RW(self) -> torch.Tensor:  # noqa: N802
        """Vectors in the precision of the product; a group is consecutive rows."""
        ...

    @property
    def bias_R(self) -> torch.Tensor:  # noqa: N802
        """float32: what is taken from the products; infinity where a row is padding."""
        ...

    @property
    def padding(self) -> list[int]:
        """Rows that are padding, rising."""
        ...

    @property
    def by_distance(self) -> bool:
        """Whether a value is twice the product less the squared length."""
        ...


def group_size(num: int, num_rows: int, largest: int = MEMBERS) -> int:
    """Members of a group, a power of 2, so that few of the best share one."""
    size = largest
    while size > 1 and num_rows // size < _GROUPS_FOR_ONE * num:
        size //= 2
    return size


def group_maxima(
    queries_QW: torch.Tensor,
    corpus: Grouped,
    size: int,
    rows: int = _PRODUCT_ROWS,
    entries: int = _PRODUCT_ENTRIES,
) -> torch.Tensor:
    """The largest value of each group.

    Args:
        queries_QW: Rounded queries.
        corpus: The passages.
        size: Members of a group, a divisor of `MEMBERS`.
        rows: Queries of a product.
        entries: Entries of one, about.

    Returns:
        (Q, G), minus infinity for groups of padding; in the precision of the product, or float32
        for Euclidean distance.
    """
    rounded_RW, kind = corpus.rounded_RW, queries_QW.dtype
    num_queries, num_rows, device = len(queries_QW), len(rounded_RW), queries_QW.device
    maxima_QG = torch.empty(
        (num_queries, num_rows // size),
        dtype=torch.float32 if corpus.by_distance else kind,
        device=device,
    )
    height = min(num_queries, rows)
    width = min(num_rows, max(1, entries // max(1, height) // MEMBERS) * MEMBERS)
    memory = torch.empty(height * width, dtype=kind, device=device)
    # A product takes microseconds: whatever can be done once is.
    parts = [(part, memory[: len(part) * width]) for part in queries_QW.split(height)]
    outs = maxima_QG.split(height)
    for column in range(0, num_rows, width):
        factor = rounded_RW[column : column + width].T
        groups = slice(column // size, (column + factor.shape[1]) // size)
        for (part, space), out in zip(parts, outs, strict=True):
            values = space[: len(part) * factor.shape[1]].view(len(part), -1)
            torch.mm(part, factor, out=values)
            if corpus.by_distance:
                values = values.float().mul_(2).sub_(corpus.bias_R[column : column + width])
            elif shows_padding(corpus, size):
                _rule_out_padding(values, corpus.padding, column)
            torch.amax(values.view(len(part), -1, size), 2, out=out[:, groups])
    return maxima_QG


def shows_padding(corpus: Grouped, size: int) -> bool:
    """Whether padding can be the maximum of a group; else it has copies of the group's members.

    Padding is shared out evenly: of more than four times 256 rows no 64 are padding alone.
    """
    small = size < COPIED or len(corpus.rounded_RW) <= 4 * MEMBERS
    return small and bool(corpus.padding)


def _rule_out_padding(values_QR: torch.Tensor, padding: list[int], column: int) -> None:
    inside = slice(bisect_left(padding, column), bisect_left(padding, column + values_QR.shape[1]))
    for row in padding[inside]:
        values_QR[:, row - column] = -torch.inf


def group_members(
    queries_QW: torch.Tensor,
    corpus: Grouped,
    size: int,
    groups_QN: torch.Tensor,
    floors_Q: torch.Tensor,
    most: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The members of some groups whose values reach a floor.

    Args:
        queries_QW: Rounded queries.
        corpus: The passages.
        size: Members of a group.
        groups_QN: int64 (Q, N) the groups that each query wants.
        floors_Q: float32 (Q,) the least value.
        most: M.

    Returns:
        int32 (Q, M) rows, in no order that is promised, and int32 (Q,) how many there are, which
        may be more than M; what stands behind them is nothing.
    """
    num_queries, num_wanted = groups_QN.shape
    pairs, edges = sorted_pairs(groups_QN, len(corpus.rounded_RW) // size)
    members_GCW = corpus.rounded_RW.unflatten(0, (-1, size))
    bias_GC = corpus.bias_R.unflatten(0, (-1, size))
    cost = size + corpus.rounded_RW.shape[1]
    owners, rows = [], []
    for groups, longest in _batches(edges.diff().cpu(), _MEMBER_ENTRIES // cost):
        groups_B = groups.to(edges.device)
        places_BP = edges[groups_B][:, None] + torch.arange(longest, device=edges.device)
        inside_BP = places_BP < edges[groups_B + 1][:, None]
        queries_BP = pairs[places_BP.clamp_(max=len(pairs) - 1)] // num_wanted
        values_BPC = torch.bmm(queries_QW[queries_BP], members_GCW[groups_B].mT).float()
        if corpus.by_distance:
            values_BPC.mul_(2)
        values_BPC.sub_(bias_GC[groups_B][:, None, :])
        reached = (values_BPC >= floors_Q[queries_BP][:, :, None]) & inside_BP[:, :, None]
        b, p, c = (reached & (values_BPC > -torch.inf)).nonzero(as_tuple=True)
        owners.append(queries_BP[b, p])
        rows.append(groups_B[b] * size + c)
    return _by_owner(torch.cat(owners), torch.cat(rows), num_queries, most)


def sorted_pairs(groups_QN: torch.Tensor, num_groups: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pairs of query and group in the order of groups.

    Returns:
        int64 (Q x N,) positions in `groups_QN`, and int64 (G + 1,) where each group begins.
    """
    sorted_groups, pairs = groups_QN.flatten().int().sort()
    marks = torch.arange(num_groups + 1, dtype=torch.int32, device=groups_QN.device)
    return pairs, torch.searchsorted(sorted_groups, marks)


def _batches(counts_G: torch.Tensor, most: int) -> Iterator[tuple[torch.Tensor, int]]:
    """Groups of like numbers of pairs, and the highest of a batch, for products of one shape."""
    order = counts_G.argsort()
    counts = counts_G[order].tolist()
    first = bisect_left(counts, 1)
    while first < len(counts):
        last = first + 1
        while last < len(counts) and (last + 1 - first) * counts[last] <= most:
            last += 1
        yield order[first:last], counts[last - 1]
        first = last


def _by_owner(
    owners: torch.Tensor, rows: torch.Tensor, num_queries: int, most: int
) -> tuple[torch.Tensor, torch.Tensor]:
    owners, order = owners.sort()
    edges = torch.searchsorted(owners, torch.arange(num_queries + 1, device=owners.device))
    slots = torch.arange(len(owners), device=owners.device) - edges[owners]
    kept = slots < most
    rows_QM = torch.zeros((num_queries, most), dtype=torch.int32, device=owners.device)
    rows_QM[owners[kept], slots[kept]] = rows[order][kept].int()
    return rows_QM, edges.diff().int()

"""Proposals of an accelerator: the top K of products that are known to be inexact.

Shape letters: Q queries, P passages of a block, G column groups, K proposals a query, D dimensions.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch

from stx_mine.search.product import PRECISIONS, Rounded, product_values
from stx_mine.store.vectors import Vectors

_GROUP = 32
_PRODUCT = 2**28


@dataclass(frozen=True)
class Proposals:
    """What a device proposes, on that device.

    Attributes:
        ids_QK: int64 (Q, K) passage ids, best first.
        worst_Q: float32 (Q,) no passage that is not proposed has a higher value.
        longest: Length of the longest passage.
        residual: The largest residual of a passage.
    """

    ids_QK: torch.Tensor
    worst_Q: torch.Tensor
    longest: torch.Tensor
    residual: torch.Tensor


@dataclass(frozen=True)
class DeviceCorpus:
    """A slice of the stored passages, rounded, as blocks on a device.

    Attributes:
        passages: The stored vectors.
        start: First id of the slice.
        stop: Id after the last of the slice.
        block: Passages a block.
        device: Where it is used.
        precision: Of the product.
        resident: Whether it stays there between searches; else it streams through each.
    """

    passages: Vectors
    start: int
    stop: int
    block: int
    device: str
    precision: str
    resident: bool
    _kept: list[tuple[int, Rounded]] = field(default_factory=list, repr=False, compare=False)

    @classmethod
    def of(
        cls, passages: Vectors, start: int, stop: int, block: int, device: str, precision: str
    ) -> "DeviceCorpus":
        """A slice that stays on a CUDA device where it takes at most half of the free memory."""
        size = (stop - start) * passages.dim * PRECISIONS[precision].itemsize
        resident = device.startswith("cuda") and 2 * size <= torch.cuda.mem_get_info(device)[0]
        return cls(passages, start, stop, block, device, precision, resident)

    def blocks(self) -> Iterator[tuple[int, Rounded]]:
        """Yield (first id, vectors) of consecutive blocks."""
        if self._kept:
            yield from self._kept
            return
        kept = []
        for first in range(self.start, self.stop, self.block):
            rows = self.passages.rows(first, min(first + self.block, self.stop))
            rounded = Rounded.of(rows, self.device, self.precision)
            if self.resident:
                kept.append((first, rounded))
            yield first, rounded
        self._kept.extend(kept)


def propose(queries: Rounded, corpus: DeviceCorpus, num: int) -> Proposals:
    """The best `num` of each query by value; waits for no device.

    Args:
        queries: The queries, on the device of the corpus.
        corpus: The passages.
        num: Proposals a query, at most the passages of the slice.
    """
    num_queries, device = len(queries.vectors), queries.vectors.device
    values_QK = torch.empty((num_queries, 0), device=device)
    ids_QK = torch.empty((num_queries, 0), dtype=torch.int64, device=device)
    longest, residual = torch.zeros((), device=device), torch.zeros((), device=device)
    by_distance = corpus.passages.similarity.by_distance
    for first, passages in corpus.blocks():
        longest = torch.maximum(longest, passages.norms.max())
        residual = torch.maximum(residual, passages.residuals.max())
        squares_P = passages.norms.square() if by_distance else None
        rows = max(1, _PRODUCT // len(passages.vectors))
        found = [
            two_level_top(product_values(part, passages.vectors, squares_P), num)
            for part in queries.vectors.split(rows)
        ]
        values_QK = torch.cat([values_QK, torch.cat([values for values, _ in found])], 1)
        ids_QK = torch.cat([ids_QK, torch.cat([columns for _, columns in found]) + first], 1)
        if values_QK.shape[1] > num:
            values_QK, order = values_QK.topk(num, dim=1)
            ids_QK = ids_QK.gather(1, order)
    return Proposals(ids_QK, values_QK.amin(1), longest, residual)


def two_level_top(values_QP: torch.Tensor, num: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The top of each row, from the best groups of columns only.

    The `num` groups of highest maximum hold the best `num` values: another group would need a
    value that exceeds one of each of those.

    Args:
        values_QP: float32 (Q, P).
        num: Values a row; all where P is smaller.

    Returns:
        Values and column numbers, (Q, min(num, P)), in no order that is promised.
    """
    num_queries, num_columns = values_QP.shape
    num = min(num, num_columns)
    num_groups = num_columns // _GROUP
    if num_groups < 2 * num:
        top = values_QP.topk(num, dim=1, sorted=False)
        return top.values, top.indices
    whole = num_groups * _GROUP
    groups_QGC = values_QP[:, :whole].unflatten(1, (num_groups, _GROUP))
    best_QK = groups_QGC.amax(2).topk(num, dim=1, sorted=False).indices
    columns = (best_QK[:, :, None] * _GROUP + torch.arange(_GROUP, device=best_QK.device)).flatten(
        1
    )
    rest = torch.arange(whole, num_columns, device=best_QK.device).expand(num_queries, -1)
    columns = torch.cat([columns, rest], 1)
    top = values_QP.gather(1, columns).topk(num, dim=1, sorted=False)
    return top.values, columns.gather(1, top.indices)

"""Matrix products that propose: their precision, and how far they can lie from a score.

A value is what a product estimates: q.p, or 2 q.p - |p|^2 for Euclidean distance, which orders
like -|q - p|^2 because |q|^2 is the same for all passages of a query.

Shape letters: Q queries, P passages, D dimensions.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from stx_mine.core.similarity import Similarity
from stx_mine.search.lanes import SUM_LANES

PRECISIONS = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

_ROUNDED_ROWS = 512


def best_precision(device: str, similarity: Similarity) -> str:
    """The precision that is fastest on a device, float32 where a lower one gains nothing."""
    if device.startswith("cuda"):
        # Unit vectors cannot leave the range of float16, which is eight times finer.
        return "float16" if similarity.unit_length else "bfloat16"
    # Releases that cannot tell what the CPU has do without.
    capabilities: Mapping[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    if device == "cpu" and (capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")):
        return "bfloat16"
    return "float32"


@contextmanager
def honest_products() -> Iterator[None]:
    """Keep float32 products in float32, and sums of half precision in float32, while inside."""
    matmul = torch.backends.cuda.matmul
    before = (
        torch.get_float32_matmul_precision(),
        matmul.allow_fp16_reduced_precision_reduction,
        matmul.allow_bf16_reduced_precision_reduction,
    )
    torch.set_float32_matmul_precision("highest")
    matmul.allow_fp16_reduced_precision_reduction = False
    matmul.allow_bf16_reduced_precision_reduction = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        matmul.allow_fp16_reduced_precision_reduction = before[1]
        matmul.allow_bf16_reduced_precision_reduction = before[2]


@dataclass(frozen=True)
class Rounded:
    """Vectors in the precision of a product, and what rounding did to them.

    Attributes:
        vectors: (N, D) on its device.
        norms: float32 (N,) lengths before rounding.
        residuals: float32 (N,) lengths of what rounding took away.
    """

    vectors: torch.Tensor
    norms: torch.Tensor
    residuals: torch.Tensor

    @classmethod
    def of(cls, vectors_ND: NDArray[np.float32], device: str, precision: str) -> "Rounded":
        """Round vectors, and measure what that does."""
        return cls.measured(torch.from_numpy(vectors_ND).to(device), precision)

    @classmethod
    def measured(cls, exact: torch.Tensor, precision: str) -> "Rounded":
        """Round float32 vectors where they are, and measure what that does."""
        norms = torch.linalg.vector_norm(exact, dim=1)
        residuals = torch.zeros_like(norms)
        if precision == "float32":
            return cls(exact, norms, residuals)
        vectors = torch.empty_like(exact, dtype=PRECISIONS[precision])
        # On a CPU some rows at a time, whose differences stay in cache.
        size = _ROUNDED_ROWS if exact.device.type == "cpu" else max(1, len(exact))
        for start in range(0, len(exact), size):
            rows = slice(start, start + size)
            vectors[rows] = exact[rows]
            lost = exact[rows] - vectors[rows].float()
            residuals[rows] = torch.linalg.vector_norm(lost, dim=1)
        return cls(vectors, norms, residuals)


def error_bound(
    queries: Rounded,
    longest: float,
    residual: float,
    dim: int,
    similarity: Similarity,
    *,
    wide: bool = False,
) -> NDArray[np.float32]:
    """How far a value of a product can lie from that of the fixed-order score.

    |q.p - q'.p'| <= |q - q'||p'| + |q||p - p'| for rounded q', p', by their measured lengths. A
    float32 sum of products errs by at most gamma_n |q||p|, n the longest chain of additions
    (Higham 2002, section 3.1): D in a product of any order, D / lanes + lanes in the score.

    Args:
        queries: The queries.
        longest: Length of the longest passage so far.
        residual: The largest residual of a passage so far.
        dim: D.
        similarity: How vectors are compared.
        wide: Whether the rounding of values is not counted: they are float32, whatever their
            factors are, or `rounding_share` counts it.

    Returns:
        float32 (Q,), rounded up.
    """
    norms_Q = queries.norms.cpu().double().numpy() * (1 + 1e-5)
    residuals_Q = queries.residuals.cpu().double().numpy() * (1 + 1e-5)
    longest, residual = longest * (1 + 1e-5), residual * (1 + 1e-5)
    unit = float(np.finfo(np.float32).eps) / 2
    # A few more for the additions and comparisons of bounds.
    product, score = (n * unit / (1 - n * unit) for n in (dim + 8, dim / SUM_LANES + SUM_LANES + 8))
    rounding_Q = residuals_Q * (longest + residual) + norms_Q * residual
    underflow = 4 * dim * float(np.finfo(np.float32).tiny)
    if queries.vectors.dtype != torch.float32:
        product *= 1.05
        if not wide:
            # Products leave in the precision that they came in: half a unit in the last place.
            last = torch.finfo(queries.vectors.dtype)
            rounding_Q += last.eps / 2 * (norms_Q + residuals_Q) * (longest + residual)
            underflow += last.smallest_normal * last.eps
    bound_Q = similarity.bound(product, score, rounding_Q, norms_Q, longest)
    # Zeros do not underflow, and whole corpora of them must be ruled out.
    bound_Q += np.where(norms_Q * longest > 0, 2 * underflow, 0)
    bounds_Q: NDArray[np.float32] = bound_Q.astype(np.float32)
    bounds_Q[bound_Q > 0] = np.nextafter(bounds_Q[bound_Q > 0], np.float32(np.inf))
    return bounds_Q


def rounding_share(precision: str, similarity: Similarity) -> float:
    """What values of `products` lost when they were rounded, as a share of each at most.

    Most are far below the length of their factors, so that this rules out more than one bound of
    all values. Distances are no products alone, and take that.
    """
    if precision != "bfloat16" or similarity.by_distance:
        return 0.0
    return float(torch.finfo(torch.bfloat16).eps) / 2 * (1 + 1e-5)


def products(
    queries_QD: torch.Tensor, passages_PD: torch.Tensor, out_N: torch.Tensor | None = None
) -> torch.Tensor:
    """Products of rounded queries and passages, in the precision of both.

    Args:
        queries_QD: Rounded queries.
        passages_PD: Rounded passages.
        out_N: Memory to use again, at least Q x P, of the same precision.

    Returns:
        (Q, P), in `out_N` where it is given.
    """
    shape = (len(queries_QD), len(passages_PD))
    if out_N is None:
        return torch.mm(queries_QD, passages_PD.T)
    product = out_N[: shape[0] * shape[1]].view(shape)
    if product.device.type == "cpu" and product.dtype == torch.float32:
        # NumPy's OpenBLAS is a tenth faster than torch's MKL on processors other than Intel's.
        np.matmul(queries_QD.numpy(), passages_PD.numpy().T, out=product.numpy())
    else:
        torch.mm(queries_QD, passages_PD.T, out=product)
    return product


def product_values(
    queries_QD: torch.Tensor,
    passages_PD: torch.Tensor,
    squares_P: torch.Tensor | None,
    out_N: torch.Tensor | None = None,
) -> torch.Tensor:
    """Values of rounded queries and passages.

    Args:
        queries_QD: Rounded queries.
        passages_PD: Rounded passages.
        squares_P: float32 squared lengths before rounding, for Euclidean distance.
        out_N: As in `products`.

    Returns:
        float32 (Q, P).
    """
    product = products(queries_QD, passages_PD, out_N).float()
    return product if squares_P is None else product.mul_(2).sub_(squares_P)

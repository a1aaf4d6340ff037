"""Kernels of Triton for what `groups.py` and `device_score.py` compute; imported where it is there.

A value of a product never leaves the registers in which it was summed: what is written is the
maximum of a group, or the number of a row that reaches its query's floor.

Shape letters: see `groups.py` and `device_score.py`.
"""

# mypy: disable-error-code="untyped-decorator,no-untyped-def"
# ruff: noqa: ANN001, ANN202

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from subprocess import SubprocessError

import torch
import triton
import triton.language as tl
from triton.errors import TritonError
from triton.tools.tensor_descriptor import TensorDescriptor

from stx_mine.search.device_score import lane_sums
from stx_mine.search.groups import (
    Grouped,
    group_maxima,
    group_members,
    shows_padding,
    sorted_pairs,
)
from stx_mine.search.lanes import SUM_LANES

_LANES = tl.constexpr(SUM_LANES)
# Smaller groups are left to torch: corpora that have them are small.
_SMALLEST = 64
# What compilers and drivers raise.
_FAILURES = (TritonError, RuntimeError, ValueError, TypeError, OSError, SubprocessError)
# Pairs and members of a tile of the second product, and candidates that a program scores.
_PAIRS, _WIDTH, _CANDIDATES = 128, 64, 32


@dataclass(frozen=True)
class TileShape:
    """How the first product is cut.

    Attributes:
        rows: Queries of a tile.
        group: Members of the largest groups; a group is the other side of a tile.
        step: Dimensions at a time; 64 where it does not divide W.
        warps: Warps of a program.
        stages: Steps on their way while one is multiplied.
        streams: Whether a program computes many tiles, and the device copies whole blocks of
            vectors by itself (Hopper and later).
        band: Tiles of queries that are at work together, so that they share passages.
        programs: Programs on a processor of the device, where each computes many tiles.
    """

    rows: int = 128
    group: int = 256
    step: int = 64
    warps: int = 8
    stages: int = 3
    streams: bool = False
    band: int = 16
    programs: int = 1


# By the compute capability that it needs; the first that works is used.
TILE_SHAPES = (
    (9, TileShape(streams=True)),
    (8, TileShape()),
)


@triton.jit
def _place(tile, num_rows, num_groups, BAND: tl.constexpr):
    """Row and column of a tile, so that tiles at work together share rows and columns."""
    band = tile // (BAND * num_groups)
    height = tl.minimum(num_rows - band * BAND, BAND)
    inside = tile - band * BAND * num_groups
    return band * BAND + inside % height, inside // height


@triton.jit(do_not_specialize=["num_queries", "num_groups"])
def _maxima(
    queries, passages, bias, maxima, num_queries, num_groups,
    DIM: tl.constexpr, BY_DISTANCE: tl.constexpr, ROWS: tl.constexpr, GROUP: tl.constexpr,
    STEP: tl.constexpr, BAND: tl.constexpr,
):  # fmt: skip
    row, group = _place(tl.program_id(0), tl.cdiv(num_queries, ROWS), num_groups, BAND)
    own = row * ROWS + tl.arange(0, ROWS)
    columns = group.to(tl.int64) * GROUP + tl.arange(0, GROUP)
    entries = tl.arange(0, STEP)
    left = queries + tl.minimum(own, num_queries - 1)[:, None] * DIM + entries[None, :]
    right = passages + columns[None, :] * DIM + entries[:, None]
    sums = tl.zeros((ROWS, GROUP), tl.float32)
    for start in range(0, DIM, STEP):
        sums = tl.dot(tl.load(left + start), tl.load(right + start), sums)
    if BY_DISTANCE:
        sums = sums * 2 - tl.load(bias + columns)[None, :]
    out = maxima + own.to(tl.int64) * num_groups + group
    tl.store(out, tl.max(sums, 1), mask=own < num_queries)


@triton.jit(do_not_specialize=["num_queries", "num_groups"])
def _maxima_streamed(
    queries, passages, bias, maxima, num_queries, num_groups,
    DIM: tl.constexpr, BY_DISTANCE: tl.constexpr, ROWS: tl.constexpr, GROUP: tl.constexpr,
    STEP: tl.constexpr, BAND: tl.constexpr, PROGRAMS: tl.constexpr,
):  # fmt: skip
    num_rows = tl.cdiv(num_queries, ROWS)
    for tile in tl.range(tl.program_id(0), num_rows * num_groups, PROGRAMS, flatten=True):
        row, group = _place(tile, num_rows, num_groups, BAND)
        sums = tl.zeros((ROWS, GROUP), tl.float32)
        for start in range(0, DIM, STEP):
            left = queries.load([row * ROWS, start])
            right = passages.load([group * GROUP, start])
            sums = tl.dot(left, right.T, sums)
        own = row * ROWS + tl.arange(0, ROWS)
        if BY_DISTANCE:
            squares = tl.load(bias + group * GROUP + tl.arange(0, GROUP))
            sums = sums * 2 - squares[None, :]
        out = maxima + own.to(tl.int64) * num_groups + group
        tl.store(out, tl.max(sums, 1), mask=own < num_queries)


@triton.jit
def _members(
    queries, passages, bias, floors, pairs, tile_groups, tile_starts, tile_stops, counts, rows,
    num_wanted, most,
    DIM: tl.constexpr, SCALE: tl.constexpr, PAIRS: tl.constexpr, GROUP: tl.constexpr,
    WIDTH: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    tile = tl.program_id(0)
    start = tl.load(tile_starts + tile)
    stop = tl.load(tile_stops + tile)
    if start < stop:
        places = start + tl.arange(0, PAIRS)
        inside = places < stop
        own = (tl.load(pairs + places, mask=inside, other=0) // num_wanted).to(tl.int32)
        first = tl.load(tile_groups + tile) * GROUP + tl.program_id(1) * WIDTH
        columns = first + tl.arange(0, WIDTH)
        entries = tl.arange(0, STEP)
        left = queries + own[:, None] * DIM + entries[None, :]
        right = passages + columns[None, :].to(tl.int64) * DIM + entries[:, None]
        sums = tl.zeros((PAIRS, WIDTH), tl.float32)
        for begin in range(0, DIM, STEP):
            sums = tl.dot(tl.load(left + begin), tl.load(right + begin), sums)
        values = sums * SCALE - tl.load(bias + columns)[None, :]
        floor = tl.load(floors + own)
        reached = (values >= floor[:, None]) & (values > float("-inf")) & inside[:, None]
        at = own[:, None] + tl.zeros((PAIRS, WIDTH), own.dtype)
        slots = tl.atomic_add(counts + at, 1, mask=reached, sem="relaxed")
        kept = reached & (slots < most)
        numbers = columns[None, :] + tl.zeros((PAIRS, WIDTH), tl.int32)
        tl.store(rows + at * most + slots, numbers, mask=kept)


@triton.jit
def _sums(
    queries, passages, ids, counts, sums, most,
    DIM: tl.constexpr, BY_DISTANCE: tl.constexpr, CANDIDATES: tl.constexpr,
):  # fmt: skip
    query = tl.program_id(0).to(tl.int64)
    places = tl.program_id(1) * CANDIDATES + tl.arange(0, CANDIDATES)
    count = tl.load(counts + query)
    if tl.program_id(1) * CANDIDATES < count:
        inside = places < count
        own = tl.load(ids + query * most + places, mask=inside, other=0).to(tl.int64)
        entries = tl.arange(0, _LANES)
        lanes = tl.zeros((CANDIDATES, _LANES), tl.float32)
        for start in range(0, DIM, _LANES):
            # Zeros behind the last dimension change no sum.
            there = start + entries < DIM
            left = tl.load(queries + query * DIM + start + entries, mask=there, other=0.0)[None, :]
            right = tl.load(
                passages + own[:, None] * DIM + start + entries[None, :],
                mask=there[None, :] & inside[:, None],
                other=0.0,
            )
            if BY_DISTANCE:
                left = left - right
                right = left
            lanes = lanes + left * right
        total = tl.zeros((CANDIDATES,), tl.float32)
        for lane in tl.static_range(_LANES):
            # One lane among zeros: its sum is what it holds.
            total = total + tl.sum(tl.where(entries[None, :] == lane, lanes, 0.0), 1)
        tl.store(sums + query * most + places, total, mask=inside)


def tile_maxima(
    queries_QW: torch.Tensor, corpus: Grouped, size: int, shape: TileShape
) -> torch.Tensor:
    """float32 (Q, G), as `group_maxima`; padding takes part as copies of members of its group."""
    if size < _SMALLEST or shows_padding(corpus, size):
        return group_maxima(queries_QW, corpus, size)
    num_queries, dim = queries_QW.shape
    passages_RW = corpus.rounded_RW
    num_groups = len(passages_RW) // size
    maxima_QG = torch.empty((num_queries, num_groups), device=queries_QW.device)
    num_tiles = triton.cdiv(num_queries, shape.rows) * num_groups
    step = shape.step if dim % shape.step == 0 else 64
    cut = dict(
        DIM=dim,
        BY_DISTANCE=corpus.by_distance,
        ROWS=shape.rows,
        GROUP=size,
        STEP=step,
        BAND=shape.band,
        num_warps=shape.warps,
        num_stages=shape.stages,
    )
    with _on(queries_QW):
        if not shape.streams:
            _maxima[(num_tiles,)](
                queries_QW, passages_RW, corpus.bias_R, maxima_QG, num_queries, num_groups, **cut
            )
        else:
            programs = min(num_tiles, shape.programs * _processors(queries_QW.device))
            _maxima_streamed[(programs,)](
                TensorDescriptor.from_tensor(queries_QW, [shape.rows, step]),
                TensorDescriptor.from_tensor(passages_RW, [size, step]),
                corpus.bias_R,
                maxima_QG,
                num_queries,
                num_groups,
                PROGRAMS=programs,
                **cut,
            )
    return maxima_QG


def tile_members(
    queries_QW: torch.Tensor,
    corpus: Grouped,
    size: int,
    groups_QN: torch.Tensor,
    floors_Q: torch.Tensor,
    most: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `group_members`; waits for no device."""
    if size < _SMALLEST:
        return group_members(queries_QW, corpus, size, groups_QN, floors_Q, most)
    device, (num_queries, num_wanted) = queries_QW.device, groups_QN.shape
    num_groups = len(corpus.rounded_RW) // size
    pairs, edges_G = sorted_pairs(groups_QN, num_groups)
    # A tile is some pairs of one group; how many tiles there are only the device knows.
    tiles_G = (edges_G.diff() + (_PAIRS - 1)) // _PAIRS
    ends_G = tiles_G.cumsum(0)
    tiles = torch.arange(len(pairs) // _PAIRS + num_groups, device=device)
    groups = torch.searchsorted(ends_G, tiles, right=True)
    real = groups.clamp(max=num_groups - 1)
    starts = edges_G[real] + (tiles - (ends_G - tiles_G)[real]) * _PAIRS
    stops = torch.where(groups < num_groups, torch.minimum(starts + _PAIRS, edges_G[real + 1]), 0)
    counts_Q = torch.zeros(num_queries, dtype=torch.int32, device=device)
    rows_QM = torch.zeros((num_queries, most), dtype=torch.int32, device=device)
    with _on(queries_QW):
        _members[(len(tiles), size // _WIDTH)](
            queries_QW,
            corpus.rounded_RW,
            corpus.bias_R,
            floors_Q,
            pairs,
            real,
            starts,
            stops,
            counts_Q,
            rows_QM,
            num_wanted,
            most,
            DIM=queries_QW.shape[1],
            SCALE=2.0 if corpus.by_distance else 1.0,
            PAIRS=_PAIRS,
            GROUP=size,
            WIDTH=_WIDTH,
            STEP=64,
            num_warps=8,
            num_stages=3,
        )
    return rows_QM, counts_Q


def tile_sums(
    queries_QD: torch.Tensor,
    passages_PD: torch.Tensor,
    ids_QM: torch.Tensor,
    counts_Q: torch.Tensor,
    by_distance: bool,
) -> torch.Tensor:
    """As `lane_sums`, bit by bit: products and sums stay apart."""
    num_queries, most = ids_QM.shape
    sums_QM = torch.zeros((num_queries, most), device=queries_QD.device)
    with _on(queries_QD):
        _sums[(num_queries, triton.cdiv(most, _CANDIDATES))](
            queries_QD.contiguous(),
            passages_PD,
            ids_QM.contiguous(),
            counts_Q,
            sums_QM,
            most,
            DIM=queries_QD.shape[1],
            BY_DISTANCE=by_distance,
            CANDIDATES=_CANDIDATES,
            num_warps=4,
            enable_fp_fusion=False,
        )
    return sums_QM


def working_shape(
    device: str, kind: torch.dtype, by_distance: bool
) -> tuple[TileShape | None, str]:
    """The first shape with which the kernels work on a device, and what is wrong with the rest.

    They are compiled and compared with what torch computes, on a few random vectors.
    """
    capability = torch.cuda.get_device_capability(device)[0] if device.startswith("cuda") else 9
    troubles = ["it is too old for Triton's kernels"]
    for least, shape in TILE_SHAPES:
        if capability >= least:
            try:
                sample = _Sample.random(device, kind, by_distance)
                step = sample.first_difference(shape)
            except _FAILURES as error:
                line = (str(error).splitlines() or [""])[0]
                troubles.append(f"Triton's kernels fail ({type(error).__name__}: {line})")
                continue
            if step is None:
                return shape, "; ".join(troubles[1:])
            troubles.append(f"{step} of Triton's kernels differ from those of torch")
    return None, "; ".join(troubles[1:] or troubles)


@dataclass(frozen=True)
class _Sample:
    """Random vectors that the kernels are checked with."""

    rounded_RW: torch.Tensor
    bias_R: torch.Tensor
    by_distance: bool
    padding: list[int]
    queries_QW: torch.Tensor

    @classmethod
    def random(cls, device: str, kind: torch.dtype, by_distance: bool) -> "_Sample":
        generator = torch.Generator().manual_seed(0)
        vectors = torch.randn(1024 + 300, 128, generator=generator).to(device)
        vectors /= vectors.norm(dim=1, keepdim=True)
        passages, queries = vectors[:1024].to(kind), vectors[1024:].to(kind)
        squares = passages.float().square().sum(1)
        bias = squares if by_distance else torch.zeros_like(squares)
        return cls(passages, bias, by_distance, [], queries)

    def first_difference(self, shape: TileShape) -> str | None:
        """The first step that the kernels do differently."""
        values = self.queries_QW.float() @ self.rounded_RW.float().T
        if self.by_distance:
            values = 2 * values - self.bias_R
        # Far above what sums can differ by, far below the differences of random vectors.
        near = 1e-3
        for size in (64, 128, 256):
            maxima = tile_maxima(self.queries_QW, self, size, shape)
            expected = values.unflatten(1, (-1, size)).amax(2)
            if not torch.allclose(maxima, expected, rtol=0, atol=near):
                return "maxima"
        groups = torch.arange(4, device=values.device).expand(len(values), -1).contiguous()
        floors = values.topk(40, dim=1).values[:, -1].contiguous()
        rows, counts = tile_members(self.queries_QW, self, 256, groups, floors, 64)
        if not bool(((counts >= 35) & (counts <= 45)).all()):
            return "numbers of members"
        found = values.gather(1, rows.long())
        here = torch.arange(64, device=rows.device) < counts[:, None]
        if bool((found < (floors - near)[:, None])[here].any()):
            return "members"
        exact, passages = self.queries_QW.float()[:, :90], self.rounded_RW.float()[:, :90]
        # Some products lie below the smallest normal number.
        exact[::7] *= 1e-30
        passages[::5] *= 1e-10
        inputs = (exact.contiguous(), passages.contiguous(), rows, counts.int(), self.by_distance)
        differ = tile_sums(*inputs).view(torch.int32) != lane_sums(*inputs).view(torch.int32)
        return "sums" if bool(differ[here].any()) else None


def _on(tensor: torch.Tensor) -> AbstractContextManager[object]:
    """Kernels are launched on the current device."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def _processors(device: torch.device) -> int:
    if device.type != "cuda":
        return 3
    return int(torch.cuda.get_device_properties(device).multi_processor_count)

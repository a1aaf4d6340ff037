"""How much of a GPU's half-precision matrix product the exact search makes use of.

The peak is measured on the same device: a square product of 8,192 in bfloat16. The search finds
the best 100 of a million passages for a million queries; its work is counted as one product of
queries and passages, 2 x queries x passages x dimensions operations. `share` is of the search of
all queries: reading and scaling them, the search, and hits in the memory of the host; with
`share_with_corpus` reading the passages and copying them to the device counts too. Vectors are
normal around 4,096 centres, of unit length, and are made on the device.

`--kernels torch` or `triton` measures one way, else both are. Every way is compared with the CPU
bit by bit, by all similarities; `--sweep` times shapes of tiles; `--quick` is tiny and runs on a
CPU too. Progress is on stderr, the last line is one JSON object. `python -m benchmarks.gpu_search`
needs nothing but what the search imports.
"""

import argparse
import json
import os
import shutil
import sys
import sysconfig
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.gpu_part import product_tflops, synchronised_seconds
from stx_mine.search.device_score import best_scored, distance_scores
from stx_mine.search.exact import ExactSearcher
from stx_mine.search.groups import group_maxima, group_size
from stx_mine.search.product import Rounded, honest_products
from stx_mine.search.resident import most_proposals
from stx_mine.store.vectors import Vectors

NUM_CENTRES = 4_096
# The proposals of `ExactSearcher` for 100 hits in float16.
NUM_PROPOSALS = 141


@dataclass(frozen=True)
class Sizes:
    """What is measured.

    Attributes:
        passages: Passages.
        queries: Queries.
        dims: Dimensions.
        hits: Hits a query.
        block: Queries of a block, and of the times by phase.
        checked: Queries that are searched on the CPU too.
        peak: Side of the square product.
        repeats: Timed runs of each way, the best of which counts.
    """

    passages: int = 1_000_000
    queries: int = 1_000_000
    dims: tuple[int, ...] = (384, 768)
    hits: int = 100
    block: int = 16_384
    checked: int = 32
    peak: int = 8_192
    repeats: int = 1


QUICK = Sizes(40_000, 600, (48,), 20, 250, 32, 256)


def measure(
    sizes: Sizes | None = None, kernels: tuple[str, ...] = ("triton", "torch"), sweep: bool = False
) -> dict[str, Any] | None:
    """Peak, and the search by way and dimensions; None where there is no GPU and no sizes."""
    on_gpu = torch.cuda.is_available()
    if not on_gpu and sizes is None:
        return None
    device, sizes = "cuda:0" if on_gpu else "cpu", sizes or Sizes()
    peak = product_tflops(device, torch.bfloat16, sizes.peak)
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "triton": find_spec("triton") is not None,
        # Triton builds what launches its kernels.
        "c_compiler": os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang"),
        "python_headers": (Path(sysconfig.get_paths()["include"]) / "Python.h").exists(),
        "peak_tflops": peak,
        "same_as_cpu": {way: attempt(lambda way=way: small_checks(device, way)) for way in kernels},
    }
    say(f"peak {peak:.1f} TFLOP/s; small searches: {found['same_as_cpu']}")
    for dim in sizes.dims:
        found |= of_dimensions(dim, device, sizes, kernels, sweep, peak)
    return found


def of_dimensions(
    dim: int, device: str, sizes: Sizes, kernels: tuple[str, ...], sweep: bool, peak: float
) -> dict[str, Any]:
    """The search of vectors of `dim` dimensions, by way."""
    found = {}
    passages, queries = (
        clustered(num, dim, device, seed)
        for seed, num in enumerate((sizes.passages, sizes.queries))
    )
    expected = cpu_hits(passages, queries, sizes)
    for way in kernels:
        key = f"{way}_{dim}"
        found[key] = attempt(
            lambda way=way: one_search(device, way, passages, queries, sizes, peak, expected)
        )
        say(f"{key}: {found[key]}")
    if sweep:
        swept = attempt(lambda: shapes(device, passages, queries, sizes))
        say(f"sweep_{dim}: {swept}")
        found[f"sweep_{dim}"] = swept
        if isinstance(swept, dict) and (fastest := swept.pop("fastest", None)) is not None:
            swept["fastest"] = str(fastest)
            found[f"triton_fastest_{dim}"] = attempt(
                lambda: search_in_shape(fastest, device, passages, queries, sizes, peak, expected)
            )
            say(f"triton_fastest_{dim}: {found[f'triton_fastest_{dim}']}")
    return found


def search_in_shape(shape: Any, *inputs: Any) -> dict[str, Any]:
    """The search with kernels of one shape."""
    from stx_mine.search import kernels, ways

    before, kernels.TILE_SHAPES = kernels.TILE_SHAPES, ((0, shape),)
    ways.way_of.cache_clear()
    try:
        return one_search(inputs[0], "triton", *inputs[1:])
    finally:
        kernels.TILE_SHAPES = before
        ways.way_of.cache_clear()


def say(line: str) -> None:
    """Show a line at once, with the seconds since the start."""
    print(f"[{time.perf_counter() - _STARTED:6.1f} s] {line}", file=sys.stderr, flush=True)


_STARTED = time.perf_counter()


def attempt(work: Callable[[], Any]) -> Any:
    """What `work` gives, or its error in words: the other parts are measured all the same."""
    try:
        return work()
    except Exception as error:
        return f"failed: {type(error).__name__}: {str(error)[:400]}"


def seconds_of(work: Callable[[], Any], device: str, repeats: int = 3) -> float:
    """The shortest of some runs after one that is not counted."""
    work()
    return min(synchronised_seconds(work, device) for _ in range(repeats))


def clustered(num: int, dim: int, device: str, seed: int) -> Vectors:
    """Vectors around randomly chosen centres, of unit length, in the memory of the host."""
    generator = torch.Generator(device).manual_seed(0)
    centres = torch.randn(NUM_CENTRES, dim, device=device, generator=generator)
    generator.manual_seed(seed + 1)
    chosen = torch.randint(NUM_CENTRES, (num,), device=device, generator=generator)
    vectors = torch.randn(num, dim, device=device, generator=generator).add_(centres[chosen])
    vectors /= torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    return Vectors((vectors.cpu().numpy(),), "cosine")


def searcher_of(passages: Vectors, device: str, way: str, **more: Any) -> ExactSearcher:
    """One that proposes and keeps the passages, in one way."""
    return ExactSearcher(passages, device=device, proposes=True, resident=True, kernels=way, **more)


def cpu_hits(passages: Vectors, queries: Vectors, sizes: Sizes) -> tuple[np.ndarray, np.ndarray]:
    """Ids and scores of the first queries, by the CPU."""
    rows = queries.rows(0, sizes.checked)
    hits = ExactSearcher(passages, device="cpu", precision="float32").search(rows, sizes.hits)
    return hits.ids_QK, hits.scores_QK


def small_checks(device: str, way: str) -> str:
    """Whether small searches of all kinds give the bits of the CPU; a CPU has no kernels."""
    differ, num = [], 0
    rng = np.random.default_rng(0)
    for similarity in ("cosine", "dot", "euclidean"):
        for count, dim, hits in ((20_011, 60, 3), (150_001, 64, 20), (700, 33, 50), (40, 16, 60)):
            rows = rng.standard_normal((count, dim)).astype(np.float32)
            rows[5:40] = rows[4]
            rows[::97] = 0
            passages = Vectors((rows,), similarity)
            queries = passages.similarity.prepare(
                rng.standard_normal((301, dim)).astype(np.float32)
            )
            queries[7] = 0
            expected = ExactSearcher(passages, device="cpu").search(queries, hits)
            hits_found = searcher_of(passages, device, way).search(queries, hits)
            num += 1
            if not same(hits_found.ids_QK, hits_found.scores_QK, expected):
                differ.append(f"{similarity} {count} x {dim}, {hits} hits")
    return f"{num} of {num}" if not differ else f"differ: {'; '.join(differ)}"


def same(ids: np.ndarray, scores: np.ndarray, expected: Any) -> bool:
    """Whether ids and bits of scores are equal."""
    other_ids, other = (
        expected if isinstance(expected, tuple) else (expected.ids_QK, expected.scores_QK)
    )
    return bool(
        np.array_equal(ids, other_ids)
        and np.array_equal(scores.view(np.int32), np.ascontiguousarray(other).view(np.int32))
    )


def one_search(
    device: str,
    way: str,
    passages: Vectors,
    queries: Vectors,
    sizes: Sizes,
    peak: float,
    expected: tuple[np.ndarray, np.ndarray],
) -> dict[str, Any]:
    """Seconds, share of the peak, and times by phase of one way."""
    # Compilers, allocators and the clock of the device warm up.
    first = queries.rows(0, sizes.block)
    searcher_of(passages, device, way, stop=len(passages)).search(first, sizes.hits)
    searcher = searcher_of(passages, device, way)
    load_s = synchronised_seconds(lambda: searcher._slices, device)
    part = searcher._slices[0]
    search_s = []
    for _ in range(sizes.repeats):
        started = time.perf_counter()
        redone = scored = 0
        for number, hits in enumerate(searcher.search_all(queries, sizes.hits, sizes.block)):
            redone, scored = redone + hits.num_redone, scored + hits.num_scored
            if not number:
                ids, scores = hits.ids_QK[: sizes.checked], hits.scores_QK[: sizes.checked]
        search_s.append(time.perf_counter() - started)
    operations = 2 * len(queries) * len(passages) * passages.dim / 1e12
    return {
        "load_s": load_s,
        "search_s": search_s,
        "tflops": operations / min(search_s),
        "share": operations / min(search_s) / peak,
        "share_with_corpus": operations / (min(search_s) + load_s) / peak,
        "num_redone": redone,
        "scored_per_query": scored / len(queries),
        "same_as_cpu": same(ids, scores, expected),
        "phases_ms": phases(device, part, searcher, queries, sizes),
    }


def phases(
    device: str, part: Any, searcher: ExactSearcher, queries: Vectors, sizes: Sizes
) -> dict[str, float]:
    """Milliseconds of each step for one block, each waited for; what they overlap is not seen."""
    corpus, way, times = part.resident, part.way, {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        times[name] = 1e3 * seconds_of(work, device, 2)
        return work()

    count = min(sizes.block, len(queries))
    rows = timed("host: read queries", lambda: queries.rows(0, count))
    exact = timed("copy queries", lambda: torch.from_numpy(rows).to(device))
    rounded = timed("round", lambda: Rounded.measured(exact, part.corpus.precision))
    left = corpus.widened(rounded.vectors)
    num = min(NUM_PROPOSALS, corpus.num_passages)
    size = group_size(num, len(corpus.rounded_RW), way.group)
    most = most_proposals(num)
    with honest_products():
        maxima = timed("product: maxima of groups", lambda: way.maxima(left, corpus, size))
        best = timed("scan: top groups", lambda: maxima.topk(num, dim=1, sorted=False))
        floors = best.values.amin(1).float()
        rows_QM, counts = timed(
            "members",
            lambda: way.members(left, corpus, size, best.indices, floors, most),
        )
    counts = counts.clamp(max=most)
    numbers = corpus.numbers_R[rows_QM]
    sums = timed(
        "scores", lambda: way.sums(exact, corpus.exact_PD, numbers, counts, corpus.by_distance)
    )
    scores = distance_scores(sums) if corpus.by_distance else sums
    top = timed("order", lambda: best_scored(numbers, scores, counts, sizes.hits))
    timed("copy hits", lambda: [one.cpu() for one in top])
    timed("one search in all", lambda: searcher.search(rows, sizes.hits))
    times["group size"], times["queries"] = size, count
    return times


def shapes(device: str, passages: Vectors, queries: Vectors, sizes: Sizes) -> dict[str, Any]:
    """TFLOP/s of the first product by shape of its tiles."""
    part = searcher_of(passages, device, "torch")._slices[0]
    rounded = Rounded.of(queries.rows(0, sizes.block), device, part.corpus.precision)
    left = part.resident.widened(rounded.vectors)
    operations = 2 * len(left) * len(passages) * passages.dim / 1e12
    found: dict[str, Any] = {}

    def timed(name: str, work: Callable[[], Any]) -> None:
        found[name] = attempt(lambda: operations / seconds_of(work, device, 2))

    for rows in (2_048, 4_096, 8_192):
        for entries in (2**23, 2**24, 2**25, 2**27):
            timed(
                f"torch {rows} x {entries // rows}",
                lambda r=rows, e=entries: group_maxima(left, part.resident, 256, r, e),
            )
    if device != "cpu" and find_spec("triton") is not None:
        from stx_mine.search import kernels

        shape = kernels.TileShape
        tried = (
            shape(streams=True),
            shape(streams=True, stages=4),
            shape(streams=True, band=8),
            shape(streams=True, band=32),
            shape(streams=True, step=128, stages=2),
            shape(streams=True, group=128, stages=6),
            shape(streams=True, group=128, rows=256),
            shape(streams=True, group=128, warps=4, programs=2),
            shape(),
            shape(group=128, warps=4),
        )
        for one in tried:
            timed(str(one), lambda s=one: kernels.tile_maxima(left, part.resident, s.group, s))
        speeds = {one: found[str(one)] for one in tried if isinstance(found[str(one)], float)}
        if speeds:
            found["fastest"] = max(speeds, key=lambda one: speeds[one])
    return found


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny sizes; on a CPU where no GPU is")
    parser.add_argument("--kernels", choices=("torch", "triton"), help="one way (default: both)")
    parser.add_argument("--sweep", action="store_true", help="time shapes of tiles too")
    arguments = parser.parse_args()
    ways = (arguments.kernels,) if arguments.kernels else ("triton", "torch")
    if not torch.cuda.is_available() and not arguments.kernels:
        ways = ("torch",)
    print(json.dumps({"gpu": measure(QUICK if arguments.quick else None, ways, arguments.sweep)}))


if __name__ == "__main__":
    main()

"""How much of a GPU's half-precision matrix product the exact search makes use of.

The peak is measured on the same device: a square product of 8,192 in bfloat16. The search finds
the best 100 of a million passages; its work is counted as one product of queries and passages,
2 x queries x passages x dimensions operations. Far fewer queries than a million are searched, in
the blocks that `mine` uses; every block meets the whole corpus, so their number does not matter.
Vectors are normal around 4,096 centres, of unit length. `python -m benchmarks.gpu_search` needs
nothing but what the search imports.
"""

import json
import time
from collections.abc import Callable

import numpy as np
import torch

from stx_mine.core.similarity import Similarity
from stx_mine.search.exact import ExactSearcher
from stx_mine.stages.mine.config import MineConfig
from stx_mine.store.vectors import Vectors

NUM_PASSAGES, NUM_QUERIES = 1_000_000, 65_536
DIMENSIONS = (384, 768)
NUM_HITS = 100
NUM_CENTRES = 4_096
PEAK_SIZE = 8_192
PEAK_PRODUCTS = 20
REPEATS = 3


def measure() -> dict[str, object] | None:
    """Peak and share of it by dimensions; None where there is no GPU."""
    if not torch.cuda.is_available():
        return None
    peak = peak_tflops("cuda", PEAK_SIZE)
    found: dict[str, object] = {"device": torch.cuda.get_device_name(), "peak_tflops": peak}
    for dim in DIMENSIONS:
        tflops = search_tflops("cuda", NUM_PASSAGES, NUM_QUERIES, dim)
        found[f"search_tflops_{dim}"] = tflops
        found[f"share_{dim}"] = tflops / peak
    return found


def peak_tflops(device: str, size: int) -> float:
    """10^12 operations a second of a square product in bfloat16."""
    left, right = torch.randn(2, size, size, device=device, dtype=torch.bfloat16)

    def multiply() -> None:
        for _ in range(PEAK_PRODUCTS):
            torch.matmul(left, right)

    return 2 * size**3 * PEAK_PRODUCTS / best_seconds(multiply, device) / 1e12


def search_tflops(device: str, num_passages: int, num_queries: int, dim: int) -> float:
    """10^12 operations a second of the exact search, everything it does counted in the time."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((NUM_CENTRES, dim), dtype=np.float32)
    passages, queries = (
        Vectors((clustered(centres, num, rng),), "cosine") for num in (num_passages, num_queries)
    )

    def search() -> None:
        searcher = ExactSearcher(passages, device=device)
        for _, block in queries.blocks(MineConfig().query_block):
            searcher.search(block, NUM_HITS)

    return 2 * num_queries * num_passages * dim / best_seconds(search, device) / 1e12


def clustered(centres: np.ndarray, num: int, rng: np.random.Generator) -> np.ndarray:
    """Vectors around randomly chosen centres, float32, of unit length."""
    vectors = rng.standard_normal((num, centres.shape[1]), dtype=np.float32)
    vectors += centres[rng.integers(0, len(centres), num)]
    return Similarity("cosine").prepare(vectors)


def best_seconds(work: Callable[[], None], device: str) -> float:
    """The shortest of `REPEATS` runs after one that is not counted."""
    seconds = []
    for _ in range(REPEATS + 1):
        started = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])


if __name__ == "__main__":
    print(json.dumps({"gpu": measure()}))

"""What scoring proposals costs a CPU: reading their vectors, and the scores in fixed order.

    python -m benchmarks.scores [--quick]

A block of queries with random proposals out of stored passages, 768 dimensions, float32: no two
queries agree, so that nearly every proposal is another passage. Vectors lie in the page cache.
Prints one JSON object as its last line.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.machine import describe
from stx_mine.search.score import score_hits
from stx_mine.store.files import StoredArray, write_array
from stx_mine.store.vectors import Vectors

DIM, PROPOSALS, SHARD = 768, 142, 65_536


def measure(num_passages: int, num_queries: int) -> dict[str, object]:
    """Seconds of reading and of scoring, and nanoseconds a pair of both."""
    rng = np.random.default_rng(42)
    with tempfile.TemporaryDirectory() as name:
        shards = []
        for number in range(-(-num_passages // SHARD)):
            path = Path(name) / f"{number}.npy"
            write_array(path, rng.standard_normal((SHARD, DIM), np.float32))
            shards.append(StoredArray.open(path))
        passages = Vectors(tuple(shards), "cosine")
        queries_QD = rng.standard_normal((num_queries, DIM), np.float32)
        ids_QK = rng.integers(0, len(passages), (num_queries, PROPOSALS))
        # Compiles, and reads the files once.
        score_hits(
            queries_QD[:2], passages.take(np.arange(8)), np.arange(8).reshape(2, 4), "cosine"
        )
        passages.take(np.arange(0, len(passages), 7))
        started = time.perf_counter()
        distinct, rows = np.unique(ids_QK, return_inverse=True)
        vectors = passages.take(distinct)
        read = time.perf_counter()
        score_hits(queries_QD, vectors, rows.reshape(ids_QK.shape), "cosine")
        ended = time.perf_counter()
    return {
        "pairs": ids_QK.size,
        "distinct_passages": len(distinct),
        "read_s": round(read - started, 3),
        "score_s": round(ended - read, 3),
        "ns_a_pair": round((ended - started) / ids_QK.size * 1e9, 1),
        "threads": torch.get_num_threads(),
        "machine": describe(),
    }


def main() -> None:
    """Measure, print, and end with one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer passages and queries")
    sizes = (1 << 17, 512) if parser.parse_args().quick else (1 << 20, 4_096)
    print(json.dumps(measure(*sizes)))


if __name__ == "__main__":
    main()

"""What scoring proposals costs a CPU, and what the vector instructions of the search gain.

    python -m benchmarks.scores [--quick]

A block of queries with random proposals out of stored passages, 768 dimensions, float32: no two
queries agree, so that nearly every proposal is another passage. Vectors lie in the page cache.
The search runs as it is, in float32, and with a plain loop in place of the mask of values above the
cut (`above_mask` and `lowest_bit` in `search/lanes.py`), in turn. Prints one JSON object as its
last line.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from benchmarks.machine import describe
from stx_mine.core.similarity import unit_rows
from stx_mine.search import running_top, stream
from stx_mine.search.exact import ExactSearcher
from stx_mine.search.score import score_hits
from stx_mine.store.files import StoredArray, write_array
from stx_mine.store.vectors import Vectors

DIM, PROPOSALS, SHARD = 768, 142, 65_536
SEARCH_DIM, REPEATS = 256, 7
PLAIN_LOOP = """\
        stop = min(start + MASK_LANES, len(row_P))
        above = False
        for column in range(start, stop):
            above |= row_P[column] > cut
        if above:
            for column in range(start, stop):
                if row_P[column] > cut:
                    values_S[used] = row_P[column]
                    ids_S[used] = first_id + first_column + column
                    used += 1
"""


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


def plain_scan() -> ModuleType:
    """`search/running_top.py` with a plain loop that looks for values above the cut."""
    source = Path(running_top.__file__).read_text("utf-8")
    first = source.index("        mask = np.uint32(0)\n")
    last = source.index("        if used > full:\n")
    source = source[:first] + PLAIN_LOOP + source[last:]
    module = ModuleType("plain_scan")
    # Not cached: another module would find what was compiled here.
    exec(source.replace("cache=True, ", ""), vars(module))
    return module


def measure_search(num_passages: int, num_queries: int) -> dict[str, object]:
    """Processor seconds of an exact search with each scan, medians, and what the mask gains."""
    rng = np.random.default_rng(42)
    centres = rng.standard_normal((1_024, SEARCH_DIM), np.float32)

    def vectors(num: int) -> np.ndarray:
        near = centres[rng.integers(0, len(centres), num)]
        return unit_rows(near + rng.standard_normal((num, SEARCH_DIM), np.float32))

    passages = Vectors((vectors(num_passages),), "cosine")
    searcher = ExactSearcher(passages, device="cpu", precision="float32")
    queries_QD = vectors(num_queries)
    scans = {"mask": running_top.RunningTop, "plain_loop": plain_scan().RunningTop}
    seconds: dict[str, list[float]] = {name: [] for name in scans}
    for repeat in range(REPEATS + 1):
        for name, scan in scans.items():
            stream.RunningTop = scan
            started = time.process_time()
            searcher.search(queries_QD, 100)
            if repeat:
                seconds[name].append(time.process_time() - started)
    stream.RunningTop = running_top.RunningTop
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    return {**medians, "gain": 1 - medians["mask"] / medians["plain_loop"]}


def main() -> None:
    """Measure, print, and end with one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer passages and queries")
    quick = parser.parse_args().quick
    found = measure(*((1 << 17, 512) if quick else (1 << 20, 4_096)))
    found["search_s"] = measure_search(*((1 << 14, 512) if quick else (60_000, 2_048)))
    print(json.dumps(found))


if __name__ == "__main__":
    main()

"""`verify` on packed batches of every shape that could make it slow: seconds and peak memory.

The batches are made by the functions that `pack` uses (`benchmarks.packed_shapes`), are right, and
are read whole; a fresh process checks each of them. Wall time, time of the processor (over all
threads) and peak memory are medians of 3 processes. `ids` counts the numbers and texts that are
stored: time is to be linear in it, whatever the shape.

    python -m benchmarks.verify [--quick] [--rows 1000000] [--output benchmarks/results/verify.json]
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from benchmarks import machine
from benchmarks.fresh import PeakMemory, run_fresh
from benchmarks.packed_shapes import (
    giant_groups,
    giant_passage,
    giant_query,
    one_negative,
    typical,
    write_labels_shape,
    write_shape,
)
from stx_mine.cli import quiet
from stx_mine.stages.verify.config import VerifyConfig
from stx_mine.stages.verify.stage import run_verify
from stx_mine.store.batches import list_packings

REPEATS, THREADS, LIMIT_S, LIMIT_MB = 3, 2, 60, 2_000


@dataclass(frozen=True)
class VerifyCase:
    """One shape; seconds and memory are medians."""

    name: str
    rows: int
    batch: int
    ids: int
    wall_s: float
    cpu_s: float
    rss_mb: float


def shapes(scale: float, num_rows: int) -> dict[str, Callable[[Path], Path]]:
    """Name -> writes the batches into a folder; sizes are multiplied by `scale`."""

    def size(rows: int) -> int:
        return max(64, int(rows * scale))

    labels = np.array([size(1_000_000)] + [4] * size(100_000))
    return {
        "batches of 16": lambda folder: write_shape(folder, typical(size(200_000), 16)),
        "one batch of 100,000": lambda folder: write_shape(
            folder, typical(size(100_000), size(100_000))
        ),
        "a query with 20,000 positives": lambda folder: write_shape(
            folder, giant_query(size(20_000), size(4_096))
        ),
        "a positive of 100,000 queries": lambda folder: write_shape(
            folder, giant_passage(size(100_000), size(4_096))
        ),
        "one text as every negative": lambda folder: write_shape(
            folder, one_negative(size(200_000), size(4_096))
        ),
        "groups of 50,000 passages": lambda folder: write_shape(
            folder, giant_groups(size(100_000), size(50_000), size(1_024))
        ),
        "a label of 1,000,000 texts": lambda folder: write_labels_shape(folder, labels, 64, 4),
        "typical": lambda folder: write_shape(folder, typical(num_rows, 2_048)),
    }


def measure(folder: str) -> dict[str, float]:
    """Verify a folder once (in a process of its own)."""
    wall, processor = time.perf_counter(), time.process_time()
    with PeakMemory() as memory:
        run_verify(VerifyConfig(directory=folder))
    return {
        "wall_s": time.perf_counter() - wall,
        "cpu_s": time.process_time() - processor,
        "rss_mb": memory.rss_mb,
    }


def stored(folder: Path) -> int:
    """Numbers and texts in all shards."""
    found = 0
    for shard in list_packings(folder)[0]:
        metadata = pq.ParquetFile(shard.path).metadata
        for group in map(metadata.row_group, range(metadata.num_row_groups)):
            found += sum(group.column(number).num_values for number in range(group.num_columns))
    return found


def case_of(name: str, write: Callable[[Path], Path], repeats: int) -> VerifyCase:
    """Write a shape and verify it some times."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = write(Path(temporary, "batches"))
        [shards] = list_packings(folder)
        rows = shards[0].batch_size * sum(shard.num_batches for shard in shards)
        command = ["--measure", str(folder)]
        found = [run_fresh("benchmarks.verify", command, THREADS) for _ in range(repeats)]
        medians = {key: statistics.median(one[key] for one in found) for key in found[0]}
        case = VerifyCase(name, rows, shards[0].batch_size, stored(folder), **medians)
    print(f"  {json.dumps(asdict(case))}", flush=True)
    return case


def headline_of(cases: list[VerifyCase]) -> dict[str, object]:
    """The last line: the last shape, which is the typical one, and the most memory of all."""
    last = cases[-1]
    return {
        "name": last.name,
        "rows": last.rows,
        "wall_s": round(last.wall_s, 1),
        "cpu_s": round(last.cpu_s, 1),
        "rss_mb": round(last.rss_mb),
        "within_limits": last.wall_s <= LIMIT_S and last.rss_mb <= LIMIT_MB,
        "us_per_id": {one.name: round(one.cpu_s / one.ids * 1e6, 2) for one in cases},
        "max_rss_mb": round(max(one.rss_mb for one in cases)),
    }


def main() -> None:
    """Measure all shapes; the last line is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a reduced run of under a minute")
    parser.add_argument("--rows", type=int, help="rows of the typical shape (default: 1M)")
    parser.add_argument("--shape", action="append", help="only these (default: all)")
    parser.add_argument("--output", type=Path, help="where to write the full results")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    quiet()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure)))
        return
    quick = arguments.quick
    num_rows = arguments.rows or (20_000 if quick else 1_000_000)
    writers = shapes(0.05 if quick else 1.0, num_rows)
    with tempfile.TemporaryDirectory() as warm_up:  # machine code
        measure(str(write_shape(Path(warm_up, "batches"), typical(256, 64))))
    cases = []
    for name, write in writers.items():
        if arguments.shape and name not in arguments.shape:
            continue
        cases.append(case_of(name, write, 1 if quick else REPEATS))
        headline = headline_of(cases)
        if arguments.output:
            # After each shape, as a full run takes long.
            content = {
                "machine": machine.describe(),
                "quick": quick,
                **headline,
                "details": [asdict(one) for one in cases],
            }
            arguments.output.parent.mkdir(parents=True, exist_ok=True)
            arguments.output.write_text(json.dumps(content, indent=2) + "\n")
    print(json.dumps(headline))


if __name__ == "__main__":
    main()

"""Every command on 5 million pairs over 2 million passages, under a limit of its address space.

    python -m benchmarks.scale [--quick] [--limit-gb 6] [--output benchmarks/results/scale.json]

The texts are made up, 6 to 10 words long; the vectors are those of `package:wordllama`, cut to 64
dimensions. Every command is a process of its own that the system refuses more than so much address
space (RLIMIT_AS), which counts code, mapped files and what is reserved and never touched: resident
memory is below it. Also measured: wall time, peak resident memory, peak address space. Training is
ended after ten minutes by a signal, which its exit code says.
"""

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import machine
from benchmarks.fresh import status_mb

SEED = 42
_ROWS = 500_000
_TRAINING_SECONDS = 600
# Passages of a group, of which each is in a pair.
_GROUP = 20
_SAMPLE_SECONDS = 0.1
_INTERRUPTED = 128 + signal.SIGTERM


@dataclass(frozen=True)
class Scale:
    """How much of everything."""

    pairs: int
    queries: int
    passages: int
    cells: int
    batch: int


FULL = Scale(pairs=5_000_000, queries=3_000_000, passages=2_000_000, cells=4_096, batch=4_096)
QUICK = Scale(pairs=50_000, queries=30_000, passages=20_000, cells=64, batch=512)


@dataclass(frozen=True)
class Command:
    """One command as it ended."""

    command: str
    code: int
    wall_s: float
    resident_gb: float
    address_gb: float
    error: str


def write_pairs(scale: Scale, path: Path) -> None:
    """Write pairs of made-up texts: groups of queries share a group of passages."""
    rng = np.random.default_rng(SEED)
    words = np.array([f"{word:04x}" for word in range(30_000)])
    groups = scale.passages // _GROUP
    pairs, queries = scale.pairs // groups, scale.queries // groups

    def texts(kind: str, numbers: list[int]) -> list[str]:
        chosen = words[(np.array(numbers)[:, None] * 7_919 + np.arange(6) ** 5) % len(words)]
        return [f"{kind} {n} {' '.join(row)}" for n, row in zip(numbers, chosen, strict=True)]

    schema = pa.schema({"query": pa.string(), "passage": pa.string()})
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, scale.pairs, _ROWS):
            rows = np.arange(start, min(start + _ROWS, scale.pairs))
            group, turn = np.divmod(rows, pairs)
            other = np.where(turn < _GROUP, turn, rng.integers(0, _GROUP, len(rows)))
            columns = [
                texts("query", (group * queries + turn % queries).tolist()),
                texts("passage", (group * _GROUP + other).tolist()),
            ]
            writer.write_table(pa.table(columns, schema=schema))


def commands(scale: Scale) -> list[list[str]]:
    """What is run, in order."""
    embed = "embed --model package:wordllama --truncate-dim 64 --device cpu --dtype float16"
    lines = [
        "ingest pairs.parquet",
        "split pairs.parquet --test 0.01 --dev 0.01 --run-dir split",
        embed,
        f"index --factory IVF{scale.cells},Flat --nprobe 8 --min-recall 0.1",
        "mine --search faiss --device cpu --k 4",
        f"pack --batch-size {scale.batch}",
        "verify",
        "export --to triplet",
        "train --device cpu --epochs 1",
        "publish published",
        "verify published",
    ]
    return [line.split() for line in lines]


def run_limited(command: list[str], folder: Path, limit_gb: float) -> Command:
    """Run one command in a folder under a limit of its address space."""
    limit = int(limit_gb * 1e9)
    peaks = {"VmHWM": 0.0, "VmPeak": 0.0}
    with tempfile.TemporaryFile("w+") as errors:
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "stx_mine", *command],
            cwd=folder,
            env=dict(os.environ, PYTHONPATH=str(Path(__file__).parents[1]), HF_HUB_OFFLINE="1"),
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
        resource.prlimit(process.pid, resource.RLIMIT_AS, (limit, limit))
        while process.poll() is None:
            with suppress(OSError):
                # The system keeps both peaks; at its end a process has none.
                peaks = {name: status_mb(name, process.pid) for name in peaks}
            if command[0] == "train" and time.perf_counter() - started > _TRAINING_SECONDS:
                process.send_signal(signal.SIGTERM)
                process.wait()
            time.sleep(_SAMPLE_SECONDS)
        seconds = time.perf_counter() - started
        errors.seek(0)
        said = errors.read()[-500:]
    return Command(
        " ".join(command),
        process.returncode,
        round(seconds, 1),
        round(peaks["VmHWM"] / 1_000, 2),
        round(peaks["VmPeak"] / 1_000, 2),
        said if process.returncode else "",
    )


def main() -> None:
    """Run all commands; the last line is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="50,000 pairs over 20,000 passages")
    parser.add_argument("--limit-gb", type=float, default=6.0, help="address space, 10^9 bytes")
    parser.add_argument("--output", type=Path, help="where to write the full results")
    arguments = parser.parse_args()
    scale = QUICK if arguments.quick else FULL
    found = []
    with tempfile.TemporaryDirectory() as folder:
        write_pairs(scale, Path(folder, "pairs.parquet"))
        for command in commands(scale):
            found.append(run_limited(command, Path(folder), arguments.limit_gb))
            print(found[-1], flush=True)
    headline = {
        **asdict(scale),
        "limit_gb": arguments.limit_gb,
        "failed": [one.command for one in found if one.code not in (0, _INTERRUPTED)],
        "most_resident_gb": max(one.resident_gb for one in found),
        "most_address_gb": max(one.address_gb for one in found),
    }
    if arguments.output:
        details = [asdict(one) for one in found]
        content = {"machine": machine.describe(), **headline, "commands": details}
        arguments.output.write_text(json.dumps(content, indent=2) + "\n")
    print(json.dumps(headline))


if __name__ == "__main__":
    main()

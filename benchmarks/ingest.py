"""Reading pairs: processor seconds and memory by format, beside `datasets` and pandas.

    python -m benchmarks.ingest [--quick] [--output benchmarks/results/ingest.json]

The same synthetic pairs as in `benchmarks.split` as Parquet, CSV, TSV and JSON lines. Ours finds
out the form, checks, numbers and de-duplicates all texts and writes `texts/`; `datasets` converts
the file to its cache and lists the distinct texts of both columns; pandas reads and drops
duplicates. Each measurement is a fresh process of one thread, in turns, several times; medians.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from datasets import load_dataset

from benchmarks import machine
from benchmarks.fresh import PeakMemory, run_fresh
from benchmarks.split import synthetic_pairs
from stx_mine.cli import quiet
from stx_mine.stages.ingest.config import IngestConfig
from stx_mine.stages.ingest.stage import run_ingest

SUFFIXES = (".parquet", ".csv", ".tsv", ".jsonl")
READERS = {".parquet": "parquet", ".csv": "csv", ".tsv": "csv", ".jsonl": "json"}


def write_formats(num_rows: int, folder: Path) -> None:
    """Write the pairs in each format."""
    synthetic_pairs(num_rows, folder / "pairs.parquet")
    table = pq.read_table(folder / "pairs.parquet")
    for suffix, separator in ((".csv", ","), (".tsv", "\t")):
        options = pa.csv.WriteOptions(delimiter=separator)
        pa.csv.write_csv(table, folder / f"pairs{suffix}", options)
    table.to_pandas().to_json(folder / "pairs.jsonl", orient="records", lines=True)


def read_by_ours(path: Path, work: str) -> int:
    """Ingest; the number of distinct texts of both roles."""
    run_ingest(IngestConfig(pairs=str(path), run_dir=work))
    counts = json.loads(Path(work, "texts/manifest.json").read_text())["counts"]
    return int(counts["queries"]) + int(counts["passages"])


def read_by_datasets(path: Path, work: str) -> int:
    """Convert to Arrow, list distinct texts."""
    options = {"sep": "\t"} if path.suffix == ".tsv" else {}
    data = load_dataset(
        READERS[path.suffix], data_files=str(path), cache_dir=work, split="train", **options
    )
    return sum(len(data.unique(name)) for name in ("query", "passage"))


def read_by_pandas(path: Path, work: str) -> int:
    """Read into memory, drop duplicates."""
    if path.suffix == ".parquet":
        frame = pd.read_parquet(path)
    elif path.suffix == ".jsonl":
        frame = pd.read_json(path, lines=True)
    else:
        frame = pd.read_csv(path, sep="\t" if path.suffix == ".tsv" else ",")
    return sum(len(frame[name].drop_duplicates()) for name in ("query", "passage"))


ARMS: dict[str, Callable[[Path, str], int]] = {
    "stx_mine": read_by_ours,
    "datasets": read_by_datasets,
    "pandas": read_by_pandas,
}


def measure(arm: str, path: Path) -> dict[str, float]:
    """Read one file in this process."""
    quiet()
    with tempfile.TemporaryDirectory(dir=path.parent) as work, PeakMemory() as memory:
        started = time.process_time()
        texts = ARMS[arm](path, work)
        seconds = time.process_time() - started
    return {"s": round(seconds, 2), "rss_mb": round(memory.rss_mb), "texts": texts}


def main() -> None:
    """Measure all formats and arms; the last line is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="20,000 pairs, once")
    parser.add_argument("--output", type=Path, help="where to write the full results")
    parser.add_argument("--arm", nargs=2, metavar=("ARM", "FILE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.arm:
        print(json.dumps(measure(arguments.arm[0], Path(arguments.arm[1]))))
        return
    num_rows, repeats = (20_000, 1) if arguments.quick else (400_000, 3)
    found: dict[str, dict[str, list[dict[str, float]]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        write_formats(num_rows, Path(folder))
        for _ in range(repeats):
            for suffix in SUFFIXES:
                for arm in ARMS:
                    path = f"{folder}/pairs{suffix}"
                    one = run_fresh("benchmarks.ingest", ["--arm", arm, path], 1)
                    found.setdefault(suffix[1:], {}).setdefault(arm, []).append(one)
                    print(suffix, arm, one, flush=True)
    medians = {
        form: {
            arm: {name: statistics.median(one[name] for one in runs) for name in ("s", "rss_mb")}
            for arm, runs in arms.items()
        }
        for form, arms in found.items()
    }
    headline = {"pairs": num_rows, "repeats": repeats, "medians": medians}
    if arguments.output:
        content = {"machine": machine.describe(), **headline, "runs": found}
        arguments.output.write_text(json.dumps(content, indent=2) + "\n")
    print(json.dumps(headline))


if __name__ == "__main__":
    main()

"""What commands take before their own work: imports, and what Numba compiles at first use.

    python -m benchmarks.start [--quick] [--output benchmarks/results/start.json]

The chain of commands runs on a file of 400 pairs, so that next to nothing is left but the start:
with an empty cache of compiled functions, then with a filled one. Each command is a fresh process;
processor seconds of it, the median of some warm calls.
"""

import argparse
import json
import os
import random
import resource
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.fresh import output_of
from benchmarks.machine import describe
from stx_mine.store.files import write_json

ROWS, WORDS = 400, 500
MODEL = "package:wordllama"
COMMANDS: dict[str, list[str]] = {
    "ingest": [],
    "dedup": [],
    "embed": ["--model", MODEL],
    "mine": ["--k", "4", "--relative-margin", "none"],
    "pack": ["--batch-size", "64"],
    "verify": [],
    "train": ["--epochs", "1"],
    "show": [],
}


def write_rows(path: Path) -> None:
    """Pairs of random words."""
    draw = random.Random(0)
    words = [f"word{number}" for number in range(WORDS)]
    lines = (
        f"{' '.join(draw.choices(words, k=5))},{' '.join(draw.choices(words, k=20))}"
        for _ in range(ROWS)
    )
    path.write_text("query,passage\n" + "\n".join(lines) + "\n", encoding="utf-8")


def seconds_of(command: list[str], cache: Path) -> float:
    """Processor seconds of one command of stx-mine.

    Raises:
        RuntimeError: It failed.
    """
    environment = dict(os.environ, NUMBA_CACHE_DIR=str(cache), OMP_NUM_THREADS="1")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    output_of([sys.executable, "-m", "stx_mine", *command], environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def chain(folder: Path, cache: Path, number: int) -> dict[str, float]:
    """Seconds of each command on a run directory of its own."""
    run = str(folder / f"run-{number}")
    found = {}
    for name, options in COMMANDS.items():
        given = [str(folder / "pairs.csv")] if name == "ingest" else []
        found[name] = seconds_of([name, *given, "--run-dir", run, *options], cache)
    return found


def main() -> None:
    """Measure, and end with one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one warm call of each command")
    parser.add_argument("--output", type=Path, help="where to write the results")
    arguments = parser.parse_args()
    repeats = 1 if arguments.quick else 3
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_rows(folder / "pairs.csv")
        help_s = [seconds_of(["--help"], folder / "cache") for _ in range(repeats)]
        first = chain(folder, folder / "cache", 0)
        warm = [chain(folder, folder / "cache", 1 + number) for number in range(repeats)]
    found: dict[str, object] = {
        "help": round(statistics.median(help_s), 2),
        "warm": {name: round(statistics.median(one[name] for one in warm), 2) for name in COMMANDS},
        "first": {name: round(seconds, 2) for name, seconds in first.items()},
    }
    if arguments.output:
        write_json(arguments.output, {**found, "machine": describe()})
    print(json.dumps(found))


if __name__ == "__main__":
    main()

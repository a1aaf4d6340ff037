"""Embedding against `SentenceTransformer.encode`: time, fidelity and memory on a CPU.

Every part runs in a fresh process with two threads, ours and the library one after the other on
the same texts. Ratios are of medians and above 1 in our favour.

    python -m benchmarks.embed [--quick] [--parts transformer static memory cache ray]
                               [--output benchmarks/results/embed.json]

The part `openvino` is measured only where it is named: what it needs goes with other versions.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import machine, ray_overhead
from benchmarks.embed_workers import STATIC
from benchmarks.fresh import run_fresh
from benchmarks.stored_results import read_results

WORKERS = "benchmarks.embed_workers"
NUM_THREADS = 2
PARTS, ASKED_PARTS = ("transformer", "static", "memory", "cache", "ray"), ("openvino",)
# Texts and repeats of each part.
FULL = {
    "transformer": (4_000, 3),
    "openvino": (4_000, 3),
    "static": (120_000, 5),
    "memory": (1_000_000, 1),
    "cache": (4_000, 1),
    "ray": (200_000, 3),
}
QUICK = {
    "transformer": (300, 1),
    "openvino": (300, 1),
    "static": (20_000, 1),
    "memory": (40_000, 1),
    "cache": (300, 1),
    "ray": (20_000, 1),
}


def main() -> None:
    """Run the parts and print them; the last line is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a reduced run of a minute or two")
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS + ASKED_PARTS, default=PARTS, help="which parts"
    )
    parser.add_argument("--output", type=Path, help="where to write or complete the results")
    arguments = parser.parse_args()
    sizes = QUICK if arguments.quick else FULL
    content: dict[str, Any] = read_results(arguments.output).get("parts", {})
    for part in arguments.parts:
        content[part] = {**measure(part, *sizes[part]), "quick": arguments.quick}
        print(f"  {part}: {json.dumps(content[part])}", flush=True)
    headline = headline_of(content)
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        result = {"machine": machine.describe(), **headline, "parts": content}
        arguments.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(headline))


def measure(part: str, num_texts: int, repeats: int) -> dict[str, Any]:
    """One part, in fresh processes."""
    if part == "ray":
        return ray_overhead.measure(num_texts, repeats)
    if part in ("transformer", "static"):
        return run_fresh(WORKERS, [part, str(num_texts), str(repeats)], NUM_THREADS)
    if part == "openvino":
        return run_fresh(WORKERS, ["transformer", str(num_texts), str(repeats), part], NUM_THREADS)
    with tempfile.TemporaryDirectory() as folder:
        if part == "cache":
            return run_fresh(WORKERS, [part, folder, str(num_texts)], NUM_THREADS)
        prepared = run_fresh(WORKERS, ["prepare", folder, str(num_texts)], NUM_THREADS)
        return {**prepared, **run_fresh(WORKERS, ["memory", folder, STATIC], NUM_THREADS)}


def headline_of(content: dict[str, Any]) -> dict[str, float | None]:
    """The figures that have goals; None for what was not measured."""

    def figure(part: str, name: str) -> float | None:
        return round(content[part][name], 3) if part in content else None

    rss = figure("memory", "rss_mb")
    return {
        "minilm_speedup": figure("transformer", "speedup"),
        "minilm_speedup_best": figure("transformer", "speedup_best"),
        "minilm_speedup_best_bf16": figure("transformer", "speedup_best_bf16"),
        "overlap100": figure("transformer", "overlap100"),
        "matmul_share": figure("transformer", "share_of_matmul"),
        "minilm_speedup_openvino": figure("openvino", "speedup"),
        "minilm_speedup_best_openvino": figure("openvino", "speedup_best"),
        "static_speedup": figure("static", "speedup"),
        "static_speedup_best": figure("static", "speedup_best"),
        "static_tokenizer_share": figure("static", "share_of_tokenizer"),
        "rss_gb": None if rss is None else round(rss / 1e3, 3),
        "one_percent_more": figure("cache", "share"),
        "ray_overhead": figure("ray", "ray_overhead"),
    }


if __name__ == "__main__":
    main()

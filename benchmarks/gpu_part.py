"""A part of `benchmarks.gpu`: named measurements within a time, each written down as it ends."""

import argparse
import gc
import json
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

Measurement = Callable[[], dict[str, Any]]


class Part:
    """Runs measurements one after the other; one that fails does not stop those after it.

    Attributes:
        device: cuda or cpu.
        quick: Whether everything is tiny.
        until: When to begin nothing more, in seconds as `time.time` counts them.
        path: The JSON file of the results.
        mpnet: A folder with the weights of mpnet; None where there is none.
        results: Measurement -> what it gave, or `skipped` or `error` with the reason.
    """

    def __init__(
        self, device: str, quick: bool, until: float, path: Path, mpnet: str | None = None
    ) -> None:
        self.device, self.quick, self.until, self.path = device, quick, until, path
        self.mpnet = mpnet
        self.results: dict[str, Any] = {}

    @classmethod
    def of_command_line(cls) -> "Part":
        """As `benchmarks.gpu` starts it."""
        parser = argparse.ArgumentParser()
        parser.add_argument("--device", default="cuda")
        parser.add_argument("--quick", action="store_true")
        parser.add_argument("--until", type=float, default=float("inf"))
        parser.add_argument("--mpnet")
        parser.add_argument("--output", type=Path, required=True)
        found = parser.parse_args()
        return cls(found.device, found.quick, found.until, found.output, found.mpnet)

    def measure(self, name: str, work: Measurement, least: float = 0.0) -> None:
        """Run one measurement and write all results so far.

        Args:
            name: What the results call it.
            work: Gives its numbers.
            least: Seconds below which it is not worth to begin.
        """
        left = self.until - time.time()
        if left < (0 if self.quick else least):
            self.keep(name, {"skipped": f"{max(left, 0):.0f} s were left, it takes {least:.0f} s"})
            return
        started = time.perf_counter()
        try:
            found = work()
        except Exception as error:
            where = traceback.format_exc().splitlines()[-12:]
            found = {"error": f"{type(error).__name__}: {error}"[:600], "traceback": where}
        # A model that accelerate has wrapped is part of a cycle.
        gc.collect()
        self.keep(name, {**found, "took_s": round(time.perf_counter() - started, 2)})

    def keep(self, name: str, found: dict[str, Any]) -> None:
        """Write a result down."""
        self.results[name] = found
        write_results(self.path, self.results)
        words = {key: value for key, value in found.items() if key != "traceback"}
        print(f"  {name}: {json.dumps(words)}", flush=True)

    @property
    def failed(self) -> bool:
        """Whether a measurement ended with an error."""
        return any("error" in one for one in self.results.values())


def write_results(path: Path, results: dict[str, Any]) -> None:
    """Write JSON so that a process that is killed leaves the file before it or this one."""
    beside = path.with_name(f"{path.name}.new")
    beside.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    beside.replace(path)


def synchronised_seconds(work: Callable[[], object], device: str) -> float:
    """Seconds that a call takes, until the device has done what it asks for."""
    on_gpu = device.startswith("cuda")
    if on_gpu:
        torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    if on_gpu:
        torch.cuda.synchronize()
    return time.perf_counter() - started


class DeviceMemory:
    """Peak of what a block allocates on a GPU; nothing is known of a CPU.

    Attributes:
        peak_gb: In 10^9 bytes, with what was there before; None on a CPU.
    """

    peak_gb: float | None = None

    def __init__(self, device: str) -> None:
        self._on_gpu = device == "cuda"

    def __enter__(self) -> "DeviceMemory":
        if self._on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        return self

    def __exit__(self, *_: object) -> None:
        if self._on_gpu:
            self.peak_gb = torch.cuda.max_memory_allocated() / 1e9


def product_tflops(device: str, dtype: torch.dtype, size: int) -> float:
    """10^12 operations a second of a square product of random numbers, the best of several."""
    left, right = torch.randn(2, size, size, device=device).to(dtype)
    products = 10 if device.startswith("cuda") else 1

    def multiply() -> None:
        for _ in range(products):
            torch.matmul(left, right)

    multiply()
    best = min(synchronised_seconds(multiply, device) for _ in range(3))
    return 2 * size**3 * products / best / 1e12

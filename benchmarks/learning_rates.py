"""Which learning rate is the best by batch size, and what `auto` loses to it (static, k = 0).

    python -m benchmarks.learning_rates [--quick] [--sets nl2bash google] [--passes 2 10]
    python -m benchmarks.learning_rates --output benchmarks/results/learning_rates.json

Measured on the tune split. A training is stored as it ends: the same command continues.
"""

import argparse
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.arms import Budget, Workbench
from benchmarks.datasets import NAMES, load, part_of
from benchmarks.quality import MODELS, QUICK_QUERIES, QUICK_ROWS
from benchmarks.regimes import FEWEST_STEPS, run_cell
from benchmarks.stored_results import read_results
from stx_mine.cli import quiet
from stx_mine.stages.train.core.learning_rate import default_learning_rate

BATCH_SIZES, RATES = (64, 256, 1_024), (0.025, 0.05, 0.1, 0.2)


def main() -> None:
    """Train and print a table a set; the last line is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a reduced run of about a minute")
    parser.add_argument("--sets", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=list(BATCH_SIZES))
    parser.add_argument("--rates", nargs="+", type=float, default=list(RATES))
    parser.add_argument("--passes", nargs="+", type=int, default=[2])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--output", type=Path, help="where to keep the results")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.sets, arguments.batch_sizes = arguments.sets[:1], [64]
    quiet()
    found = {"sets": {}} | read_results(arguments.output) | {"machine": machine.describe()}
    for name in arguments.sets:
        run_set(name, arguments, found)
        print_table(name, found["sets"][name])
    print(json.dumps({name: lost(one) for name, one in found["sets"].items()}))


def run_set(name: str, arguments: argparse.Namespace, found: dict[str, Any]) -> None:
    """All trainings of one set that are not stored yet."""
    set_ = load(name)
    if arguments.quick:
        set_ = part_of(set_, QUICK_ROWS, QUICK_QUERIES)
    cells = found["sets"].setdefault(name, {})
    with tempfile.TemporaryDirectory() as folder:
        budget = Budget(max(arguments.batch_sizes), 2, len(set_.train))
        bench = Workbench(set_, budget, Path(folder), MODELS["static"].name, None)
        for size in arguments.batch_sizes:
            if len(set_.train) // size < FEWEST_STEPS:
                continue
            for passes, seed in ((p, s) for p in arguments.passes for s in arguments.seeds):
                steps = Budget(size, passes, len(set_.train)).steps
                for rate in [*arguments.rates, default_learning_rate(size, steps, 0, True)[0]]:
                    key = f"B={size} passes={passes} rate={rate:.3g} seed={seed}"
                    if key in cells:
                        continue
                    cell = run_cell(bench, size, 0, passes, seed, rate)
                    kept = ("batch_size", "passes", "steps", "learning_rate", "ndcg@10")
                    cells[key] = {field: cell[field] for field in kept}
                    print(f"  {name} {key}: {cell['ndcg@10']:.4f}", flush=True)
                    if arguments.output:
                        arguments.output.write_text(json.dumps(found, indent=1) + "\n")


@dataclass(frozen=True)
class Curve:
    """What rates reach in trainings that are alike else.

    Attributes:
        batch_size: Rows a step.
        passes: Over the rows.
        steps: Optimizer steps.
        means: Rate -> nDCG@10, the mean over seeds; rates rise.
    """

    batch_size: int
    passes: int
    steps: int
    means: dict[float, float]

    @property
    def auto(self) -> float:
        """The default rate."""
        return default_learning_rate(self.batch_size, self.steps, 0, True)[0]

    @property
    def lost(self) -> float:
        """Points that the default loses to the best, between rates by their logarithms."""
        rates, values = np.log(list(self.means)), list(self.means.values())
        return float(100 * (np.interp(np.log(self.auto), rates, values) - max(values)))


def curves(cells: dict[str, Any]) -> list[Curve]:
    """Of all cells of a set."""
    groups: dict[tuple[int, int, int], dict[float, list[float]]] = {}
    for cell in cells.values():
        key = (cell["batch_size"], cell["passes"], cell["steps"])
        groups.setdefault(key, {}).setdefault(cell["learning_rate"], []).append(cell["ndcg@10"])
    return [
        Curve(*key, {rate: sum(values) / len(values) for rate, values in sorted(group.items())})
        for key, group in sorted(groups.items())
    ]


def lost(cells: dict[str, Any]) -> dict[str, float]:
    """What `auto` loses to the best rate, in points, by batch size and passes."""
    return {f"B={one.batch_size} x{one.passes}": round(one.lost, 2) for one in curves(cells)}


def print_table(name: str, cells: dict[str, Any]) -> None:
    """Print nDCG@10 by rate."""
    print(name)
    for one in curves(cells):
        words = "  ".join(f"{rate:.3g}: {value:.4f}" for rate, value in one.means.items())
        print(
            f"  B {one.batch_size:>5}  {one.passes:>2} passes  {one.steps:>5} steps  {words}  "
            f"auto {one.auto:.3g} ({one.lost:+.1f} points)"
        )


if __name__ == "__main__":
    main()

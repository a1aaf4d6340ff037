"""What one GPU does with ours and with the libraries, within minutes: the prepared script.

    benchmarks/gpu.sh [--minutes 5] [--output FOLDER] [--parts embedding training ...]
    benchmarks/gpu.sh --quick        # tiny, on the CPU

Parts run in order of their value, each in a process of its own that ends when its share of the time
or all of it is over; what it has measured by then is in `FOLDER/gpu_PART.json`. A part that fails
is recorded and the next one begins. `FOLDER/gpu.json` has all of it with versions and machine. The
last line is one JSON object: what became of each part.

    embedding   MiniLM, and a model of mpnet's size, beside `encode`
    training    a step with 8 negatives beside the library's cached loss
    torchrun    `stx-mine train` as the only process of torchrun
    search      `benchmarks.gpu_search`
    mining      the same negatives on GPU and CPU
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from benchmarks import machine
from benchmarks.gpu_part import write_results

# Part -> its module and arguments, and its share of all time at most.
PARTS: dict[str, tuple[tuple[str, ...], float]] = {
    "embedding": (("benchmarks.gpu_embed",), 0.35),
    "training": (("benchmarks.gpu_train",), 0.45),
    "torchrun": (("benchmarks.gpu_runs", "torchrun"), 0.25),
    "search": (("benchmarks.gpu_search",), 0.4),
    "mining": (("benchmarks.gpu_runs", "mining"), 0.3),
}
# A part that began its last measurement in time may end it within so many seconds.
GRACE = 15.0
# With less left no part is begun: a process needs it to import what it needs.
LEAST = 15.0


@dataclass(frozen=True)
class Session:
    """What is asked for.

    Attributes:
        folder: Where results go.
        device: cuda or cpu.
        quick: Whether everything is tiny.
        until: When all ends, in seconds as `time.time` counts them.
        seconds: From begin to end.
        mpnet: A folder with the weights of mpnet; None where there is none.
    """

    folder: Path
    device: str
    quick: bool
    until: float
    seconds: float
    mpnet: str | None

    def run(self, part: str) -> dict[str, Any]:
        """Run a part: its results, and what became of it."""
        words, share = PARTS[part]
        left = self.until - time.time()
        if left < LEAST:
            return {"state": "skipped", "reason": f"{max(left, 0):.0f} s were left"}
        until = min(self.until, time.time() + share * self.seconds)
        path, log = self.folder / f"gpu_{part}.json", self.folder / "gpu.log"
        command = [sys.executable, "-m", *words]
        if part == "search":
            command += ["--quick"] if self.quick else []
        else:
            command += self._options(until, path)
        path.unlink(missing_ok=True)
        began, start = time.time(), log.stat().st_size if log.exists() else 0
        with log.open("a", encoding="utf-8") as lines:
            state = run_for(command, lines, min(until + GRACE, self.until) - time.time())
        if part == "search" and state == "done":
            # What libraries say at their end may come after the object.
            objects = [one for one in said(log, start).splitlines() if one.startswith("{")]
            if objects:
                write_results(path, json.loads(objects[-1]))
            else:
                state = "done; failed: it printed no JSON object"
        results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if state != "done":
            results["last_words"] = said(log, start)[-1_500:].splitlines()
        if failed := [name for name, one in results.items() if is_failed(one)]:
            state = f"{state}; failed: {', '.join(failed)}"
        return {"state": state, "seconds": round(time.time() - began, 1), "results": results}

    def _options(self, until: float, path: Path) -> list[str]:
        found = ["--device", self.device, "--until", str(until), "--output", str(path)]
        found += ["--quick"] if self.quick else []
        return found + (["--mpnet", self.mpnet] if self.mpnet else [])


def run_for(command: list[str], lines: TextIO, seconds: float) -> str:
    """Run a command, and end it with all that it started when its time is over: its state."""
    process = subprocess.Popen(command, stdout=lines, stderr=lines, start_new_session=True)
    try:
        code = process.wait(seconds)
        return "done" if code == 0 else f"exit code {code}"
    except subprocess.TimeoutExpired:
        # torchrun ends its own processes when it is asked to.
        for kind in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(process.pid, kind)
                process.wait(3)
        return "stopped, its time was over"


def said(log: Path, start: int) -> str:
    """What a log holds from a place on."""
    with log.open("rb") as lines:
        lines.seek(start)
        return lines.read().decode("utf-8", "replace")


def is_failed(found: Any) -> bool:
    """Whether a result is an error, or of something that does not hold."""
    return isinstance(found, dict) and ("error" in found or found.get("holds") is False)


def main() -> None:
    """Run the parts while there is time."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny, on the CPU")
    parser.add_argument("--minutes", type=float, default=5.0, help="of all parts together")
    parser.add_argument("--output", type=Path, help="folder of the results (default: $OUT)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--device", help="default: cuda, with --quick cpu")
    parser.add_argument("--mpnet", help="a folder with the weights of an mpnet model")
    arguments = parser.parse_args()
    folder = arguments.output or Path(os.environ.get("OUT", "gpu-results"))
    folder.mkdir(parents=True, exist_ok=True)
    seconds = 60 * arguments.minutes
    device = arguments.device or ("cpu" if arguments.quick else "cuda")
    session = Session(
        folder, device, arguments.quick, time.time() + seconds, seconds, arguments.mpnet
    )
    found: dict[str, Any] = {"machine": machine.describe(), "quick": arguments.quick, "parts": {}}
    for part in arguments.parts:
        found["parts"][part] = session.run(part)
        write_results(folder / "gpu.json", found)
        about = found["parts"][part]
        print(f"{part}: {about['state']} ({about.get('seconds', 0)} s)", flush=True)
        for name, one in about.get("results", {}).items():
            print(f"  {name}: {json.dumps(one)[:600]}", flush=True)
    print(json.dumps({part: one["state"] for part, one in found["parts"].items()}))


if __name__ == "__main__":
    main()

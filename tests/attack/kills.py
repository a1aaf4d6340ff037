"""Kill commands at chosen changes of files and at random moments, and run them again.

    PYTHONPATH=.:tests python tests/attack/kills.py [--kills 200] [--case train] [--all] [--seed 0]

Every command works in a folder `work` of its own, by relative paths, so that the same state gives
the same bytes. A case is killed in a copy of the state before it; what mends it, most often the
same command, has to end as on an undisturbed copy: byte for byte, without a file more or less.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

from changes import Plan, read_trace
from warm import Ended, WarmCommands, warm_commands
from whole_run import STEPS, arguments, write_input

from stx_mine.store.files import checksum
from stx_mine.store.listing import MANIFEST, PLAN
from stx_mine.store.names import NEW, OLD
from stx_mine.store.training_log import TRAINING_LOG

INPUT, RUN, FULL = Path("input"), Path("run"), "full"
_LOCK = ".lock-stx-mine"
# What a manifest says of when and how it was made; what decides the bytes are its fields.
_MADE = ("finished", "config", "checksum")
Argv = tuple[str, ...]


@dataclass(frozen=True)
class Case:
    """One command that is killed.

    Attributes:
        name: What it is called.
        before: The state that it finds: the name of a step, before which it was; or FULL.
        killed: The arguments of the command that is killed.
        mends: The commands after it, in their order; none for the same one again.
        overwrites: Whether the command can be given --overwrite when it is run again.
        deterministic: Whether it gives the same bytes each time.
    """

    name: str
    before: str
    killed: Argv
    mends: tuple[Argv, ...] = ()
    overwrites: bool = False
    deterministic: bool = True

    @property
    def after(self) -> tuple[Argv, ...]:
        """What is run after the kill."""
        return self.mends or (self.killed,)


def _of(step: str, *more: str) -> Argv:
    return (*arguments(step, INPUT, RUN), *more)


def _cases() -> Iterator[Case]:
    for step in STEPS:
        # How long a step takes is measured.
        yield Case(step, step, _of(step), overwrites=True, deterministic=step != "estimate")
    other = {
        "queries": ("--seed", "7"),
        "split": ("--seed", "7"),
        "embed": ("--dtype", "float16", "--precision", "float32"),
        "index": ("--factory", "IVF2,Flat"),
        "mine": ("--depth", "20", "--max-depth", "40"),
        "judge": ("--band", "0.2"),
        "audit": ("--seed", "7"),
        "pack": ("--seed", "7"),
        "train": ("--seed", "7"),
        "evaluate": ("--dims", "64,128"),
        "export": ("--k", "1"),
        "report": ("--seed", "7"),
    }
    for step, options in other.items():
        yield Case(f"{step}-other", FULL, _of(step, *options, "--overwrite"))
    remote = ("--run-dir", "run")
    yield Case("publish", FULL, ("publish", "remote", *remote), overwrites=True)
    yield Case("publish-other", FULL, ("publish", "file://{work}/older", "--overwrite", *remote))
    yield Case("fetch", FULL, ("fetch", "older", "--run-dir", "fetched"), overwrites=True)
    yield Case("fetch-other", FULL, ("fetch", "older", "--overwrite", *remote))
    yield Case("pipeline", "queries", ("run", "pipeline.yaml"))
    yield Case("cache", "embed", _of("embed", "--embedding-cache", "cache"), overwrites=True)
    yield Case("processes", "embed", _of("embed", "--device", "cpu,cpu"))
    for step in ("embed", "mine", "pack"):
        first, second = (_of(step, "--task", f"{number}/2") for number in range(2))
        yield Case(f"{step}-shares", step, first, (first, second, first))


CASES = {case.name: case for case in _cases()}
_PIPELINE = """\
run_dir: run
rounds: 2
embed: {pairs: input/pairs.parquet, device: cpu}
mine: {k: 2, device: cpu}
pack: {batch_size: 64}
train: {device: cpu}
evaluate: {data: input/dev.parquet, device: cpu}
"""


@dataclass(frozen=True)
class Kill:
    """One kill, and what came of it.

    Attributes:
        case: Its case.
        moment: Before which change, or after how many seconds.
        reached: Whether the command was still at work then.
        problems: What was wrong afterwards.
    """

    case: str
    moment: str
    reached: bool
    problems: list[str]


@dataclass
class Place:
    """One folder `work`, with a warm process.

    Attributes:
        folder: Where it lies.
        warm: Runs commands.
    """

    folder: Path
    warm: WarmCommands

    @property
    def work(self) -> Path:
        """Where commands work."""
        return self.folder / "work"

    def bring(self, state: Path) -> None:
        """Have a copy of a state there."""
        shutil.rmtree(self.work, ignore_errors=True)
        shutil.copytree(state, self.work, symlinks=True)
        (self.work / "temporary").mkdir(exist_ok=True)

    def run(self, argv: Argv, **plan: object) -> Ended:
        """Run a command."""
        words = [word.replace("{work}", str(self.work)) for word in argv]
        env = {"TMPDIR": str(self.work / "temporary")}
        return self.warm.run(words, Plan(self.work, **plan), env=env)  # type: ignore[arg-type]


@dataclass
class Undisturbed:
    """A case as it ends undisturbed.

    Attributes:
        trees: What lies in `work` after the case, with and without --overwrite at its end.
        trace: The changes of the command, in their order.
        seconds: How long it takes.
    """

    trees: dict[bool, dict[str, str]]
    trace: list[tuple[str, str]]
    seconds: float


@dataclass
class Laboratory:
    """The states before all commands, and places to kill them in.

    Attributes:
        folder: Where everything lies.
        places: Where commands run at the same time.
        undisturbed: By case.
    """

    folder: Path
    places: list[Place]
    undisturbed: dict[str, Undisturbed] = field(default_factory=dict)

    def state(self, name: str) -> Path:
        """Where a state lies."""
        return self.folder / "states" / name

    def build(self, steps: Sequence[str] = (*STEPS, FULL)) -> None:
        """Make the states before some steps, by the commands."""
        place, first = self.places[0], self.state(steps[0])
        write_input(first / INPUT)
        (first / "pipeline.yaml").write_text(_PIPELINE)
        place.bring(first)
        for step, following in pairwise(steps):
            _right(place.run(_of(step)))
            if following == FULL:
                # An earlier state of everything, at another place.
                _right(place.run(("publish", "older", "--run-dir", "run")))
                _right(place.run(_of("mine", "--k", "3")))
                _right(place.run(_of("pack", "--overwrite")))
                _right(place.run(_of("train", "--overwrite")))
                _right(place.run(_of("evaluate", "--overwrite")))
                _right(place.run(_of("export", "--overwrite")))
            shutil.copytree(place.work, self.state(following))

    def measure(self, case: Case, place: Place, both: bool = False) -> Undisturbed:
        """Run a case undisturbed; if both, also with --overwrite at its end."""
        found: Undisturbed | None = None
        for overwrite in (False, True)[: 1 + (both and case.overwrites)]:
            place.bring(self.state(case.before))
            trace = place.folder / "trace"
            trace.unlink(missing_ok=True)
            first = _right(place.run(case.killed, trace=trace))
            for argv in case.after if case.mends else ():
                _right(place.run(argv))
            if overwrite:
                _right(place.run((*case.killed, "--overwrite")))
            tree = tree_of(place.work, case.deterministic)
            if found is None:
                found = Undisturbed({}, read_trace(trace), first.seconds)
            found.trees[overwrite] = tree
        assert found is not None
        self.undisturbed[case.name] = found
        return found

    def kill(self, case: Case, place: Place, moment: "Moment") -> Kill:
        """Kill a case at a moment, mend it, compare."""
        undisturbed = self.undisturbed[case.name]
        before = self.state(case.before)
        place.bring(before)
        ended = place.run(case.killed, **moment.plan)
        problems = []
        if not ended.is_killed and ended.code not in (0, 2):
            problems.append(f"rc {ended.code}: {ended.stderr[-300:]}")
        if ended.orphans:
            problems.append(f"{ended.orphans} processes outlive it")
        problems += broken_artifacts(place.work)
        if moment.publishes and (place.work / RUN).is_dir():
            problems += stray_files(place)
        again = (*case.killed, "--overwrite")
        after = (again,) if moment.overwrites else case.after
        for argv in after:
            mended = place.run(argv)
            if mended.code != 0:
                problems.append(f"{' '.join(argv[:1])} again: rc {mended.code}: {mended.stderr}")
        shutil.rmtree(place.work / "published", ignore_errors=True)
        found = tree_of(place.work, case.deterministic)
        problems += differences(undisturbed.trees[moment.overwrites], found)
        return Kill(case.name, moment.words(undisturbed.trace), ended.is_killed, problems)


@dataclass(frozen=True)
class Moment:
    """When a command is killed, and how it is run again.

    Attributes:
        number: The change before which it is killed; 0 for a time.
        is_torn: Half of that change is done if it is a write.
        after_s: The time.
        overwrites: It is run again with --overwrite.
        publishes: What is there is published before, which shows what counts as an artifact.
    """

    number: int = 0
    is_torn: bool = False
    after_s: float | None = None
    overwrites: bool = False
    publishes: bool = False

    @property
    def plan(self) -> dict[str, object]:
        """For the command."""
        return {"kill_at": self.number, "is_torn": self.is_torn, "after_s": self.after_s}

    def words(self, trace: Sequence[tuple[str, str]]) -> str:
        """For a person."""
        again = ", again with --overwrite" if self.overwrites else ""
        if not self.number:
            return f"after {self.after_s:.2f} s{again}"
        what, path = trace[self.number - 1] if self.number <= len(trace) else ("?", "?")
        return f"{'in' if self.is_torn else 'before'} change {self.number}, {what} {path}{again}"


def moments(case: Case, undisturbed: Undisturbed, count: int, rng: random.Random) -> list[Moment]:
    """Choose when to kill a command.

    One in five moments is a time. Of the rest every second change is none of the many writes; all
    are spread over the command.
    """
    numbers = range(1, len(undisturbed.trace) + 1)
    others = [one for one in numbers if undisturbed.trace[one - 1][0] not in ("write", "fwrite")]
    found = []
    for turn in range(count):
        again = {"overwrites": case.overwrites and turn % 4 == 1, "publishes": turn % 6 == 2}
        if turn % 5 == 4 or not numbers:
            found.append(Moment(after_s=rng.uniform(0.0, undisturbed.seconds), **again))
            continue
        pool = others if turn % 2 and others else list(numbers)
        place = (turn + rng.random()) / count
        number = pool[min(int(place * len(pool)), len(pool) - 1)]
        found.append(Moment(number, bool(rng.getrandbits(1)), **again))
    return found


def run_kills(
    laboratory: Laboratory,
    cases: Sequence[Case],
    kills: int,
    seed: int = 0,
    every: bool = False,
    said: Callable[[Kill], None] = lambda kill: None,
) -> list[Kill]:
    """Kill every case a number of times, in all places at once.

    Args:
        laboratory: With its states.
        cases: What is killed.
        kills: How often, all together; at least once each.
        seed: Chooses the moments.
        every: Kill at every change instead.
        said: Is told of each kill.
    """
    free = list(laboratory.places)
    taken = threading.Lock()

    def work(number: int) -> list[Kill]:
        case, rng = cases[number], random.Random(f"{seed} {cases[number].name}")
        with taken:
            place = free.pop()
        try:
            undisturbed = laboratory.measure(case, place, both=True)
            share = kills // len(cases) + (number < kills % len(cases))
            chosen = (
                [Moment(one, True) for one in range(1, len(undisturbed.trace) + 1)]
                if every
                else moments(case, undisturbed, max(1, share), rng)
            )
            found = []
            for moment in chosen:
                found.append(laboratory.kill(case, place, moment))
                said(found[-1])
            return found
        finally:
            with taken:
                free.append(place)

    with ThreadPoolExecutor(len(laboratory.places)) as threads:
        return [one for found in threads.map(work, range(len(cases))) for one in found]


def open_laboratory(folder: Path, num_places: int, stack: ExitStack, **env: str) -> Laboratory:
    """A laboratory without states, whose warm processes end with the stack."""
    folder = folder.resolve()
    places = []
    for number in range(num_places):
        own = folder / f"place-{number}"
        places.append(Place(own, stack.enter_context(warm_commands(own / "warm", **env))))
    return Laboratory(folder, places)


def tree_of(work: Path, whole: bool = True) -> dict[str, str]:
    """Path -> digest of every file but locks; plans and manifests without their times.

    Args:
        work: The folder.
        whole: Whether contents count; else names alone.
    """
    found = {}
    for path in sorted(work.rglob("*")):
        name = path.relative_to(work).as_posix()
        # The locks themselves stay, who holds them does not.
        if path.is_dir() or (path.name.startswith(_LOCK) and not path.suffix):
            continue
        content = path.read_bytes() if whole else b""
        if whole and path.name == MANIFEST:
            content = json.dumps(_manifest(json.loads(content))).encode()
        elif whole and path.name == TRAINING_LOG:
            content = json.dumps(
                [_timeless(json.loads(one)) for one in content.splitlines()]
            ).encode()
        found[name] = sha256(content).hexdigest()
    return found


def _manifest(content: dict[str, Any]) -> dict[str, Any]:
    """A manifest without what is another one each time that the same is made."""
    kept = {name: value for name, value in content.items() if name not in _MADE}
    if any(one["file"] == TRAINING_LOG for one in kept["files"]):
        # It says how long steps took.
        kept["files"] = [one for one in kept["files"] if one["file"] != TRAINING_LOG]
        del kept["digest"]
    if content["config"].get("embedding_cache"):
        # How much of it a killed command had filled decides what is read from it.
        del kept["counts"]
    return dict(_timeless(kept))


def _timeless(content: Any) -> Any:
    """JSON without numbers of seconds and of memory."""
    if isinstance(content, dict):
        kept = {k: v for k, v in content.items() if "second" not in k and not k.startswith("peak_")}
        return {name: _timeless(one) for name, one in kept.items()}
    return list(map(_timeless, content)) if isinstance(content, list) else content


def differences(expected: dict[str, str], found: dict[str, str]) -> list[str]:
    """What differs, in words."""
    words = [f"{name} is left over" for name in found.keys() - expected.keys()]
    words += [f"{name} is missing" for name in expected.keys() - found.keys()]
    both = expected.keys() & found.keys()
    words += [f"{name} differs" for name in sorted(both) if expected[name] != found[name]]
    return words[:8]


def broken_artifacts(work: Path) -> list[str]:
    """Artifacts that say that they are whole, by their manifest, and are not."""
    problems = []
    for manifest in work.rglob(MANIFEST):
        folder = manifest.parent
        # On its way in or out; nobody reads it there.
        if any(part.endswith((NEW, OLD)) for part in folder.parts):
            continue
        if folder.joinpath("publishing.json").exists():
            continue
        for one in json.loads(manifest.read_text())["files"]:
            path = folder / one["file"]
            if not path.exists() or checksum(path) != one["xxh3_128"]:
                problems.append(f"{path.relative_to(work)} is not what its manifest says")
    return problems


def stray_files(place: Place) -> list[str]:
    """What `publish` sends that no manifest lists."""
    done = place.run(("publish", "published", "--run-dir", "run"))
    if done.code == 2 and "no finished artifact" in done.stderr:
        return []
    if done.code != 0:
        return [f"publish after the kill: rc {done.code}: {done.stderr}"]
    published, problems = place.work / "published", []
    listed = set()
    for manifest in published.rglob(MANIFEST):
        names = [one["file"] for one in json.loads(manifest.read_text())["files"]]
        listed |= {manifest.parent / name for name in (*names, PLAN, MANIFEST)}
    for path in published.rglob("*"):
        if path.is_file() and path not in listed:
            problems.append(f"publish sends {path.relative_to(published)}")
    return problems


def _right(ended: Ended) -> Ended:
    assert ended.code == 0, ended
    return ended


def show(kill: Kill) -> None:
    """Print what a kill led to."""
    for problem in kill.problems or ["right"]:
        print(f"{kill.case}, {kill.moment}: {problem}", flush=True)


def main() -> None:
    """Kill, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--case", action="append", choices=list(CASES))
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--places", type=int, default=2)
    asked, started = parser.parse_args(), time.monotonic()
    cases = [CASES[name] for name in asked.case or CASES]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        laboratory = open_laboratory(Path(folder), asked.places, stack)
        laboratory.build()
        print(f"states after {time.monotonic() - started:.0f} s", flush=True)
        found = run_kills(laboratory, cases, asked.kills, asked.seed, asked.all, show)
    bad = sum(bool(one.problems) for one in found)
    reached = sum(one.reached for one in found)
    print(
        f"{len(found)} kills, {reached} of a command at work, {bad} with something found, "
        f"{time.monotonic() - started:.0f} s"
    )
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()

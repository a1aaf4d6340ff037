"""Signals: whatever the program is at, it says what stays, ends soon, and leaves no process."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import cli_command, cli_environment
from steps_here import make_step
from whole_run import STEPS, arguments, write_input

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"),
    pytest.mark.timeout(900),
]

SECONDS = 2.0
HOLDER = ".lock-stx-mine.json"
_MOST_S = 200
# An encoder whose second call never ends; in one way Python can interrupt it, in the other not.
_ENCODER = """
import hashlib, pathlib, time
import numpy as np

def wait():
    {wait}

def f(texts):
    if len(texts) > 1:
        pathlib.Path("called").touch()
        wait()
    return np.ones((len(texts), 4), np.float32)
"""
SLEEPS = _ENCODER.format(wait="time.sleep(1000)")
COMPUTES = _ENCODER.format(wait="hashlib.pbkdf2_hmac('sha256', b'a', b'b', 2**31 - 1)")
SWALLOWS = _ENCODER.format(
    wait="""
    while True:
        try:
            time.sleep(1000)
        except BaseException:
            continue
"""
)


def start(words: list[str], folder: Path, **environment: str) -> "subprocess.Popen[str]":
    """Start the program at the head of processes of its own."""
    return subprocess.Popen(
        cli_command(*words),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=cli_environment(**environment),
        start_new_session=True,
        preexec_fn=_hear,
    )


def _hear() -> None:
    """Signals that whoever runs the tests ignores, as jobs in the background do, count here."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def wait_until(program: "subprocess.Popen[str]", is_there: Callable[[], bool]) -> None:
    """Wait for the moment of a signal."""
    end = time.monotonic() + _MOST_S
    while not is_there():
        assert program.poll() is None, program.communicate()
        assert time.monotonic() < end, "the moment did not come"
        time.sleep(0.01)


def interrupt(program: "subprocess.Popen[str]", number: int, to_all: bool = False) -> str:
    """Send a signal, and see that it ends the program as it should; what it said."""
    began = time.monotonic()
    (os.killpg if to_all else os.kill)(program.pid, number)
    _, said = program.communicate(timeout=60)
    taken = time.monotonic() - began
    assert program.returncode == 128 + number, said
    assert taken < SECONDS, f"{taken:.1f} s: {said}"
    line = said.strip().splitlines()[-1]
    assert line.startswith(f"stx-mine: interrupted by {signal.Signals(number).name}; "), said
    assert "Traceback" not in said
    # Ray's core logs at the start that it may restart actors, and cannot be kept from it.
    others = [one for one in said.strip().splitlines() if " core_worker.cc:" not in one]
    assert others == [line]
    # Agents of Ray see by themselves that their node is gone, within a minute.
    end = time.monotonic() + (90 if others != said.strip().splitlines() else 5)
    while left := session_of(program.pid):
        assert time.monotonic() < end, left
        time.sleep(0.05)
    return line


def session_of(leader: int) -> list[str]:
    """The processes of a session that are at work."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            state, _, _, session = (
                folder.joinpath("stat").read_text().rpartition(")")[2].split()[:4]
            )
            words = folder.joinpath("cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
        if int(session) == leader and state not in "ZX":
            found.append(f"{folder.name}: {words[:200]}")
    return found


def begin_embedding(folder: Path, encoder: str) -> "subprocess.Popen[str]":
    """Start `embed` with an encoder, and wait until that is called."""
    folder.mkdir()
    write_input(folder)
    (folder / "slow.py").write_text(encoder)
    program = start(["embed", "pairs.parquet", "--encoder", "slow:f"], folder)
    wait_until(program, (folder / "called").exists)
    return program


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_the_work_changes_nothing(number: int, tmp_path: Path) -> None:
    write_input(tmp_path)
    program = start(["embed", "pairs.parquet"], tmp_path)
    maps = Path(f"/proc/{program.pid}/maps")
    # Modules of the program are being imported.
    wait_until(program, lambda: "_bisect" in maps.read_text() or "typer" in maps.read_text())
    interrupt(program, number)
    assert not (tmp_path / "stx-run/texts/manifest.json").exists()


def test_a_signal_in_a_task_ends_it(tmp_path: Path) -> None:
    program = begin_embedding(tmp_path / "a", SLEEPS)
    said = interrupt(program, signal.SIGTERM)
    assert said.endswith("finished files stay, the same command continues where it stopped")
    assert (tmp_path / "a/stx-run/texts/manifest.json").exists()
    assert not (tmp_path / "a/stx-run" / HOLDER).exists()


@pytest.mark.slow
@pytest.mark.parametrize("encoder", [COMPUTES, SWALLOWS], ids=["computes", "swallows"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_code_that_does_not_listen_is_ended(encoder: str, number: int, tmp_path: Path) -> None:
    interrupt(begin_embedding(tmp_path / "a", encoder), number)


@pytest.mark.slow
def test_a_signal_that_is_ignored_stays_so(tmp_path: Path) -> None:
    """As under nohup, and in the background of a shell script."""
    write_input(tmp_path)
    words = cli_command("ingest", "pairs.parquet")
    program = subprocess.Popen(
        words,
        cwd=tmp_path,
        env=cli_environment(),
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    time.sleep(0.5)
    os.kill(program.pid, signal.SIGHUP)
    assert program.wait(60) == 0


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The run directory as it is before each step, and `input`."""
    folder = tmp_path_factory.mktemp("signals")
    found = {"input": write_input(folder / "input")}
    run = folder / "run"
    for step in STEPS:
        found[step] = folder / f"before-{step}"
        if run.exists():
            shutil.copytree(run, found[step])
        make_step(step, found["input"], run)
    return found


def interrupt_and_continue(
    words: list[str], run: Path, moment: Callable[[], bool], number: int, to_all: bool
) -> None:
    """A signal at a moment; then the same command ends well."""
    program = start(words, run.parent)
    wait_until(program, moment)
    interrupt(program, number, to_all)
    done = subprocess.run(
        cli_command(*words), capture_output=True, text=True, env=cli_environment(), cwd=run.parent
    )
    assert done.returncode == 0, done.stderr
    left = [path.name for path in run.rglob("*") if path.name.endswith((".tmp", ".new", ".old"))]
    assert left == []


@pytest.mark.slow
@pytest.mark.parametrize("step", list(STEPS))
@pytest.mark.parametrize(
    ("number", "to_all"), [(signal.SIGINT, True), (signal.SIGTERM, False), (signal.SIGHUP, True)]
)
def test_a_signal_in_each_step(
    step: str, number: int, to_all: bool, runs: dict[str, Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    if runs[step].exists():
        shutil.copytree(runs[step], run)
    moment = (run / HOLDER).exists
    interrupt_and_continue(arguments(step, runs["input"], run), run, moment, number, to_all)


def _with_files(folder: Path, number: int) -> Callable[[], bool]:
    """Whether so many files of a begun artifact are there."""
    return lambda: len(list(folder.glob("*-of-*.npy"))) >= number


@pytest.mark.slow
@pytest.mark.parametrize(("number", "to_all"), [(signal.SIGINT, True), (signal.SIGTERM, False)])
def test_a_signal_while_processes_embed(
    number: int,
    to_all: bool,
    runs: dict[str, Path],
    tiny_transformer: Path,
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    words = [
        *("embed", str(runs["input"] / "pairs.parquet"), "--model", str(tiny_transformer)),
        *("--device", "cpu,cpu", "--shard-size", "2", "--run-dir", str(run)),
    ]
    moment = _with_files(run / "embeddings", 2)
    interrupt_and_continue(words, run, moment, number, to_all)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "to_all"), [(signal.SIGINT, True), (signal.SIGTERM, False)])
def test_a_signal_while_ray_mines(
    number: int, to_all: bool, runs: dict[str, Path], tmp_path: Path
) -> None:
    pytest.importorskip("ray")
    run = tmp_path / "run"
    shutil.copytree(runs["mine"], run)
    words: list[Any] = [
        *("mine", "--k", "2", "--device", "cpu", "--query-block", "4", "--engine", "ray"),
        *("--workers", "2", "--run-dir", str(run)),
    ]

    def moment() -> bool:
        return len(list((run / "hits/dense").glob("*.arrow"))) >= 1

    interrupt_and_continue(words, run, moment, number, to_all)


@pytest.mark.slow
def test_processes_end_with_a_parent_that_is_killed(
    runs: dict[str, Path], tiny_transformer: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    words = [
        *("embed", str(runs["input"] / "pairs.parquet"), "--model", str(tiny_transformer)),
        *("--device", "cpu,cpu", "--shard-size", "2", "--run-dir", str(run)),
    ]
    program = start(words, tmp_path)
    wait_until(program, _with_files(run / "embeddings", 2))
    program.kill()
    program.communicate(timeout=60)
    end = time.monotonic() + 10
    while left := session_of(program.pid):
        assert time.monotonic() < end, left
        time.sleep(0.05)

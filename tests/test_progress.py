"""What a command is at: a line that changes on a terminal, lines now and then elsewhere."""

import os
import pty
import re
import subprocess
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from conftest import Cli, cli_command, cli_environment

from stx_mine import progress
from stx_mine.progress import Display, Step, duration


@pytest.mark.parametrize(
    ("step", "seconds", "words"),
    [
        (Step("reading pairs.csv"), 4, "reading pairs.csv, 4 s"),
        (Step("encoding", 100, "texts"), 4, "encoding 0 of 100 texts, 4 s"),
        (Step("encoding", 100, "texts", 20), 4, "encoding 20 of 100 texts, 5/s, 16 s left"),
        (Step("encoding", 100, "texts", 100), 4, "encoding 100 of 100 texts, 25/s"),
        (Step("numbered", None, "texts", 8_000), 4, "numbered 8,000 texts, 2,000/s"),
        (Step("searching", 9, "parts", 1), 90, "searching 1 of 9 parts, 12 min left"),
        (
            Step("training", 40, "steps", 10, "loss 0.71"),
            5,
            "training 10 of 40 steps, 2/s, 15 s left, loss 0.71",
        ),
        (
            Step("checksums of texts/", 3 << 30, "bytes", 1 << 30),
            2,
            "checksums of texts/ 1.0 GB of 3.0 GB, 512.0 MB/s, 4 s left",
        ),
    ],
)
def test_a_step_says_count_rate_and_time_left(step: Step, seconds: float, words: str) -> None:
    assert step.words(step.began + seconds) == words


def test_durations_have_the_unit_that_a_person_would_take() -> None:
    assert [duration(one) for one in (3.2, 119, 120, 7_199, 7_200)] == [
        *("3 s", "119 s", "2 min", "120 min", "2.0 h")
    ]


def test_the_innermost_step_stands_behind_the_outermost() -> None:
    shown = Display("embed", verbose=False)
    assert re.fullmatch(r"embed: starting, 0 s(, [\d.]+ [kMG]B)?", shown.line())
    with progress.step("embedding", 2, "parts") as outer:
        outer.advance()
        with progress.step("measuring"), progress.step("encoding", 10, "texts"):
            line = shown.line()
            assert line.startswith("embed: embedding 1 of 2 parts; encoding 0 of 10 texts, 0 s")
    assert shown.line().startswith("embed: starting")


def test_a_step_that_fails_is_over() -> None:
    with pytest.raises(ValueError, match="broken"), progress.step("reading"):
        raise ValueError("broken")
    assert "reading" not in Display("embed", verbose=False).line()


def test_a_compilation_that_began_before_anybody_watched_may_end() -> None:
    numba = pytest.importorskip("numba")
    progress._watch_compiler()
    numba.core.event.end_event("numba:compile")
    assert "compiling" not in Display("mine", verbose=False).line()


def test_compilations_are_named() -> None:
    numba = pytest.importorskip("numba")
    progress._watch_compiler()
    seen = []

    def own(x):
        return x + 1

    class Asked(numba.core.event.Listener):
        def on_start(self, _: object) -> None:
            seen.append(Display("mine", verbose=False).line())

        def on_end(self, _: object) -> None:
            pass

    listener = Asked()
    numba.core.event.register("numba:compile", listener)
    try:
        assert numba.njit(own)(1) == 2
    finally:
        numba.core.event.unregister("numba:compile", listener)
    assert any(line.startswith("mine: compiling, first run only, 0 s") for line in seen), seen
    assert "compiling" not in Display("mine", verbose=False).line()


def test_lines_come_now_and_then_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "DELAY_S", 0.01)
    monkeypatch.setattr(progress, "LINE_S", 0.2)
    with progress.display("mine"), progress.step("searching", 5, "parts") as step:
        step.advance(2)
        time.sleep(0.7)
    lines = capsys.readouterr().err.splitlines()
    assert 2 <= len(lines) <= 3
    assert all(line.startswith("mine: searching 2 of 5 parts, ") for line in lines), lines
    with progress.display("mine"):
        pass
    assert capsys.readouterr().err == ""


def test_verbose_lists_what_each_part_took(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.display("embed", verbose=True):
        list(progress.each(range(3), "encoding", 3, "texts"))
        with progress.step("writing"):
            pass
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(" in ")[0] for line in lines] == [
        *("embed: encoding 3 of 3 texts", "embed: writing")
    ]


def terminal_output(*args: str | Path) -> Iterator[tuple[float, str]]:
    """What a command writes to a terminal, with the seconds since it began."""
    ours, theirs = pty.openpty()
    began = time.monotonic()
    with subprocess.Popen(
        cli_command(*args),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=cli_environment(TERM="xterm"),
    ) as process:
        os.close(theirs)
        while some := _read(ours):
            yield time.monotonic() - began, some
    os.close(ours)
    assert process.returncode == 0


def _read(file: int) -> str:
    try:
        return os.read(file, 65_536).decode(errors="replace")
    except OSError:
        # How Linux tells that nobody writes any more.
        return ""


def test_a_terminal_is_never_silent_for_long(tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.jsonl"
    rows = [f'{{"query": "question {i}", "passage": "answer number {i}"}}' for i in range(300)]
    pairs.write_text("\n".join(rows))
    run = ("--run-dir", tmp_path / "run")
    for command in (("embed", pairs, *run), ("mine", *run), ("pack", "--batch-size", "64", *run)):
        # By itself it is two and a half seconds; a machine that does something else gets more
        # time, and three tries.
        for _ in range(3):
            times, text = [0.0], ""
            for at, some in terminal_output(*command, "--overwrite"):
                times.append(at)
                text += some
            silence = max(b - a for a, b in pairwise(times))
            if silence < 10:
                break
        assert silence < 10, (command, silence)
        # The line is gone at the end: the summary stands where it was.
        name = {"embed": "embeddings", "mine": "negatives", "pack": "batches"}[command[0]]
        summary = next(line for line in text.splitlines() if f"{name}: done in" in line)
        assert summary.rpartition("\r")[2].startswith(name), text


def test_quiet_prints_warnings_and_what_is_looked_at_only(cli: Cli, tmp_path: Path) -> None:
    pairs, run = tmp_path / "pairs.csv", tmp_path / "run"
    pairs.write_text("query,passage\n" + "".join(f"q {i},p {i}\n" for i in range(40)))
    for before in (True, False):
        words = ("ingest", pairs, "--run-dir", run)
        done = cli(*(("--quiet", *words) if before else (*words, "--quiet")))
        assert done.code == 0
        assert done.stdout == ""
    told = cli("ingest", pairs, "--run-dir", run, "--verbose")
    assert told.stdout.startswith("texts: done before, skipped")
    looked = cli("--quiet", "verify", run / "texts")
    assert looked.stdout.startswith("verify"), looked
    both = cli("ingest", pairs, "--quiet", "--verbose")
    assert both.code == 2
    assert both.error == "expected --quiet or --verbose, found both; leave one out"


def test_shells_complete_commands_and_options(cli: Cli) -> None:
    words = {"_STX_MINE_COMPLETE": "complete_bash", "COMP_CWORD": "2"}
    found = cli(**words, COMP_WORDS="stx-mine mine --jud")
    assert found.stdout.split() == ["--judges", "--judged", "--judged-margin"]
    assert "--install-completion" in cli("--help").stdout

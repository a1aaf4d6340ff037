"""Hostile inputs: each case of `hostile/*.yaml` ends as it says, and changes nothing that is there.

A case makes files, runs one command and says how that ends. Those that may end the process, or need
limits, run in one of their own and are slow, as those are that say so.
"""

import os
import re
import resource
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Cli, Finished, cli_command, cli_environment
from hostile_files import make_file
from steps_here import make_steps
from transformers.utils import logging
from whole_run import write_input

FOLDER = Path(__file__).parent / "hostile"
FEWEST = 120
_KNOWN = {"name", "files", "env", "command", "code", "line", "out", "alone", "limit", "slow"}
# Steps of the run that cases copy.
_STEPS = ("embed", "mine", "pack")


def load_cases() -> list[dict[str, Any]]:
    """All cases, from all files."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found: list[dict[str, Any]] = []
    for path in sorted(FOLDER.glob("*.yaml")):
        # The data is our own.
        found += yaml.load(path.read_text("utf-8"), Loader=loader)
    return found


CASES = load_cases()
# As the program has it from its start.
logging.disable_progress_bar()


def is_slow(case: dict[str, Any]) -> bool:
    """Whether a case has a process of its own, loads a model or copies a run, or takes seconds."""
    loads = any(word in str(case) for word in ("{run}", "{model}", "--model", "--encoder"))
    return loads or bool({"alone", "limit", "slow"} & set(case))


def parameters() -> list[Any]:
    """The cases as parameters of a test."""
    return [
        pytest.param(case, id=case["name"], marks=[pytest.mark.slow] if is_slow(case) else [])
        for case in CASES
    ]


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs, corpus and development pairs that are sound."""
    return write_input(tmp_path_factory.mktemp("hostile_inputs"))


@pytest.fixture(scope="session")
def sound_run(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is embedded, mined and packed."""
    return make_steps(_STEPS, inputs, tmp_path_factory.mktemp("hostile") / "run")


def state_of(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of each file that counts, below a folder."""
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


def test_there_are_cases_enough_of_different_names() -> None:
    names = [case["name"] for case in CASES]
    assert len(names) == len(set(names)) >= FEWEST
    for case in CASES:
        assert set(case) <= _KNOWN, case["name"]
        assert case.get("line") or case.get("out"), case["name"]


@pytest.mark.parametrize("case", parameters())
def test_a_hostile_input_ends_as_expected(
    case: dict[str, Any],
    inputs: Path,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cli_here: Cli,
) -> None:
    here = tmp_path / "h"
    here.mkdir()
    places = {"here": str(here), "input": str(inputs)}
    text = str(case)
    if "{run}" in text:
        shutil.copytree(request.getfixturevalue("sound_run"), here / "run")
        places["run"] = str(here / "run")
    if "{model}" in text:
        places["model"] = str(request.getfixturevalue("tiny_transformer"))
    fill = filler(places)
    for name, spec in case.get("files", {}).items():
        make_file(here / fill(name), spec, fill)
    words = [fill(str(word)) for word in case["command"]]
    before = state_of(here)
    monkeypatch.chdir(here)
    for name, value in case.get("env", {}).items():
        monkeypatch.setenv(name, fill(str(value)))
    alone = {"alone", "limit"} & set(case)
    done = _alone(words, case.get("limit", {})) if alone else cli_here(*words)
    judge(case, done, fill)
    if done.code == 2:
        after = state_of(here)
        assert {name: after.get(name) for name in before} == before


def filler(places: dict[str, str]) -> Callable[[str], str]:
    """What puts folders in place of their names in braces."""

    def fill(text: str) -> str:
        for name, place in places.items():
            text = text.replace("{" + name + "}", place)
        return text

    return fill


def judge(case: dict[str, Any], done: Finished, fill: Callable[[str], str]) -> None:
    """See that a command ended as its case says."""
    assert "Traceback" not in done.stderr, done.stderr
    assert done.code == case.get("code", 2), done
    if "line" in case:
        line = done.error if done.code == 2 else done.stderr
        assert re.search(fill(case["line"]), line), line
        assert len(line) < 2_000
    if "out" in case:
        assert re.search(fill(case["out"]), done.stdout), done.stdout


def _alone(words: list[str], limits: dict[str, int]) -> Finished:
    def limit() -> None:
        for name, number in limits.items():
            resource.setrlimit(getattr(resource, name), (number, number))

    done = subprocess.run(
        cli_command(*words),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        preexec_fn=limit,
        env=cli_environment(**{name: os.environ[name] for name in os.environ}),
        timeout=240,
    )
    return Finished(done.returncode, done.stdout, done.stderr)

"""The sdist of the checkout and the wheel of it, installed elsewhere and used there."""

import resource
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Callable
from email.parser import Parser
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import cli_environment

# What is copied: a checkout may hold environments and runs.
_SOURCES = ("stx_mine", "tests", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE")
_OTHERS = ("CHANGELOG.md",)
_BUILD = "import sys; from setuptools import build_meta; build_meta.build_{}(sys.argv[1])"
Installed = Callable[..., subprocess.CompletedProcess[str]]


def done(command: list[str | Path], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder, without the modules of the checkout."""
    environment = cli_environment()
    environment.pop("PYTHONPATH", None)
    ended = subprocess.run(
        command, capture_output=True, text=True, cwd=folder, env=environment, check=False
    )
    assert ended.returncode == 0, ended
    return ended


@pytest.fixture(scope="module")
def sdist(repo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive."""
    copy, out = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("sdist")
    for name in (*_SOURCES, *_OTHERS):
        if (repo_root / name).is_dir():
            shutil.copytree(
                repo_root / name, copy / name, ignore=shutil.ignore_patterns("__pycache__")
            )
        else:
            shutil.copy2(repo_root / name, copy / name)
    done([sys.executable, "-c", _BUILD.format("sdist"), out], copy)
    (archive,) = out.iterdir()
    return archive


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the archive."""
    unpacked, out = tmp_path_factory.mktemp("unpacked"), tmp_path_factory.mktemp("wheel")
    with tarfile.open(sdist) as files:
        files.extractall(unpacked, filter="data")
    (source,) = unpacked.iterdir()
    done([sys.executable, "-c", _BUILD.format("wheel"), out], source)
    (built,) = out.iterdir()
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Runs a script of an environment that holds the wheel, and sees the packages of this one."""
    place = tmp_path_factory.mktemp("environment")
    done([sys.executable, "-m", "venv", "--without-pip", place], place)
    paths = sysconfig.get_paths(vars={"base": str(place), "platbase": str(place)})
    # A folder that a file of paths names gives its packages, but not the checkout: files of
    # paths within it are not read.
    others = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (Path(paths["purelib"]) / "others.pth").write_text("".join(f"{one}\n" for one in others))
    pip = [sys.executable, "-m", "pip", "--python", place / "bin/python", "install", "--no-deps"]
    done([*pip, "--no-index", "--no-compile", wheel], place)

    def run(folder: Path, script: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
        return done([place / "bin" / script, *words], folder)

    return run


def test_sdist_and_wheel_hold_every_file_of_the_package(
    repo_root: Path, sdist: Path, wheel: Path
) -> None:
    files = {
        str(one.relative_to(repo_root))
        for one in (repo_root / "stx_mine").rglob("*")
        if one.is_file() and one.parent.name != "__pycache__"
    }
    assert {"stx_mine/py.typed", "stx_mine/stages/judge/prompts/compare.jinja"} < files
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
        (about,) = (one for one in held if one.endswith(".dist-info/METADATA"))
        told = Parser().parsestr(archive.read(about).decode())
    assert {one for one in held if ".dist-info/" not in one} == files
    assert about.replace("METADATA", "licenses/LICENSE") in held
    assert told["Requires-Python"] == ">=3.11"
    with tarfile.open(sdist) as archive:
        names = {one.partition("/")[2] for one in archive.getnames()}
    assert files | {*_SOURCES, *_OTHERS} - {"tests"} <= names
    assert not [one for one in names if one.startswith("tests")]


def test_what_is_installed_is_the_wheel(installed: Installed, tmp_path: Path) -> None:
    code = (
        "import sys, stx_mine, importlib.metadata as packages\n"
        "print(stx_mine.__file__.startswith(sys.prefix), packages.version('stx-mine'))"
    )
    of_the_wheel, version = installed(tmp_path, "python", "-c", code).stdout.split()
    assert of_the_wheel == "True"
    assert installed(tmp_path, "stx-mine", "version").stdout.strip() == version


@pytest.mark.parametrize(("words", "said"), [((), "audit"), (("mine",), "--relative-margin")])
def test_help_answers_within_half_a_second(
    installed: Installed, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    """Of processor time, which other work on the machine does not stretch."""
    taken = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert said in installed(tmp_path, "stx-mine", *words, "--help").stdout
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    assert min(taken) < 0.5, taken


def test_pages_and_prompts_are_found(installed: Installed, tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("query,passage\nwhat,this\nwhere,here\n", "utf-8")
    installed(tmp_path, "stx-mine", "ingest", "pairs.csv")
    installed(tmp_path, "stx-mine", "report")
    page = (tmp_path / "stx-run/report/report.html").read_text("utf-8")
    assert all(part in page for part in ("<style>", "</html>"))
    code = (
        "from stx_mine.stages.judge.prompt import SHIPPED, Prompt\n"
        "from stx_mine.stages.queries.query_prompt import QueryPrompt\n"
        "print(*(Prompt.open(one).name for one in SHIPPED), QueryPrompt.open('queries').name)"
    )
    found = installed(tmp_path, "python", "-c", code).stdout.split()
    assert {"compare", "queries"} <= set(found)


@pytest.mark.slow
def test_a_whole_run_from_pairs_to_a_model(
    installed: Installed, small_input: Path, tmp_path: Path
) -> None:
    pairs, corpus = small_input / "pairs.parquet", small_input / "corpus.parquet"
    for words in (
        ("embed", pairs, "--corpus", corpus, "--device", "cpu"),
        ("dedup",),
        ("mine", "--k", "4", "--device", "cpu"),
        ("pack", "--batch-size", "64"),
        ("verify",),
        ("train", "--device", "cpu"),
        ("evaluate", pairs, "--corpus", corpus, "--device", "cpu"),
        ("export", "--to", "flagembedding"),
        ("report",),
        ("publish", f"file://{tmp_path / 'published'}"),
    ):
        installed(tmp_path, "stx-mine", *words)
    other = tmp_path / "other"
    installed(tmp_path, "stx-mine", "fetch", f"file://{tmp_path / 'published'}", "--run-dir", other)
    assert (other / "model/manifest.json").is_file()
    rows = pq.read_table(next((tmp_path / "stx-run/batches").glob("*/train-*.parquet")))
    assert rows.num_rows
    assert any((tmp_path / "stx-run/exports/flagembedding").iterdir())

"""The layout of the code stays what the design says: rooms, imports, printing, options, help."""

import ast
import os
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import NamedTuple, get_type_hints

import click
import pytest
import typer
from conftest import Cli, cli_command, cli_environment

import stx_mine
from stx_mine import cli as command_line
from stx_mine.commands import COMMANDS
from stx_mine.core.verdicts import RULES, Verdict
from stx_mine.inputs.config import SourceFields
from stx_mine.settings import StageConfig, names_of, words_of
from stx_mine.stages.calibrate.config import CalibrateConfig
from stx_mine.stages.diff.config import DiffConfig
from stx_mine.stages.init.config import InitConfig
from stx_mine.stages.show.config import ShowConfig
from stx_mine.stages.train.packed_sampler import PackedBatchSampler
from stx_mine.stages.verify.config import VerifyConfig

# From the top to the bottom: a module imports its own room and those below. A new stage is one
# entry here, one in `commands.py`, and one in `store/kinds.py` where it makes an artifact.
SLICES = [
    "init",
    "report",
    "tune",
    "estimate",
    "train",
    "merge",
    "evaluate",
    "diff",
    "show",
    "verify",
    "export",
    "pack",
    "calibrate",
    "audit",
    "queries",
    "judge",
    "mine",
    "index",
    "split",
    "dedup",
    "embed",
    "ingest",
    "transfer",
]
ROOMS = [
    "__main__",
    "cli",
    "api",
    "options",
    "pipeline",
    "commands",
    *(f"stages.{name}" for name in SLICES),
    "engine",
    "models",
    "search",
    "inputs",
    "store",
    "core",
    "settings",
    "errors",
    "interrupts",
    "progress",
    "masking",
]
PACKAGE = Path(command_line.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))


class Import(NamedTuple):
    """One imported module, and where."""

    source: Path
    line: int
    module: str

    @property
    def place(self) -> str:
        return f"{self.source.relative_to(PACKAGE)}:{self.line} imports {self.module}"


def name_of(source: Path) -> str:
    parts = source.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imports(source: Path) -> Iterator[Import]:
    """Every import of a file, at any depth, as the absolute name of a module."""
    for node in ast.walk(ast.parse(source.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            for one in node.names:
                yield Import(source, node.lineno, one.name)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{source}:{node.lineno}: a relative import"
            assert node.module is not None
            for one in node.names:
                inner = f"{node.module}.{one.name}"
                yield Import(source, node.lineno, inner if is_module(inner) else node.module)


def is_module(name: str) -> bool:
    path = PACKAGE.parent.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def room(module: str) -> str | None:
    """The room of a module of the package; None for the package and for `stages` themselves."""
    parts = module.split(".")[1:]
    if parts[:1] == ["stages"]:
        return ".".join(parts[:2]) if len(parts) > 1 else None
    return parts[0] if parts else None


def sources_of(*rooms: str) -> list[Path]:
    return [source for source in SOURCES if room(name_of(source)) in rooms]


def test_every_module_lies_in_a_known_room() -> None:
    assert len(SOURCES) > 40
    unknown = [str(one) for one in SOURCES if room(name_of(one)) not in [*ROOMS, None]]
    assert unknown == []


def test_imports_point_downward_only() -> None:
    upward = []
    for source in SOURCES:
        own = room(name_of(source))
        for one in imports(source):
            other = room(one.module) if one.module.split(".")[0] == "stx_mine" else None
            if own is None or other is None:
                continue
            if ROOMS.index(other) < ROOMS.index(own):
                upward.append(one.place)
    assert upward == []


def test_the_package_itself_loads_nothing() -> None:
    """What it offers is loaded when it is used: see `test_help_loads_no_heavy_library`."""
    body = ast.parse((PACKAGE / "__init__.py").read_text("utf-8")).body
    modules = [one.module for one in body if isinstance(one, ast.ImportFrom)]
    assert modules == ["typing"]
    assert stx_mine.PackedBatchSampler is PackedBatchSampler
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        stx_mine.Nothing  # noqa: B018


def stray_imports(sources: list[Path], allowed: set[str]) -> list[str]:
    """Imports of other modules than the standard library's and the allowed ones."""
    stray = []
    for source in sources:
        for one in imports(source):
            parts = one.module.split(".")
            prefixes = {".".join(parts[:depth]) for depth in range(1, len(parts) + 1)}
            if parts[0] not in sys.stdlib_module_names and not prefixes & allowed:
                stray.append(one.place)
    return stray


@pytest.mark.parametrize(
    ("rooms", "allowed"),
    [
        (("core",), {"numpy", "numba", "stx_mine.core"}),
        (("masking",), set()),
        (("interrupts",), set()),
        (("progress",), {"numba", "tqdm"}),
        (("__main__",), {"stx_mine"}),
        (("errors",), {"stx_mine.masking"}),
        (("settings",), {"stx_mine.errors"}),
        (("store",), {"numpy", "pyarrow", "xxhash", "filelock", "yaml", "stx_mine"}),
        (("inputs",), {"huggingface_hub", "numpy", "pyarrow", "stx_mine"}),
        (("engine",), {"ray", "stx_mine"}),
        (("pipeline",), {"stx_mine"}),
        (("cli",), {"typer", "stx_mine"}),
    ],
)
def test_a_room_touches_only_what_it_may(rooms: tuple[str, ...], allowed: set[str]) -> None:
    assert sources_of(*rooms)
    assert stray_imports(sources_of(*rooms), allowed) == []


def core_sources() -> list[Path]:
    """Every module below a folder `core`."""
    return [source for source in SOURCES if "core" in source.relative_to(PACKAGE).parts]


def config_sources() -> list[Path]:
    """Every `config.py`."""
    return [source for source in SOURCES if source.name == "config.py"]


def test_cores_import_only_numpy_numba_and_cores() -> None:
    assert len({source.parent for source in core_sources()}) > 8
    own = {name_of(source) for source in core_sources()}
    assert stray_imports(core_sources(), {"numpy", "numba", *own}) == []


def test_configs_import_only_settings_errors_and_configs() -> None:
    own = {name_of(source) for source in config_sources()}
    assert {f"stx_mine.stages.{name}.config" for name in SLICES} <= own
    assert stray_imports(config_sources(), {"stx_mine.settings", "stx_mine.errors", *own}) == []


def test_core_reads_no_environment_clock_or_file() -> None:
    forbidden = {"os", "sys", "time", "datetime", "pathlib", "random", "io", "shutil", "tempfile"}
    found = [one.place for source in core_sources() for one in imports(source)]
    assert found
    stray = [
        one.place
        for source in core_sources()
        for one in imports(source)
        if one.module.split(".")[0] in forbidden
    ]
    assert stray == []


def test_the_packed_sampler_imports_nothing_of_stx_mine() -> None:
    source = PACKAGE / "stages" / "train" / "packed_sampler.py"
    found = {one.module.split(".")[0] for one in imports(source)}
    assert "torch" in found
    assert found - set(sys.stdlib_module_names) == {"torch"}


def test_the_packed_sampler_runs_without_the_package(tmp_path: Path) -> None:
    alone = tmp_path / "packed_sampler.py"
    alone.write_bytes((PACKAGE / "stages" / "train" / "packed_sampler.py").read_bytes())
    code = (
        "import sys; sys.modules['stx_mine'] = None; sys.path.insert(0, sys.argv[1])\n"
        "from packed_sampler import PackedBatchSampler\n"
        "print(list(PackedBatchSampler(range(6), 2, packed_batch_size=2)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[[0, 1], [2, 3], [4, 5]]"


def dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def calls(source: Path) -> Iterator[tuple[str, str]]:
    """(dotted name, place) of every call in a file."""
    for node in ast.walk(ast.parse(source.read_text("utf-8"))):
        if isinstance(node, ast.Call):
            place = f"{source.relative_to(PACKAGE)}:{node.lineno} {dotted(node.func)}"
            yield dotted(node.func), place


def test_only_the_command_line_prints() -> None:
    printing = {
        "print",
        "typer.echo",
        "typer.secho",
        "click.echo",
        "sys.stdout.write",
        "sys.stderr.write",
        "rich.print",
    }
    found = {
        place: source.name
        for source in SOURCES
        for name, place in calls(source)
        if name in printing
    }
    assert set(found.values()) == {"cli.py"}
    uses_stdout = [
        f"{source.relative_to(PACKAGE)}:{node.lineno}"
        for source in SOURCES
        if source.name != "cli.py"
        for node in ast.walk(ast.parse(source.read_text("utf-8")))
        if isinstance(node, ast.Attribute) and dotted(node) == "sys.stdout"
    ]
    assert uses_stdout == []


def test_nothing_unsafe_is_read() -> None:
    modules = {one.module.split(".")[0]: one.place for source in SOURCES for one in imports(source)}
    assert not {"pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"} & set(modules)
    unsafe = {"yaml.load", "yaml.unsafe_load", "yaml.full_load", "torch.load", "eval", "exec"}
    assert [place for s in SOURCES for name, place in calls(s) if name in unsafe] == []
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text("utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert isinstance(node.value, ast.Constant)
                assert node.value.value is False, source


def test_no_broad_or_silent_except() -> None:
    found = []
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text("utf-8"))):
            if isinstance(node, ast.ExceptHandler):
                caught = ast.unparse(node.type) if node.type else "everything"
                empty = all(isinstance(one, ast.Pass | ast.Continue) for one in node.body)
                if caught in ("everything", "Exception", "BaseException") or empty:
                    found.append(f"{source.relative_to(PACKAGE)}:{node.lineno} except {caught}")
    assert found == []


def test_files_of_artifacts_are_opened_by_their_manifest() -> None:
    """`Manifest.file` knows their sizes; a path that is put together knows nothing."""
    joined = re.compile(
        r"\b(?:manifest|texts|groups|grouping|embeddings|index|negatives|batches|model|evaluation)"
        r"\.folder\s*/"
    )
    # What these name is shown, or sent with its checksum, or looked at after it was checked.
    allowed = {"report.py", "storage.py", "artifacts.py"}
    found = [
        str(source.relative_to(PACKAGE))
        for source in SOURCES
        if joined.search(source.read_text("utf-8"))
    ]
    assert {Path(one).name for one in found} <= allowed, found


def test_what_numba_compiles_lets_other_threads_run() -> None:
    """The thread that ends the program after a signal is one of them."""
    found = [
        (source.name, ast.unparse(node))
        for source in SOURCES
        for node in ast.walk(ast.parse(source.read_text("utf-8")))
        if isinstance(node, ast.Call) and dotted(node.func) == "numba.njit"
    ]
    assert len(found) > 40
    assert [one for one in found if "nogil=True" not in one[1]] == []


def test_global_randomness_is_not_used() -> None:
    found = [
        place
        for source in SOURCES
        for name, place in calls(source)
        if name.startswith(("np.random.", "numpy.random.", "random."))
        and not name.endswith((".default_rng", ".SeedSequence", ".Generator"))
    ]
    assert found == []
    assert not any(one.module == "random" for s in SOURCES for one in imports(s))


def test_every_module_says_what_it_is_for() -> None:
    silent = [str(one) for one in SOURCES if not ast.get_docstring(ast.parse(one.read_text()))]
    assert silent == []


# --- sizes, names, addresses ---

# A loop nest that Numba compiles is one function: calls inside it cost, closures it cannot take.
LONG_FUNCTIONS = {
    ("stages/mine/core/select.py", "_select"),
    ("stages/pack/core/strict_fill.py", "_fill"),
    ("stages/pack/core/strict_rows.py", "_describe"),
}
# A format of what people bring has its address by what it is, not by who reads it.
FLOORS_OF_ONE_SLICE = {"inputs"}


def test_no_file_and_no_function_is_long() -> None:
    files, functions = [], set()
    for source in SOURCES:
        text = source.read_text("utf-8")
        limit = 200 if source.name == "stage.py" else 400
        if len(text.splitlines()) > limit:
            files.append(str(source.relative_to(PACKAGE)))
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= 60:
                functions.add((str(source.relative_to(PACKAGE)), node.name))
    assert files == []
    assert functions == LONG_FUNCTIONS


def test_closing_sentences_are_made_in_report_modules_only() -> None:
    makers = {
        source.relative_to(PACKAGE).as_posix()
        for source in SOURCES
        for name, _ in calls(source)
        if name in ("make_report", "StageReport")
    }
    assert {f"stages/{name}/report.py" for name in SLICES} <= makers
    assert {Path(one).name for one in makers} <= {"report.py", "stage_report.py"}


def public_names(source: Path) -> Iterator[str]:
    """Names that a module defines at its top level, without an underscore in front."""
    for node in ast.parse(source.read_text("utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names = [node.name]
        elif isinstance(node, ast.Assign):
            names = [one.id for one in node.targets if isinstance(one, ast.Name)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names = [node.target.id]
        else:
            names = []
        yield from (name for name in names if not name.startswith("_"))


def test_no_two_public_names_are_alike() -> None:
    places: dict[str, list[str]] = {}
    for source in SOURCES:
        for name in public_names(source):
            places.setdefault(name, []).append(name_of(source))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_a_module_of_the_floors_has_more_than_one_user() -> None:
    """What one slice uses lies in that slice; with a second user it moves down."""
    users: dict[str, set[str | None]] = {}
    for source in SOURCES:
        for one in imports(source):
            users.setdefault(one.module, set()).add(room(name_of(source)))
    floors = {"engine", "models", "search", "store", "core", *FLOORS_OF_ONE_SLICE}
    alone = []
    for source in SOURCES:
        module = name_of(source)
        if room(module) not in floors or source.name == "__init__.py":
            continue
        slices = users.get(module, set())
        assert slices, f"{module} has no user"
        if len(slices) == 1 and slices != {room(module)}:
            alone.append((module, *slices))
    assert [one for one in alone if room(one[0]) not in FLOORS_OF_ONE_SLICE] == []


def test_every_verdict_has_a_rule_whose_options_mine_has() -> None:
    declared = {one.name: one for one in fields(COMMANDS["mine"].config)}
    assert set(RULES) == set(Verdict)
    for rule in RULES.values():
        assert rule.off.keys() <= declared.keys()
        # Every one is a value that its option takes, and by it the rule is off.
        config = COMMANDS["mine"].config(**rule.off)
        assert rule.off == {name: getattr(config, name) for name in rule.off}


# --- options ---

GROUP = typer.main.get_command(command_line.app)


def options(command: str) -> dict[str, click.Parameter]:
    assert isinstance(GROUP, click.Group) or hasattr(GROUP, "commands")
    return {one.name: one for one in GROUP.commands[command].params if one.name != "help"}


@pytest.mark.parametrize("command", list(COMMANDS))
def test_an_option_is_a_config_field(command: str) -> None:
    declared = {one.name: one for one in fields(COMMANDS[command].config)}
    shown = options(command)
    assert set(shown) == set(declared)
    for name, one in declared.items():
        assert one.metadata["help"].strip().endswith((".", ")")), name
        # Choices that are too long to stand beside an option stand behind its sentence.
        told = shown[name].help.replace(r"\[", "[").partition(" One of ")[0]
        assert told == one.metadata["help"]
        if one.metadata["argument"]:
            assert shown[name].param_type_name == "argument"
        else:
            assert set(shown[name].opts) == {"--" + name.replace("_", "-")}
            assert shown[name].secondary_opts == []


@pytest.mark.parametrize("command", list(COMMANDS))
def test_conditions_of_options_name_fields_and_words(command: str) -> None:
    config_type = COMMANDS[command].config
    hints = get_type_hints(config_type)
    for one in fields(config_type):
        for condition in (*one.metadata["needs"], *one.metadata["conflicts"]):
            names, equals, values = condition.partition("=")
            assert set(names.split("|")) <= set(hints), (one.name, condition)
            if equals:
                assert set(values.split("|")) <= set(words_of(hints[names])), (one.name, condition)


@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_option_stands_under_a_heading(command: str) -> None:
    assert all(one.metadata["group"] for one in fields(COMMANDS[command].config))


@pytest.mark.parametrize("command", list(COMMANDS))
def test_help_has_a_line_for_every_option(command: str, cli_here: Cli) -> None:
    done = cli_here(command, "--help")
    assert done.code == 0
    for name, one in options(command).items():
        shown = name.upper() if one.param_type_name == "argument" else one.opts[0]
        # Long names are cut where the terminal is narrow.
        assert shown[:20].lower() in done.stdout.lower()


def test_every_command_has_a_slice_and_every_slice_a_command() -> None:
    assert set(GROUP.commands) == {*COMMANDS, "run", "version"}
    entered = {one.entry.partition(".")[0] for one in COMMANDS.values()}
    folders = {path.name for path in (PACKAGE / "stages").iterdir() if path.is_dir()}
    assert entered == set(SLICES) == folders - {"__pycache__"}


@pytest.mark.parametrize("command", list(COMMANDS))
def test_the_entry_of_a_command_runs_its_config(command: str) -> None:
    module, _, function = COMMANDS[command].entry.partition(":")
    entry = getattr(import_module(f"stx_mine.stages.{module}"), function)
    assert get_type_hints(entry)["config"] is COMMANDS[command].config


def test_a_field_affects_artifacts_that_exist() -> None:
    from stx_mine.store.kinds import KINDS

    for config_type in (one.config for one in COMMANDS.values()):
        for one in fields(config_type):
            assert set(one.metadata["affects"]) <= set(KINDS), one.name


@pytest.mark.parametrize("config_type", [one.config for one in COMMANDS.values()])
def test_execution_fields_affect_no_artifact(config_type: type[StageConfig]) -> None:
    execution = {
        "run_dir",
        "overwrite",
        "check",
        "device",
        "encode_batch_size",
        "batch_tokens",
        "activation_share",
        "batches_at_once",
        "workers",
        "min_overlap",
        "passage_block",
        "generate_batch_size",
        "chunk_rows",
        "corpus_parts",
        "engine",
        "task",
        "checkpoint_steps",
        "report_to",
    }
    for one in fields(config_type):
        if one.name in execution:
            assert one.metadata["affects"] == ()
        elif config_type in (VerifyConfig, DiffConfig, ShowConfig, CalibrateConfig, InitConfig):
            # They write nothing. How rows of others are read affects the texts of other commands.
            shared = one.name in names_of(SourceFields)
            assert shared or one.metadata["affects"] == ()
        elif one.name in ("seed", "k", "model", "batch_size", "relative_margin"):
            assert one.metadata["affects"]


# --- help is quick ---


@pytest.mark.parametrize("args", [("--help",), ("mine", "--help"), ("version",)])
def test_help_loads_no_heavy_library(args: tuple[str, ...]) -> None:
    code = (
        "import atexit, sys\n"
        "sys.argv = ['stx-mine', *sys.argv[1:]]\n"
        "heavy = ('torch', 'transformers', 'sentence_transformers', 'datasets', 'faiss', 'numba',"
        " 'pyarrow', 'numpy')\n"
        "from stx_mine.cli import main\n"
        "loaded = lambda: ' '.join(one for one in heavy if one in sys.modules)\n"
        "atexit.register(lambda: sys.stderr.write(loaded()))\n"
        "main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *args],
        capture_output=True,
        text=True,
        check=True,
        env=cli_environment(),
    )
    assert done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("commands", "never"),
    [
        (
            "init queries split ingest dedup export pack show verify diff report publish fetch",
            "torch transformers sentence_transformers datasets",
        ),
        ("index calibrate mine audit", "transformers sentence_transformers datasets"),
    ],
)
def test_a_command_imports_no_library_before_it_needs_it(commands: str, never: str) -> None:
    """torch takes a second or two, sentence-transformers ten."""
    code = (
        "import sys\n"
        "from stx_mine.commands import stage_of\n"
        "for name in sys.argv[1].split():\n"
        "    stage_of(name)\n"
        "    print(name, *(one for one in sys.argv[2].split() if one in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, commands, never],
        capture_output=True,
        text=True,
        check=True,
        env=cli_environment(),
    )
    assert done.stdout.splitlines() == commands.split()


def test_help_answers_within_a_second() -> None:
    """Of processor time, which other work on the machine does not stretch."""
    taken = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            cli_command("--help"), capture_output=True, check=True, env=cli_environment()
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    assert min(taken) < 1, taken


def test_the_console_script_is_the_command_line(repo_root: Path) -> None:
    script = Path(sys.executable).with_name("stx-mine")
    if not script.exists():
        pytest.skip("stx-mine is not installed beside this interpreter")
    for words in ("version", "--version"):
        done = subprocess.run(
            [script, words], capture_output=True, text=True, check=True, env=dict(os.environ)
        )
        assert done.stdout.strip() == command_line.__version__

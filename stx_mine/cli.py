"""The command line: argv -> one config -> one stage; errors -> one line and an exit code.

Nothing else in the package prints. Stages, and torch with them, are imported when they run.
"""

import inspect
import logging
import os
import re
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from shlex import quote
from types import TracebackType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    NoReturn,
    get_type_hints,
)

import typer

from stx_mine import __version__
from stx_mine.commands import COMMANDS, stage_of
from stx_mine.engine.config import EngineConfig
from stx_mine.errors import (
    ConfigError,
    StxMineError,
    TaskShardsLeftError,
    did_you_mean,
    of_the_machine,
    one_line,
)
from stx_mine.interrupts import Interrupted, watched
from stx_mine.options import completed, given_values, parameter_of
from stx_mine.settings import StageConfig, in_order_of_help

if TYPE_CHECKING:
    from stx_mine.store.stage_report import StageReport

# Of typer's own copy of click, or of click.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]
_NOT_ONE_OF = re.compile(r"'([^']*)' is not one of (.*)$")
_RUN_KEPT = "finished stages and files stay, the same command continues where it stopped"
app = typer.Typer(
    name="stx-mine",
    help="Turn (query, passage) pairs into training data for embedding models, offline.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Run the command line; whatever is no mistake of ours ends in one line on stderr."""
    with watched(_after_signal) as watch:
        try:
            with _MachineAtFault():
                _run(sys.argv[1:])
        except Interrupted:
            watch.say()
            sys.exit(watch.exit_code)
        except TaskShardsLeftError as left:
            typer.echo(f"stx-mine: {left}")
        except StxMineError as error:
            _fail(error)
        except _UsageError as error:
            _fail(_of_usage(error))


class _MachineAtFault:
    """Names what a disk, a device or memory did to whichever library; other errors pass."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        named = of_the_machine(error) if isinstance(error, Exception) else None
        if named is not None:
            raise named from error


def _run(words: list[str]) -> None:
    """Run the command that words name; typer itself would answer some errors in its own way."""
    sys.excepthook = _report
    command = typer.main.get_command(app)
    if words and words[0] in COMMANDS:
        words = [words[0], *completed(words[1:], COMMANDS[words[0]].config)]
    try:
        with command.make_context("stx-mine", words) as context:
            command.invoke(context)
        sys.stdout.flush()
    except typer.Exit as left:
        if left.exit_code:
            sys.exit(left.exit_code)
    except BrokenPipeError:
        # Whoever read what is printed has seen enough; the rest goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(error: StxMineError) -> NoReturn:
    if _speaks():
        sys.stderr.write(f"stx-mine: error: {error}\n")
    sys.exit(error.exit_code)


def _of_usage(error: Any) -> ConfigError:
    """What is wrong with the words of a command line, as one line."""
    said = one_line(error.format_message()).replace("Value error, ", "").rstrip(".")
    where = error.ctx.command_path if error.ctx else "stx-mine"
    if found := _NOT_ONE_OF.search(said):
        said += did_you_mean(found[1], re.findall(r"'([^']*)'", found[2]))
    return ConfigError(f"{said[:1].lower()}{said[1:]}; see `{where} --help`")


def _report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Show a mistake of the program in full."""
    sys.__excepthook__(kind, error, trace)
    sys.stderr.write(
        f"stx-mine: this is a bug of stx-mine {__version__}; please report it with the lines "
        "above. Finished files stay\n"
    )


def _after_signal(name: str) -> str:
    """What stays after a signal, and how to go on."""
    command = COMMANDS.get(" ".join(sys.argv[1:2]))
    kept = _RUN_KEPT if command is None else command.after_signal
    return f"interrupted by {name}; {kept}"


def run_stage(name: str, config: StageConfig) -> "StageReport":
    """Import a stage and run it."""
    quiet()
    _refuse_lost_directory()
    return stage_of(name)(config)


def _refuse_lost_directory() -> None:
    """Refuse to work in a directory that was removed, where no path means anything.

    Raises:
        ConfigError: It was.
    """
    try:
        Path.cwd()
    except FileNotFoundError as error:
        raise ConfigError(
            "expected to run in a directory, found that it was removed; change to one that is there"
        ) from error


def quiet() -> None:
    """Keep other libraries' notices away from the user; errors still come through."""
    if not sys.stderr.isatty():
        # tqdm reads it when it is imported, ours and that of other libraries.
        os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module="torch|transformers")
    for library in ("sentence_transformers", "datasets", "transformers", "accelerate"):
        logging.getLogger(library).setLevel(logging.ERROR)


def _speaks() -> bool:
    """Whether this call does work of its own: not where torchrun's first process speaks for all."""
    command = COMMANDS.get(" ".join(sys.argv[1:2]))
    shares = command is not None and issubclass(command.config, EngineConfig)
    return shares or os.environ.get("RANK", "0") == "0"


def show(report: "StageReport", seconds: float | None = None) -> None:
    """Print the summary of a stage to stdout, its warnings to stderr."""
    if not _speaks():
        return
    if report.document:
        typer.echo(report.document)
        return
    for part in report.parts:
        show(part)
    state = "done before, skipped" if report.skipped else "done"
    took = "" if seconds is None or report.skipped else f" in {seconds:.1f} s"
    where = f" -> {report.folder}/" if report.folder else ""
    typer.echo(f"{report.stage}: {state}{took}{where}")
    for line in report.lines:
        typer.echo(f"  {line}")
    for line in report.warnings:
        typer.echo(f"  warning: {line}", err=True)


def _command(name: str, config_type: type[StageConfig]) -> Callable[..., None]:
    """A function whose parameters are the fields of a config."""

    def command(**values: Any) -> None:
        given: dict[str, Any] = {
            key: given_values(v) if isinstance(v, list) else v for key, v in values.items()
        }
        started = time.monotonic()
        report = run_stage(name, config_type(**given))
        show(report, time.monotonic() - started)

    hints = get_type_hints(config_type)
    declared = [parameter_of(one, hints[one.name]) for one in in_order_of_help(config_type)]
    declared.sort(key=lambda one: one.kind)
    command.__signature__ = inspect.Signature(declared)  # type: ignore[attr-defined]
    command.__doc__ = config_type.__doc__
    return command


for _name, _one in COMMANDS.items():
    app.command(_name, help=_one.config.__doc__, rich_help_panel=_one.panel)(
        _command(_name, _one.config)
    )


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Print the version.",
            metavar="",
            is_eager=True,
            callback=_print_version,
        ),
    ] = False,
) -> None:
    """What is asked before any command."""


@app.command("run")
def run_command(
    file: Annotated[str, typer.Argument(help="A pipeline file (YAML).", show_default=False)],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override a field, as in --set mine.k=4; repeatable."),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace what was made with other settings.", metavar=""),
    ] = False,
) -> None:
    """Run the stages of a pipeline file in order, skipping what is finished."""
    from stx_mine.pipeline import load_pipeline, run_pipeline

    pipeline = load_pipeline(file, overrides or [], overwrite)
    started = time.monotonic()
    for title, report, seconds in run_pipeline(pipeline, run_stage):
        if title:
            typer.echo(title)
        show(report, seconds)
    typer.echo(f"everything is in {pipeline.run_dir}/ ({time.monotonic() - started:.0f} s)")
    if "mine" in pipeline.settings:
        typer.echo(
            f"look at it: `stx-mine show --run-dir {quote(pipeline.run_dir)} --suspects`; your own "
            "data: `stx-mine init PAIRS --run-dir my-run`"
        )


@app.command("version")
def version_command() -> None:
    """Print the version."""
    typer.echo(__version__)

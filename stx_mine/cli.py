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
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import count
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

from stx_mine import __version__, progress
from stx_mine.commands import COMMANDS, LOOK, Command, stage_of
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
_COMPLETION = "_STX_MINE_COMPLETE"
# Options of the program itself.
_ANYWHERE = ("--quiet", "--verbose")
_EPILOG = "--quiet and --verbose go with every command."


@dataclass
class _Output:
    """How much is printed.

    Attributes:
        quiet: Nothing but warnings, errors and what a command is there to show.
        verbose: Also what each part of a command took.
    """

    quiet: bool = False
    verbose: bool = False

    @property
    def shows_progress(self) -> bool:
        """Whether it is said what a command is at."""
        return _speaks() and not self.quiet


_output = _Output()
app = typer.Typer(
    name="stx-mine",
    help="Turn (query, passage) pairs into training data for embedding models, offline.",
    no_args_is_help=True,
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
    program = typer.main.get_command(app)
    for command in (program, *program.commands.values()):  # type: ignore[attr-defined]
        _show_no_type_of_flags(command)
    if _COMPLETION in os.environ:
        # A shell asks what may follow.
        program(prog_name="stx-mine")
    own, words = [w for w in words if w in _ANYWHERE], _without_own(words)
    if words and words[0] in COMMANDS:
        words = [words[0], *completed(words[1:], COMMANDS[words[0]].config)]
    try:
        with program.make_context("stx-mine", [*own, *words]) as context:
            program.invoke(context)
        sys.stdout.flush()
    except typer.Exit as left:
        if left.exit_code:
            sys.exit(left.exit_code)
    except BrokenPipeError:
        # Whoever read what is printed has seen enough; the rest goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _show_no_type_of_flags(command: Any) -> None:
    """Have the help show `--flag`, not `--flag <bool>`, also where typer made the option."""
    for option in command.get_params(typer.Context(command)):
        if getattr(option, "is_flag", False):
            option.metavar = ""


def _without_own(words: list[str]) -> list[str]:
    """Words without the options of the program that may stand anywhere."""
    return [word for word in words if word not in _ANYWHERE]


def _named_command() -> Command | None:
    """The command that was named; None for none of the table."""
    return COMMANDS.get(" ".join(_without_own(sys.argv[1:])[:1]))


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
    command = _named_command()
    kept = _RUN_KEPT if command is None else command.after_signal
    return f"interrupted by {name}; {kept}"


def run_stage(name: str, config: StageConfig, place: str = "") -> "StageReport":
    """Import a stage and run it.

    Args:
        name: Of its command.
        config: Its options.
        place: Where it stands in a pipeline, as in "2 of 5".
    """
    quiet()
    _refuse_lost_directory()
    title = f"{name} ({place})" if place else name
    with progress.display(title, _output.verbose) if _output.shows_progress else nullcontext():
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
    # Bars of other libraries, which would share the line with ours.
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
    command = _named_command()
    shares = command is not None and issubclass(command.config, EngineConfig)
    return shares or os.environ.get("RANK", "0") == "0"


def show(report: "StageReport", seconds: float | None = None, asked: bool = False) -> None:
    """Print the summary of a stage to stdout, its warnings to stderr.

    Args:
        report: The summary.
        seconds: What the stage took.
        asked: Whether it is what was asked for, so that it is printed in any case.
    """
    if not _speaks():
        return
    if report.document:
        typer.echo(report.document)
        return
    for part in report.parts:
        show(part)
    if asked or not _output.quiet:
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
        show(report, time.monotonic() - started, asked=COMMANDS[name].panel == LOOK)

    hints = get_type_hints(config_type)
    declared = [parameter_of(one, hints[one.name]) for one in in_order_of_help(config_type)]
    declared.sort(key=lambda one: one.kind)
    command.__signature__ = inspect.Signature(declared)  # type: ignore[attr-defined]
    command.__doc__ = config_type.__doc__
    return command


for _name, _one in COMMANDS.items():
    app.command(_name, help=_one.config.__doc__, rich_help_panel=_one.panel, epilog=_EPILOG)(
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
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet", help="Print warnings, errors and what is looked at only.", metavar=""
        ),
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Print what each part took too.", metavar="")
    ] = False,
) -> None:
    """What is asked before any command."""
    if quiet and verbose:
        raise ConfigError("expected --quiet or --verbose, found both; leave one out")
    _output.quiet, _output.verbose = quiet, verbose


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
    from stx_mine.pipeline import load_pipeline, pipeline_steps, run_pipeline

    pipeline = load_pipeline(file, overrides or [], overwrite)
    started = time.monotonic()
    total, numbers = sum(1 for _ in pipeline_steps(pipeline)), count(1)

    def run_numbered(name: str, config: StageConfig) -> "StageReport":
        return run_stage(name, config, f"{next(numbers)} of {total}")

    for title, report, seconds in run_pipeline(pipeline, run_numbered):
        if title and not _output.quiet:
            typer.echo(title)
        show(report, seconds)
    if _output.quiet:
        return
    typer.echo(f"everything is in {pipeline.run_dir}/ ({time.monotonic() - started:.0f} s)")
    if "mine" in pipeline.settings:
        typer.echo(
            f"look at it: `stx-mine show --run-dir {quote(pipeline.run_dir)} --suspects`, "
            f"`stx-mine report --run-dir {quote(pipeline.run_dir)}`"
        )


@app.command("version")
def version_command() -> None:
    """Print the version."""
    typer.echo(__version__)

"""Each option of each command, with values that it cannot have: one line, exit code 2, no file."""

from collections.abc import Iterator
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from conftest import Cli

from stx_mine.commands import COMMANDS
from stx_mine.settings import flag, words_of


def bad_values(one: "Field[Any]", hint: Any) -> Iterator[str]:
    """Values that no option of a type can have."""
    kinds = get_args(hint) or (hint,)
    if words_of(hint):
        yield "nonsense"
    if int in kinds or (kinds and get_args(kinds[0]) == (int,)):
        yield from ("many", "1.5", "99999999999999999999", "1e3", "")
    if float in kinds:
        yield from ("many", "nan", "inf", "1,5", "")
    if str in kinds and not one.metadata["empty"] and one.default != "":
        yield from ("", "  ", "a\udc80b")


def bad_words(command: str) -> list[list[str]]:
    """What may stand behind a command, all of it wrong."""
    config = COMMANDS[command].config
    hints = get_type_hints(config)
    found = []
    for one in fields(config):
        for value in bad_values(one, hints[one.name]):
            found.append([value] if one.metadata["argument"] else [flag(one), value])
    return found


def refuses(cli_here: Cli, command: str, words: list[str]) -> None:
    done = cli_here(command, *words)
    assert len(done.error) < 1_000, done
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize("command", list(COMMANDS))
def test_a_bad_value_is_refused(
    command: str, cli_here: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refuses(cli_here, command, bad_words(command)[-1])
    refuses(cli_here, command, ["--no-such-option", "1"])


@pytest.mark.slow
@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_bad_value_of_every_option_is_refused(
    command: str, cli_here: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = bad_words(command)
    assert len(words) >= len(fields(COMMANDS[command].config))
    for one in words:
        refuses(cli_here, command, one)

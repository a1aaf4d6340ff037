"""How a field of a config becomes an option of the command line: its type, its word in the help."""

import inspect
from collections.abc import Callable
from dataclasses import Field, fields
from enum import StrEnum
from itertools import zip_longest
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer

from stx_mine.errors import ConfigError
from stx_mine.inputs.config import MANY_SOURCES, Source
from stx_mine.settings import flag, may_be_none, words_of

# Choices that stand beside an option in the help; longer ones stand in its sentence.
_WIDEST = 28
# What stands for an option that was given without a value.
_ALONE = "true"


def given_values(values: list[Any]) -> tuple[Any, ...]:
    """The values of a repeated option; one that was given as a list brings several."""
    return tuple(
        _plain(single)
        for value in values
        for single in (value if isinstance(value, tuple) else (value,))
    )


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, StrEnum) else value


def _enumeration(name: str, words: tuple[str, ...]) -> Any:
    return StrEnum(name, [(word, word) for word in words])


def parameter_of(one: "Field[Any]", hint: Any) -> inspect.Parameter:
    """The parameter of a command, as typer reads it, for a field of a config.

    Args:
        one: The field.
        hint: Its type.
    """
    default: Any = one.default
    kind: Any = inspect.Parameter.KEYWORD_ONLY
    metavar, words = "" if hint is bool else None, words_of(hint)
    if get_origin(hint) is tuple:
        member, default = get_args(hint)[0], list(one.default)  # type: ignore[arg-type]
        if get_origin(member) is Literal:
            # typer takes no lists of literals.
            member = _enumeration(one.name, get_args(member))
            default = list(map(member, default))
        hint = list[member]  # type: ignore[valid-type]
    # typer reads markup in square brackets, as in stx-mine[ray].
    help_text, panel = one.metadata["help"].replace("[", r"\["), one.metadata["group"]
    if len("|".join(words)) > _WIDEST:
        metavar = "<word>"
        unnamed = [word for word in words if word not in help_text]
        help_text += f" One of {', '.join(words)}." if unnamed else ""
    if one.metadata["argument"]:
        info = typer.Argument(help=help_text, show_default=False, rich_help_panel=panel)
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    else:
        info = typer.Option(
            flag(one),
            help=help_text,
            metavar=metavar,
            rich_help_panel=panel,
            show_default=default not in (None, [], False),
            parser=_parser(one, hint),
        )
        # What a parser makes of a word is its own affair.
        hint = str | None if hint == MANY_SOURCES else hint
        hint = str if _words(hint) or hint == bool | str else hint
    return inspect.Parameter(one.name, kind, default=default, annotation=Annotated[hint, info])


def _parser(one: "Field[Any]", hint: Any) -> Callable[[Any], Any] | None:
    """What turns a word into the value of a field, where typer cannot."""
    if hint == MANY_SOURCES:
        return _sources_of_file
    if hint in (list[int], list[float]):
        return _several(get_args(hint)[0])
    if hint == bool | str:
        return _switch_or_text
    if words := _words(hint):
        return _number_or_one_of(words)
    kinds = [kind for kind in (get_args(hint) or (hint,)) if kind in _NUMBERS]
    return _number(one, kinds[0], _can_be_switched_off(one, hint)) if kinds else None


def _words(hint: Any) -> tuple[str, ...]:
    """The words that may stand for a number, as in `Literal["auto"] | float`."""
    return words_of(hint) if float in get_args(hint) else ()


def _number_or_one_of(words: tuple[str, ...]) -> Callable[[Any], Any]:
    """What reads a number, or one of some words."""

    def parse(word: str | float) -> str | float:
        if word in words:
            return word
        try:
            return float(word)
        except ValueError as error:
            expected = f"{', '.join(words)} or a number"
            raise ConfigError(f"expected {expected}, found {word!r}; give one of them") from error

    # What the help calls the value.
    parse.__name__ = "|".join((*words, "float"))
    return parse


def _sources_of_file(path: str) -> tuple[Source, ...]:
    from stx_mine.inputs.stage_settings import load_sources

    return load_sources(path)


def _switch_or_text(word: str | bool) -> str | bool:
    """The value of an option that may stand alone."""
    return True if word == _ALONE else word


def completed(words: list[str], config_type: type) -> list[str]:
    """The words of a command line, where options that may stand alone, and do, have a value.

    Args:
        words: Those behind the command.
        config_type: The config of the command.
    """
    hints = get_type_hints(config_type)
    alone = {flag(one) for one in fields(config_type) if hints[one.name] == bool | str}
    return [
        f"{word}={_ALONE}" if word in alone and (after is None or after.startswith("-")) else word
        for word, after in zip_longest(words, words[1:])
    ]


def _several(kind: type) -> Callable[[str], tuple[Any, ...]]:
    """What reads numbers between commas."""

    def parse(words: str) -> tuple[Any, ...]:
        try:
            return tuple(kind(word) for word in words.split(","))
        except ValueError as error:
            wanted, example = ("whole numbers", "64,128") if kind is int else ("numbers", "1,0.5")
            raise ConfigError(
                f"expected {wanted} between commas, found {words!r}; give such as {example}"
            ) from error

    parse.__name__ = _NUMBERS[kind][0]
    return parse


def _can_be_switched_off(one: "Field[Any]", hint: Any) -> bool:
    """Whether None means something else than the default, so that it needs a word."""
    return one.default is not None and may_be_none(hint)


# Kind of number -> what the help calls it, and what messages do.
_NUMBERS: dict[type, tuple[str, str]] = {
    int: ("integer", "a whole number"),
    float: ("float", "a number"),
}


def _number(one: "Field[Any]", kind: type, may_be_none: bool) -> Callable[[Any], Any]:
    """What reads a number, or the word none where that means something."""

    def parse(word: Any) -> Any:
        if may_be_none and word == "none":
            return None
        try:
            return kind(word)
        except ValueError as error:
            expected = f"{_NUMBERS[kind][1]}{' or none' if may_be_none else ''}"
            raise ConfigError(
                f"{flag(one)} must be {expected}, found {word!r}; give such a value"
            ) from error

    parse.__name__ = _NUMBERS[kind][0]
    return parse

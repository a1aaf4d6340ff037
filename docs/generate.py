"""Write the option tables of `docs/commands/` from the configs of the commands; see `make docs`.

A page holds its table between two markers. Whatever stands there is replaced, the rest is kept.
"""

from dataclasses import Field, fields
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from stx_mine.commands import COMMANDS
from stx_mine.inputs.config import MANY_SOURCES
from stx_mine.settings import StageConfig, flag, names_of, words_of

PAGES = Path(__file__).resolve().parent / "commands"
BEGIN, END = "<!-- options -->", "<!-- end of options -->"
ARGUMENTS, COMMON, OTHER = "Arguments", "Common", "Options"
# Groups that close a table, in this order.
LAST = ("Where it runs", COMMON)
_NAMES = {int: "integer", float: "number", str: "text", bool: "switch"}
_HEAD = ("| option | value | default | |", "|---|---|---|---|")


def option_tables(config_type: type[StageConfig]) -> str:
    """The tables of a command: one per group of options, in the order of declaration.

    Args:
        config_type: The config of the command.

    Returns:
        Markdown without the markers, ending with a line break.
    """
    groups: dict[str, list[Field[Any]]] = {}
    for one in fields(config_type):
        groups.setdefault(_group(one), []).append(one)
    ordered = sorted(groups, key=_place)
    hints = get_type_hints(config_type)
    by_name = {one.name: one for one in fields(config_type)}
    tables = []
    for name in ordered:
        rows = (_row(one, hints[one.name], by_name) for one in groups[name])
        tables.append("\n".join([f"### {name}", "", *_HEAD, *rows]))
    return "\n\n".join(tables) + "\n"


def with_tables(page: str, config_type: type[StageConfig]) -> str:
    """A page with the tables of today between its markers.

    Raises:
        ValueError: The page has not one pair of markers.
    """
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(END) < page.index(BEGIN):
        raise ValueError(f"expected one {BEGIN} and one {END} after it")
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n\n{option_tables(config_type)}\n{END}{after}"


def main() -> None:
    """Renew the tables of all pages."""
    for name, command in COMMANDS.items():
        path = PAGES / f"{name}.md"
        path.write_text(with_tables(path.read_text("utf-8"), command.config), "utf-8")


def _group(one: "Field[Any]") -> str:
    if one.metadata["argument"]:
        return ARGUMENTS
    if one.name in names_of(StageConfig):
        return COMMON
    return one.metadata.get("group", "") or OTHER


def _place(group: str) -> int:
    """Arguments first, what most readers skip last."""
    return -1 if group == ARGUMENTS else LAST.index(group) + 1 if group in LAST else 0


def _row(one: "Field[Any]", hint: Any, by_name: dict[str, "Field[Any]"]) -> str:
    needs = "".join(f" Needs {_condition(text, by_name)}." for text in one.metadata["needs"])
    cells = (f"`{flag(one)}`", _value(hint, one.default), _default(one.default))
    return f"| {' | '.join(cells)} | {_escaped(one.metadata['help'])}{needs} |"


def _value(hint: Any, default: Any) -> str:
    """What an option takes."""
    if hint == MANY_SOURCES:
        return "YAML file"
    if get_origin(hint) is tuple:
        return f"{_value(get_args(hint)[0], ())}, repeatable"
    # None is a value of its own only where it is not what an option is without being given.
    off = ["`none`"] if NoneType in get_args(hint) and default is not None else []
    kinds = (hint, *get_args(hint)) if get_origin(hint) is not Literal else ()
    names = [_NAMES[kind] for kind in kinds if kind in _NAMES]
    return ", ".join([*(f"`{word}`" for word in words_of(hint)), *names, *off])


def _default(value: Any) -> str:
    """A default as one would type it; empty where an option is off or chosen by the command."""
    if value is None or value is False or value == ():
        return ""
    words = value if isinstance(value, tuple) else (value,)
    return f"`{' '.join(map(str, words))}`"


def _condition(text: str, by_name: dict[str, "Field[Any]"]) -> str:
    """A condition of `needs` in words; see `stx_mine.settings.option`."""
    name, _, values = text.partition("=")
    options = [flag(by_name[part]) for part in name.split("|")]
    words = [f"`{option} {value}`" for option in options for value in values.split("|")]
    return " or ".join(words if values else [f"`{option}`" for option in options])


def _escaped(text: str) -> str:
    """Plain text as a cell of a Markdown table."""
    for character in "\\|<*_":
        text = text.replace(character, "\\" + character)
    return text


if __name__ == "__main__":
    main()

"""How a field of a config becomes an option, a YAML key and a part of an artifact's key.

A config is a frozen dataclass whose fields are made by `option`. What a field needs, what it does
not go with and its range are declared beside it and checked in one place.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import Field, dataclass, field, fields, is_dataclass
from math import isfinite
from numbers import Integral, Real
from os import PathLike, fspath
from shlex import quote
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from stx_mine.errors import ConfigError, did_you_mean

T = TypeVar("T")
# The largest seed that everything takes which is seeded: NumPy, torch, Numba and FAISS.
MAX_SEED = 2**31 - 1
# Headings that stand last: how files are read, what changes no result, what every command takes.
FILES, WHERE, COMMON = "Model files", "Where it runs", "Common"


def option(
    default: T,
    help_text: str,
    affects: str = "",
    *,
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
    empty: bool = False,
    argument: bool = False,
    group: str = "",
    needs: str = "",
    conflicts: str = "",
    because: str = "",
    check: Callable[[T], str] | None = None,
) -> T:
    """Declare a config field.

    Args:
        default: The default value.
        help_text: One line for `--help`.
        affects: Space-separated names of the artifacts whose key holds this field.
        minimum: The smallest valid number (inclusive), if there is one. No number may be
            infinite, or not a number.
        above: A number that a valid one is larger than, if there is one.
        maximum: The largest valid number (inclusive), if there is one.
        empty: Whether an empty text means something; otherwise one is refused.
        argument: Whether the CLI takes it by position.
        group: The heading in `--help` under which it stands.
        needs: Space-separated conditions, all of which hold where the field is not at its
            default: `name` (another field is not at its default), `name=a|b` (it has one of these
            values, or a sum `a+c` of one), `name|other` (one of several fields is not at its
            default).
        conflicts: Space-separated conditions, none of which holds then.
        because: Why it does not go with what it conflicts with, as the end of a sentence.
        check: Says what is wrong with a value that is not the default, and what to do; an empty
            string where nothing is.

    Returns:
        A dataclass field, typed as its default.
    """
    metadata = {
        "help": help_text,
        "affects": tuple(affects.split()),
        "minimum": minimum,
        "above": above,
        "maximum": maximum,
        "empty": empty,
        "argument": argument,
        "group": group,
        "needs": tuple(needs.split()),
        "conflicts": tuple(conflicts.split()),
        "because": because,
        "check": check,
    }
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """What every stage takes."""

    run_dir: str = option("stx-run", "The run directory: one folder per artifact.", group=COMMON)
    overwrite: bool = option(
        False,
        "Replace what this command owns where it was made with other settings.",
        group=COMMON,
    )

    def __post_init__(self) -> None:
        """Check what is declared.

        A single string is a list of one where a list is expected, a path is a string, and a number
        is of the type that its field has: equal settings have equal keys.

        Raises:
            ConfigError: A value is of another type, is out of range, lacks what it needs, or
                conflicts with another.
        """
        hints = get_type_hints(type(self))
        for one in fields(self):
            object.__setattr__(self, one.name, _plain(getattr(self, one.name), hints[one.name]))
            _check_value(one, hints[one.name], getattr(self, one.name))
        for declared in given_fields(self):
            _check_needs(self, declared)
            _check_conflicts(self, declared)
            problem = declared.metadata["check"] and declared.metadata["check"](
                getattr(self, declared.name)
            )
            if problem:
                raise ConfigError(problem)


@dataclass(frozen=True, kw_only=True)
class ReadingConfig(StageConfig):
    """What every stage takes that reads artifacts."""

    check: Literal["once", "full"] = option(
        "once",
        "Checksums of what is read: once on this machine and when touched, or all of them (full).",
        group=COMMON,
    )


def given_fields(config: Any) -> Iterator["Field[Any]"]:
    """The fields of a config that are not at their default, in the order of declaration."""
    return (
        declared
        for declared in fields(config)
        if getattr(config, declared.name) != declared.default
    )


def words_of(hint: Any) -> tuple[str, ...]:
    """The words that a field of this type may be: of its `Literal`, wherever that stands."""
    if get_origin(hint) is Literal:
        return tuple(str(word) for word in get_args(hint))
    return tuple(word for part in get_args(hint) for word in words_of(part))


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of the type of a field."""
    origin = get_origin(hint)
    if origin in (UnionType, Union):
        return any(fits(value, part) for part in get_args(hint))
    if origin is Literal:
        return value in get_args(hint)
    if origin is tuple:
        return isinstance(value, tuple) and all(fits(one, get_args(hint)[0]) for one in value)
    if hint in (float, int):
        return isinstance(value, (int, hint)) and not isinstance(value, bool)
    return isinstance(value, hint)


def may_be_none(hint: Any) -> bool:
    """Whether the word none stands for no number."""
    kinds = set(get_args(hint))
    return NoneType in kinds and not kinds.isdisjoint((int, float))


def _plain(value: Any, hint: Any) -> Any:
    """A value as its field holds it, where it is one; else itself."""
    kinds = get_args(hint) if get_origin(hint) in (UnionType, Union) else (hint,)
    [member] = [get_args(kind)[0] for kind in kinds if get_origin(kind) is tuple] or [None]
    if member is not None and isinstance(value, str | list | tuple):
        return tuple(_plain(one, member) for one in ([value] if isinstance(value, str) else value))
    if str in kinds and isinstance(value, PathLike):
        return fspath(value)
    if isinstance(value, bool):
        return value
    if int in kinds and isinstance(value, Integral):
        return int(value)
    return float(value) if float in kinds and isinstance(value, Real) else value


def kinds_in_words(hint: Any) -> str:
    """What a field of a type takes, in words."""
    if get_origin(hint) is tuple:
        return f"a list, each {kinds_in_words(get_args(hint)[0])}"
    if words := words_of(hint):
        return _either([*words, *(["a number"] if float in get_args(hint) else [])])
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    kinds = get_args(hint) if get_origin(hint) in (UnionType, Union) else (hint,)
    return _either(
        [
            names.get(kind) or (kinds_in_words(kind) if get_origin(kind) else kind.__name__)
            for kind in kinds
            if kind is not NoneType
        ]
    )


def _either(words: Sequence[str]) -> str:
    """Alternatives, as a sentence lists them."""
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _check_value(one: "Field[Any]", hint: Any, value: Any) -> None:
    """Refuse a value that the declaration of its field rules out."""
    words = words_of(hint)
    for part in value if isinstance(value, tuple) else (value,):
        if words and isinstance(part, str) and part not in words:
            known = [*words, "a number"] if float in get_args(hint) else words
            raise ConfigError(
                f"{flag(one)} must be {_either(known)}, found {part!r}"
                f"{did_you_mean(part, words)}; give one of them"
            )
        if is_dataclass(part) and not isinstance(part, type):
            for inner in fields(part):
                _check_numbers(inner, getattr(part, inner.name))
                _check_texts(inner, getattr(part, inner.name))
    if not fits(value, hint):
        raise ConfigError(
            f"{flag(one)} must be {kinds_in_words(hint)}, found {value!r}; give such a value"
        )
    _check_numbers(one, value)
    _check_texts(one, value)


def _check_texts(one: "Field[Any]", value: Any) -> None:
    """Refuse a text that no file can hold, and an empty one: instead, the option is left out."""
    may_be_empty = one.metadata["empty"] or value == one.default
    for text in value if isinstance(value, tuple) else (value,):
        if not isinstance(text, str):
            continue
        if not text.strip() and not may_be_empty:
            raise ConfigError(
                f"{flag(one)} must not be empty, found {text!r}; give a value, or leave it out"
            )
        if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
            raise ConfigError(
                f"{flag(one)} must be UTF-8 without zero bytes, found {text!r}; give another "
                "value, or rename the file"
            )


def _check_numbers(one: "Field[Any]", value: Any) -> None:
    """Refuse a number, or one of several, that is not finite or out of range."""
    minimum, above, maximum = (one.metadata[name] for name in ("minimum", "above", "maximum"))
    # Sizes and counts meet arrays and libraries of which some count no further.
    most = maximum if maximum is not None else MAX_SEED
    for number in value if isinstance(value, tuple) else (value,):
        if not isinstance(number, int | float):
            continue
        wanted = ""
        if isinstance(number, float) and not isfinite(number):
            wanted, advice = "finite", "another number"
        elif above is not None and number <= above:
            wanted, advice = f"above {_shown(above)}", "a larger value"
        elif minimum is not None and number < minimum:
            wanted, advice = f"at least {_shown(minimum)}", "a larger value"
        elif number > most and (maximum is not None or isinstance(number, int)):
            wanted, advice = f"at most {_shown(most)}", "a smaller value"
        if wanted:
            raise ConfigError(f"{flag(one)} must be {wanted}, found {number}; give {advice}")


def _shown(bound: float) -> str:
    """A bound in words; whole numbers in full."""
    return str(bound) if isinstance(bound, int) else f"{bound:g}"


def _check_needs(config: Any, one: "Field[Any]") -> None:
    by_name = {other.name: other for other in fields(config)}
    for condition in one.metadata["needs"]:
        if _holds(config, condition):
            continue
        name, _, values = condition.partition("=")
        wanted = _either([flag(by_name[part]) for part in name.split("|")])
        found = "none"
        if values:
            wanted += f" {_either(values.split('|'))}"
            found = option_words(by_name[name], getattr(config, name)) or "none"
        raise ConfigError(
            f"{option_words(one, getattr(config, one.name))} needs {wanted}, found {found}; give "
            f"{'it' if '|' not in condition else 'one of them'}, or leave {flag(one)} out"
        )


def _check_conflicts(config: Any, one: "Field[Any]") -> None:
    by_name = {other.name: other for other in fields(config)}
    for condition in one.metadata["conflicts"]:
        if not _holds(config, condition):
            continue
        name = condition.partition("=")[0]
        because = one.metadata["because"]
        raise ConfigError(
            f"{option_words(one, getattr(config, one.name))} does not fit "
            f"{option_words(by_name[name], getattr(config, name))}"
            f"{', ' + because if because else ''}; leave one of them out"
        )


def _holds(config: Any, condition: str) -> bool:
    """Whether a condition of `needs` or `conflicts` holds."""
    names, equals, values = condition.partition("=")
    if not equals:
        given = {declared.name for declared in given_fields(config)}
        return not given.isdisjoint(names.split("|"))
    value = getattr(config, names)
    found = [str(one) for one in (value if isinstance(value, tuple) else (value,))]
    parts = [part for one in found for part in one.split("+")]
    return not {*found, *parts}.isdisjoint(values.split("|"))


def in_order_of_help(config_type: type) -> list["Field[Any]"]:
    """The fields of a config as `--help` lists them: what changes no result comes last."""
    last = (FILES, WHERE, COMMON)
    return sorted(
        fields(config_type),
        key=lambda one: (
            1 + last.index(one.metadata["group"]) if one.metadata["group"] in last else 0
        ),
    )


def names_of(config_type: type) -> list[str]:
    """Names of the fields of a config, in the order of declaration."""
    return [declared.name for declared in fields(config_type)]


def flag(one: "Field[Any]") -> str:
    """The CLI spelling of a field."""
    return one.name.upper() if one.metadata.get("argument") else "--" + one.name.replace("_", "-")


def command_line_of(command: str, config: StageConfig, leave: Sequence[str] = ()) -> str:
    """The command line of a config: what is not at its default.

    Args:
        command: The word after `stx-mine`.
        config: Its options.
        leave: Names of fields to leave out.
    """
    words = ["stx-mine", command]
    for declared in given_fields(config):
        value = getattr(config, declared.name)
        if declared.name in leave:
            continue
        if declared.metadata["argument"]:
            words += [quote(str(one)) for one in (value if isinstance(value, tuple) else (value,))]
        else:
            words.append(option_words(declared, value))
    return " ".join(words)


def option_words(one: "Field[Any]", value: Any) -> str:
    """An option with its value or values, as one would write it."""
    values = value if isinstance(value, tuple) else (value,)
    if value is True:
        return flag(one)
    if any(map(is_dataclass, values)):
        # They came from a file.
        return f"{flag(one)} FILE"
    if values and all(isinstance(number, int) for number in values):
        return f"{flag(one)} {','.join(map(str, values))}"
    # What is switched off has a word of its own.
    words = ("none" if word is None else str(word) for word in values)
    return " ".join(f"{flag(one)} {quote(word)}" for word in words)


def key_fields(config: Any, artifact: str) -> dict[str, Any]:
    """The fields of a config that decide the bytes of an artifact.

    Args:
        config: A stage's config, or another dataclass of options.
        artifact: Name of the artifact.

    Returns:
        Field name -> JSON-ready value, in the order of declaration.
    """
    return {
        declared.name: _json_ready(getattr(config, declared.name))
        for declared in fields(config)
        if artifact in declared.metadata["affects"]
    }


def key_defaults(config_type: type, artifact: str) -> dict[str, Any]:
    """What `key_fields` gives where every field is at its default."""
    return {
        declared.name: _json_ready(declared.default)
        for declared in fields(config_type)
        if artifact in declared.metadata["affects"]
    }


def _json_ready(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value

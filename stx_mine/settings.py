"""How a field of a config becomes an option, a YAML key and a part of an artifact's key.

A config is a frozen dataclass whose fields are made by `option`. What a field needs, what it does
not go with and its range are declared beside it and checked in one place.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import Field, dataclass, field, fields
from shlex import quote
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from stx_mine.errors import ConfigError

T = TypeVar("T")
# Headings that stand last: what every command takes, and what changes no result.
WHERE, COMMON = "Where it runs", "Common"


def option(
    default: T,
    help_text: str,
    affects: str = "",
    *,
    minimum: float | None = None,
    maximum: float | None = None,
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
        minimum: The smallest valid number (inclusive), if there is one.
        maximum: The largest valid number (inclusive), if there is one.
        argument: Whether the CLI takes it by position.
        group: The heading in `--help` under which it stands.
        needs: Space-separated conditions, all of which hold where the field is not at its
            default: `name` (another field is not at its default), `name=a|b` (it has one of these
            values), `name|other` (one of several fields is not at its default).
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
        "maximum": maximum,
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
        """Check what is declared; a single string is a list of one where a list is expected.

        Raises:
            ConfigError: A value is out of range, lacks what it needs, or conflicts with another.
        """
        for declared in fields(self):
            if isinstance(declared.default, tuple) and isinstance(
                getattr(self, declared.name), str
            ):
                object.__setattr__(self, declared.name, (getattr(self, declared.name),))
        hints = get_type_hints(type(self))
        for one in fields(self):
            _check_words(one, hints[one.name], getattr(self, one.name))
            _check_range(one, getattr(self, one.name))
        for declared in given_fields(self):
            _check_needs(self, declared)
            _check_conflicts(self, declared)
            problem = declared.metadata["check"] and declared.metadata["check"](
                getattr(self, declared.name)
            )
            if problem:
                raise ConfigError(problem)


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


def _either(words: Sequence[str]) -> str:
    """Alternatives, as a sentence lists them."""
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _check_words(one: "Field[Any]", hint: Any, value: Any) -> None:
    """Refuse a word that is none of those that the type of a field lists."""
    words = words_of(hint)
    for word in value if isinstance(value, tuple) else (value,):
        if words and isinstance(word, str) and word not in words:
            known = [*words, "a number"] if float in get_args(hint) else words
            raise ConfigError(
                f"{flag(one)} must be {_either(known)}, found {word!r}; give one of them"
            )


def _check_range(one: "Field[Any]", value: Any) -> None:
    """Refuse a number, or one of several, that is out of range."""
    minimum, maximum = one.metadata["minimum"], one.metadata["maximum"]
    for number in value if isinstance(value, tuple) else (value,):
        if not isinstance(number, int | float):
            continue
        if minimum is not None and number < minimum:
            raise ConfigError(
                f"{flag(one)} must be at least {minimum:g}, found {number}; give a larger value"
            )
        if maximum is not None and number > maximum:
            raise ConfigError(
                f"{flag(one)} must be at most {maximum:g}, found {number}; give a smaller value"
            )


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
    found = value if isinstance(value, tuple) else (value,)
    return not {str(one) for one in found}.isdisjoint(values.split("|"))


def in_order_of_help(config_type: type) -> list["Field[Any]"]:
    """The fields of a config as `--help` lists them: what changes no result comes last."""
    last = (WHERE, COMMON)
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


def command_line_of(command: str, config: StageConfig) -> str:
    """The command line of a config: what is not at its default."""
    words = ["stx-mine", command]
    for declared in given_fields(config):
        value = getattr(config, declared.name)
        words.append(
            quote(str(value)) if declared.metadata["argument"] else option_words(declared, value)
        )
    return " ".join(words)


def option_words(one: "Field[Any]", value: Any) -> str:
    """An option with its value or values, as one would write it."""
    values = value if isinstance(value, tuple) else (value,)
    if value is True:
        return flag(one)
    if values and all(isinstance(number, int) for number in values):
        return f"{flag(one)} {','.join(map(str, values))}"
    return " ".join(f"{flag(one)} {quote(str(word))}" for word in values)


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

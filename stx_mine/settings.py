"""How a field of a config becomes an option, a key of an artifact and a YAML key."""

from dataclasses import Field, dataclass, field, fields
from shlex import quote
from typing import Any, TypeVar

from stx_mine.errors import ConfigError

T = TypeVar("T")


def option(
    default: T,
    help_text: str,
    affects: str = "",
    minimum: float | None = None,
    argument: bool = False,
) -> T:
    """Declare a config field.

    Args:
        default: The default value.
        help_text: One line for `--help`.
        affects: Space-separated names of the artifacts whose key holds this field.
        minimum: The smallest valid value (inclusive), if there is one.
        argument: Whether the CLI takes it by position.

    Returns:
        A dataclass field, typed as its default.
    """
    metadata = {
        "help": help_text,
        "affects": tuple(affects.split()),
        "minimum": minimum,
        "argument": argument,
    }
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """What every stage takes."""

    run_dir: str = option("stx-run", "The run directory: one folder per artifact.")
    overwrite: bool = option(
        False, "Replace what this command owns where it was made with other settings."
    )

    def __post_init__(self) -> None:
        """Check ranges; a single string is a list of one where a list is expected.

        Raises:
            ConfigError: A value is below its minimum.
        """
        for one in fields(self):
            if isinstance(one.default, tuple) and isinstance(getattr(self, one.name), str):
                object.__setattr__(self, one.name, (getattr(self, one.name),))
            minimum, value = one.metadata.get("minimum"), getattr(self, one.name)
            is_number = isinstance(value, int | float)
            if minimum is not None and is_number and value < minimum:
                raise ConfigError(
                    f"{flag(one)} must be at least {minimum:g}, found {value}; give a larger value"
                )


def names_of(config_type: type) -> list[str]:
    """Names of the fields of a config, in the order of declaration."""
    return [one.name for one in fields(config_type)]


def flag(one: "Field[Any]") -> str:
    """The CLI spelling of a field."""
    return one.name.upper() if one.metadata.get("argument") else "--" + one.name.replace("_", "-")


def spelt(command: str, config: StageConfig) -> str:
    """The command line of a config: what is not at its default."""
    words = ["stx-mine", command]
    for one in fields(config):
        value = getattr(config, one.name)
        if value == one.default:
            continue
        words.append(quote(str(value)) if one.metadata["argument"] else option_words(one, value))
    return " ".join(words)


def option_words(one: "Field[Any]", value: Any) -> str:
    """An option with its value or values, as one would write it."""
    values = value if isinstance(value, tuple) else (value,)
    return flag(one) if value is True else " ".join(f"{flag(one)} {quote(str(v))}" for v in values)


def key_fields(config: Any, artifact: str) -> dict[str, Any]:
    """The fields of a config that decide the bytes of an artifact.

    Args:
        config: A stage's config, or another dataclass of options.
        artifact: Name of the artifact.

    Returns:
        Field name -> JSON-ready value, in the order of declaration.
    """
    found = {}
    for one in fields(config):
        if artifact in one.metadata.get("affects", ()):
            value = getattr(config, one.name)
            found[one.name] = list(value) if isinstance(value, tuple) else value
    return found

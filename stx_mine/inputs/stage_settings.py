"""A pipeline file as people write it: stages with their fields, each value checked."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from stx_mine.errors import ConfigError, did_you_mean, one_line, shortened
from stx_mine.inputs.config import MANY_SOURCES, Source
from stx_mine.settings import StageConfig, fits, kinds_in_words, may_be_none, words_of
from stx_mine.store.safe_yaml import parse_yaml, read_yaml

_TOP = ("run_dir", "rounds")
_MOST_ROUNDS = 100
_NUMBER = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")


@dataclass(frozen=True)
class StageSettings:
    """What a pipeline file says.

    Attributes:
        run_dir: The run directory of round 1.
        rounds: How often to mine, from 1.
        settings: Fields of each stage, in the order of the stages.
        others: Stages of the file that were left as they are, unread.
    """

    run_dir: str
    rounds: int
    settings: dict[str, dict[str, Any]]
    others: tuple[str, ...] = ()


def read_stage_settings(
    path: str,
    overrides: list[str],
    stages: Mapping[str, type[StageConfig]],
    leave_others: bool = False,
) -> StageSettings:
    """Read a pipeline file; every field is one of its stage and has a value that fits.

    Args:
        path: The YAML file.
        overrides: `stage.field=value` or `field=value`, the value in YAML.
        stages: Name of a stage -> its options, in the order in which stages run.
        leave_others: Whether other stages may stand in the file.

    Raises:
        ConfigError: The file is missing or malformed, or a name or value does not fit.
    """
    content = _read_yaml(path, "a pipeline file") or {}
    if not isinstance(content, dict):
        raise ConfigError(
            f"expected stage names with their fields in {path}, found {shortened(content)}; see "
            "pipelines/ for examples"
        )
    settings = {name: _mapping(name, value) for name, value in content.items() if name not in _TOP}
    top = {name: content[name] for name in _TOP if name in content}
    for override in overrides:
        _override(top, settings, override)
    others = [name for name in settings if leave_others and name not in stages]
    settings = {name: values for name, values in settings.items() if name not in others}
    for name, values in settings.items():
        if name not in stages:
            known = ", ".join([*_TOP, *stages])
            guess = did_you_mean(str(name), [*_TOP, *stages])
            raise ConfigError(
                f"{name!r} is no stage of a pipeline ({path}){guess}; there are {known}"
            )
        settings[name] = {
            key: typed_value(name, stages[name], key, value) for key, value in values.items()
        }
    run_dir, rounds = top.get("run_dir", "stx-run"), top.get("rounds", 1)
    if isinstance(rounds, bool) or not isinstance(rounds, int) or not 1 <= rounds <= _MOST_ROUNDS:
        raise ConfigError(
            f"rounds must be a whole number from 1 to {_MOST_ROUNDS}, found {shortened(rounds)}; "
            "give one"
        )
    if not settings:
        raise ConfigError(
            f"expected at least one stage in {path}, found none; name some of {', '.join(stages)}"
        )
    if not isinstance(run_dir, str):
        raise ConfigError(f"run_dir must be text, found {shortened(run_dir)}; give the path")
    ordered = {name: settings[name] for name in stages if name in settings}
    return StageSettings(run_dir, rounds, ordered, tuple(map(str, others)))


def load_sources(path: str) -> tuple[Source, ...]:
    """Read a YAML file that lists sources: `name`, `path` and what else `Source` has.

    Raises:
        ConfigError: The file is missing or malformed, or a name or value does not fit.
    """
    return _sources(_read_yaml(path, "a list of sources"), path)


def _override(top: dict[str, Any], settings: dict[str, dict[str, Any]], override: str) -> None:
    name, equals, raw = override.partition("=")
    if not equals:
        raise ConfigError(f"expected --set STAGE.FIELD=VALUE, found {override!r}")
    try:
        value = parse_yaml(raw)
    except ValueError as error:
        raise ConfigError(
            f"expected a YAML value in --set {shortened(override)}: {error}; quote it for the shell"
        ) from error
    stage, dot, field_name = name.partition(".")
    if dot:
        settings.setdefault(stage, {})[field_name] = value
    elif name in _TOP:
        top[name] = value
    else:
        raise ConfigError(f"--set {name!r} names no field; use STAGE.FIELD, run_dir or rounds")


def _mapping(stage: Any, value: Any) -> dict[str, Any]:
    if value is not None and not isinstance(value, dict):
        raise ConfigError(
            f"expected fields with their values under {stage}, found {shortened(value)}; give "
            "`field: value` below it"
        )
    return dict(value or {})


def _read_yaml(path: str, what: str) -> Any:
    try:
        return read_yaml(Path(path))
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"expected {what} in UTF-8 at {path}, found other bytes ({one_line(error)}); save it "
            "as UTF-8"
        ) from error
    except OSError as error:
        raise ConfigError(
            f"expected {what} at {path}: {error.strerror or error}; check the path"
        ) from error
    except ValueError as error:
        raise ConfigError(f"expected {what} in YAML at {path}: {error}; fix the file") from error


def _sources(value: Any, where: str) -> tuple[Source, ...]:
    """Entries of a list in YAML -> sources."""
    entries = list(value) if isinstance(value, list | tuple) else []
    if not entries or not all(isinstance(one, dict) for one in entries):
        raise ConfigError(
            f"expected a list of sources, each with name: and path:, in {where}, found "
            f"{shortened(value)}; give such a list"
        )
    return tuple(
        Source(
            **{
                name: typed_value(f"sources[{number}]", Source, name, one)
                for name, one in entry.items()
            }
        )
        for number, entry in enumerate(entries)
    )


def typed_value(where: str, config_type: type, name: str, value: Any) -> Any:
    """Check a YAML value against the field's type.

    Raises:
        ConfigError: There is no such field, or the value does not fit it.
    """
    hints = get_type_hints(config_type)
    if name not in hints or name in ("run_dir", "overwrite"):
        known = ", ".join(key for key in hints if key not in ("run_dir", "overwrite"))
        guess = did_you_mean(str(name), hints)
        raise ConfigError(f"{where}.{name} is no field of {where}{guess}; its fields are {known}")
    if hints[name] == MANY_SOURCES and value is not None:
        return load_sources(value) if isinstance(value, str) else _sources(value, where)
    if isinstance(value, list):
        value = tuple(value)
    elif get_origin(hints[name]) is tuple and value is not None:
        value = (value,)
    if isinstance(value, str) and _takes_float(hints[name]) and _NUMBER.fullmatch(value):
        # YAML 1.1 takes 2e-5 for a string.
        value = float(value)
    if value == "none" and may_be_none(hints[name]):
        # As on the command line.
        value = None
    if not fits(value, hints[name]):
        guess = did_you_mean(str(value), words_of(hints[name]))
        wanted = kinds_in_words(hints[name])
        raise ConfigError(
            f"{where}.{name} must be {wanted}, found {shortened(value)}{guess}; fix the file"
        )
    return float(value) if isinstance(value, int) and _takes_float(hints[name]) else value


def _takes_float(hint: Any) -> bool:
    return float in (get_args(hint) or (hint,))

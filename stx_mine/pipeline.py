"""Pipeline files: YAML -> configs -> stages in order, once per round."""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from stx_mine.commands import PIPELINE_STAGES
from stx_mine.errors import ConfigError, did_you_mean, one_line, shortened
from stx_mine.inputs.config import MANY_SOURCES, Source
from stx_mine.models.config import is_server
from stx_mine.settings import StageConfig, fits, kinds_in_words, may_be_none, words_of
from stx_mine.stages.embed.config import DEFAULT_MODEL
from stx_mine.stages.ingest.config import IngestConfig
from stx_mine.stages.judge.config import JudgeConfig
from stx_mine.stages.mine.config import OF_JUDGES
from stx_mine.store.listing import MANIFEST
from stx_mine.store.run_dir import RunDir
from stx_mine.store.safe_yaml import parse_yaml, read_yaml

if TYPE_CHECKING:
    from stx_mine.store.stage_report import StageReport

_TOP = ("run_dir", "rounds")
_MOST_ROUNDS = 100
# Stages that make input, or groups: later rounds read those of round 1.
_ONCE = ("queries", "split", "dedup")
# Stages that follow all rounds.
_AT_THE_END = ("evaluate", "report")
# Ways to vectors without a model; later rounds have one, that of the round before.
_WITHOUT_MODEL = ("encoder", "query_vectors", "passage_vectors", "similarity")
# How the first model is read; what a round trained is a folder that says it all.
_OF_HUB = ("revision", "pooling")
_NUMBER = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")
StageRunner = Callable[[str, StageConfig], "StageReport"]


@dataclass(frozen=True)
class Pipeline:
    """A checked pipeline file.

    Attributes:
        run_dir: The run directory of round 1.
        rounds: How often to mine; each round mines with the model that the last one trained.
        settings: Fields of each stage, in the order of the stages.
        overwrite: Whether to replace artifacts of other settings.
    """

    run_dir: str
    rounds: int
    settings: dict[str, dict[str, Any]]
    overwrite: bool


def load_pipeline(path: str, overrides: list[str], overwrite: bool = False) -> Pipeline:
    """Read a pipeline file and check every field.

    Args:
        path: The YAML file.
        overrides: `stage.field=value` or `field=value`, the value in YAML.
        overwrite: Passed on to every stage.

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
    for name, values in settings.items():
        if name not in PIPELINE_STAGES:
            known = ", ".join([*_TOP, *PIPELINE_STAGES])
            guess = did_you_mean(str(name), [*_TOP, *PIPELINE_STAGES])
            raise ConfigError(
                f"{name!r} is no stage of a pipeline ({path}){guess}; there are {known}"
            )
        settings[name] = {
            key: _typed(name, PIPELINE_STAGES[name], key, value) for key, value in values.items()
        }
    run_dir, rounds = top.get("run_dir", "stx-run"), top.get("rounds", 1)
    if isinstance(rounds, bool) or not isinstance(rounds, int) or not 1 <= rounds <= _MOST_ROUNDS:
        raise ConfigError(
            f"rounds must be a whole number from 1 to {_MOST_ROUNDS}, found {shortened(rounds)}; "
            "give one"
        )
    if not settings:
        raise ConfigError(
            f"expected at least one stage in {path}, found none; name some of "
            f"{', '.join(PIPELINE_STAGES)}"
        )
    if not isinstance(run_dir, str):
        raise ConfigError(f"run_dir must be text, found {shortened(run_dir)}; give the path")
    if rounds > 1 and not {"embed", "mine", "pack", "train"} <= set(settings):
        raise ConfigError(
            f"rounds: {rounds} needs embed, mine, pack and train in {path}, found "
            f"{', '.join(settings)}; a round needs the last one's model"
        )
    ordered = {name: settings[name] for name in PIPELINE_STAGES if name in settings}
    pipeline = Pipeline(run_dir, rounds, ordered, overwrite)
    for _ in pipeline_steps(pipeline):
        pass
    return pipeline


def load_sources(path: str) -> tuple[Source, ...]:
    """Read a YAML file that lists sources: `name`, `path` and what else `Source` has.

    Raises:
        ConfigError: The file is missing or malformed, or a name or value does not fit.
    """
    return _sources(_read_yaml(path, "a list of sources"), path)


def pipeline_steps(pipeline: Pipeline) -> Iterator[tuple[int, str, StageConfig]]:
    """Yield (round, stage, config) in order; evaluation comes once, at the end, for all rounds.

    A report of each round follows it.

    Round 1 embeds with the named model; each later round mines with the model that the round
    before trained, and trains the first model anew unless `train.model` names another. Where round
    1 embeds without a model, none is evaluated as its base.
    """
    first = RunDir(pipeline.run_dir)
    embed = pipeline.settings.get("embed", {})
    base = () if _without_model(embed) else (embed.get("model", DEFAULT_MODEL),)
    for number in range(1, pipeline.rounds + 1):
        for stage, config in _round_steps(pipeline, first, number):
            yield number, stage, config
    if "evaluate" in pipeline.settings:
        values = dict(pipeline.settings["evaluate"])
        if "train" in pipeline.settings:
            trained = [
                str(first.round_dir(number).folder("model"))
                for number in range(1, pipeline.rounds + 1)
            ]
            values.setdefault("models", (*base, *trained))
            if base:
                of_base = {name: embed[name] for name in _OF_HUB if name in embed}
                values = {**of_base, **values}
        yield pipeline.rounds, "evaluate", _config(pipeline, "evaluate", first, values)
    if "report" in pipeline.settings:
        # A page tells of the evaluations too.
        for number in range(1, pipeline.rounds + 1):
            run = first.round_dir(number)
            yield number, "report", _config(pipeline, "report", run, pipeline.settings["report"])


def _round_steps(
    pipeline: Pipeline, first: RunDir, number: int
) -> Iterator[tuple[str, StageConfig]]:
    """Yield (stage, config) of one round in order.

    Judges are asked about what is found without them; then it is selected again by their word.
    """
    run = first.round_dir(number)
    for stage, values in pipeline.settings.items():
        if stage in _AT_THE_END or (stage in _ONCE and number > 1):
            continue
        values = dict(values)
        if stage == "embed" and number > 1:
            left = (*_ingest_fields(), *_WITHOUT_MODEL, *_OF_HUB)
            values = {key: v for key, v in values.items() if key not in left}
            values["model"] = str(first.round_dir(number - 1).folder("model"))
        if stage == "mine" and "judge" in pipeline.settings:
            values = _judged(pipeline, run)
            if not _are_finished(run, values["judges"]):
                values = {key: one for key, one in values.items() if key not in OF_JUDGES}
        yield stage, _config(pipeline, stage, run, values)
        if stage == "judge" and "mine" in pipeline.settings:
            yield "mine", _config(pipeline, "mine", run, _judged(pipeline, run))


def run_pipeline(
    pipeline: Pipeline, run_stage: StageRunner
) -> Iterator[tuple[str, "StageReport", float]]:
    """Run every stage; yield (heading of a new round or nothing, report, seconds)."""
    current = 0
    for number, stage, config in pipeline_steps(pipeline):
        title = f"round {number} of {pipeline.rounds}" if number != current else ""
        current = number
        started = time.monotonic()
        report = run_stage(stage, config)
        yield title if pipeline.rounds > 1 else "", report, time.monotonic() - started


def _config(pipeline: Pipeline, stage: str, run: RunDir, values: dict[str, Any]) -> StageConfig:
    return PIPELINE_STAGES[stage](run_dir=str(run.path), overwrite=pipeline.overwrite, **values)


def _judged(pipeline: Pipeline, run: RunDir) -> dict[str, Any]:
    """The fields of `mine` where the pipeline judges: by that judge, unless others are named."""
    judge = _config(pipeline, "judge", run, pipeline.settings["judge"])
    assert isinstance(judge, JudgeConfig)
    return {"judges": (judge.judge_name,), **pipeline.settings["mine"]}


def _are_finished(run: RunDir, judges: Sequence[str]) -> bool:
    folders = (run.folder("judgements", name) for name in judges)
    return all((folder / MANIFEST).exists() for folder in folders)


def _ingest_fields() -> set[str]:
    own = {field.name for field in fields(IngestConfig)}
    return own - {one.name for one in fields(StageConfig)}


def _without_model(embed: dict[str, Any]) -> bool:
    """Whether round 1 embeds without a model whose files can be read."""
    given = any(embed.get(name) is not None for name in _WITHOUT_MODEL)
    return given or is_server(embed.get("model"))


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
            **{name: _typed(f"sources[{number}]", Source, name, one) for name, one in entry.items()}
        )
        for number, entry in enumerate(entries)
    )


def _typed(where: str, config_type: type, name: str, value: Any) -> Any:
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

"""Pipeline files: YAML -> configs -> stages in order, once per round."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from stx_mine.commands import PIPELINE_STAGES
from stx_mine.errors import ConfigError
from stx_mine.inputs.stage_settings import read_stage_settings
from stx_mine.models.config import is_server
from stx_mine.settings import StageConfig
from stx_mine.stages.embed.config import DEFAULT_MODEL
from stx_mine.stages.ingest.config import IngestConfig
from stx_mine.stages.judge.config import JudgeConfig
from stx_mine.stages.mine.config import OF_JUDGES
from stx_mine.store.listing import MANIFEST
from stx_mine.store.run_dir import RunDir

if TYPE_CHECKING:
    from stx_mine.store.stage_report import StageReport

# Stages that make input, or groups: later rounds read those of round 1.
_ONCE = ("queries", "split", "dedup")
# Stages that follow all rounds.
_AT_THE_END = ("evaluate", "report")
# Ways to vectors without a model; later rounds have one, that of the round before.
_WITHOUT_MODEL = ("encoder", "query_vectors", "passage_vectors", "similarity")
# How the first model is read; what a round trained is a folder that says it all.
_OF_HUB = ("revision", "pooling")
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
    read = read_stage_settings(path, overrides, PIPELINE_STAGES)
    settings = read.settings
    if read.rounds > 1 and not {"embed", "mine", "pack", "train"} <= set(settings):
        raise ConfigError(
            f"rounds: {read.rounds} needs embed, mine, pack and train in {path}, found "
            f"{', '.join(settings)}; a round needs the last one's model"
        )
    pipeline = Pipeline(read.run_dir, read.rounds, settings, overwrite)
    for _ in pipeline_steps(pipeline):
        pass
    return pipeline


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

"""Evaluate: models on held-out pairs by exact search, with intervals and paired tests."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stx_mine.errors import ConfigError
from stx_mine.inputs.evaluation_data import OpenedData, open_data, recorded_options
from stx_mine.settings import key_fields
from stx_mine.stages.evaluate.config import EvaluateConfig
from stx_mine.stages.evaluate.core.summaries import Scored, metric_summaries
from stx_mine.stages.evaluate.counts import OverviewCounts
from stx_mine.stages.evaluate.earlier import (
    CONTENT,
    JUDGED_WITH,
    model_input,
    open_evaluation,
)
from stx_mine.stages.evaluate.judged_models import (
    JudgedModel,
    load_models,
    prompt_warnings,
    refuse_dims,
)
from stx_mine.stages.evaluate.leaks import find_in_training
from stx_mine.stages.evaluate.model_card import renew_cards
from stx_mine.stages.evaluate.model_metrics import evaluate_dims
from stx_mine.stages.evaluate.report import evaluation_report, overview_report
from stx_mine.stages.evaluate.results import (
    QUERIES,
    RESULTS,
    Overview,
    query_table,
    read_summary,
    write_query_table,
    write_summary,
)
from stx_mine.stages.evaluate.sets import OVERVIEW, named_data, prefix_of, read_evaluation_set
from stx_mine.store.artifact import Artifact, Manifest, digest_of, require
from stx_mine.store.manifest import is_begun
from stx_mine.store.run_dir import RunDir
from stx_mine.store.stage_report import StageReport

# What the models are judged with says what these come to.
_RESOLVED = ("source", "query_prompt", "passage_prompt", "max_length")


@dataclass(frozen=True)
class _Planned:
    """The evaluation of a data set before it is made.

    Attributes:
        reading: The data.
        artifact: What is to be made.
        renewed_by: What has changed since an earlier evaluation, in words.
    """

    reading: OpenedData
    artifact: Artifact
    renewed_by: list[str]


def run_evaluate(config: EvaluateConfig) -> StageReport:
    """Evaluate every model on every data set and write `evaluations/NAME/`.

    Each data set is an artifact of its own; several have one more, their overview.

    Raises:
        ConfigError: No data is named, two have one name, or a model has too few dimensions.
        InputError: The data is missing or malformed.
        ModelError: A model cannot be loaded.
        ArtifactError: An evaluation with other settings is in the way.
    """
    if not config.data:
        raise ConfigError("expected DATA, found none; name held-out pairs or a BEIR folder")
    named, run = named_data(config), RunDir(config.run_dir, config.check)
    known: dict[str, Manifest] = {}
    if is_begun(run, "texts"):
        known = {name: require(run, name) for name in ("texts", "groups")}
    texts = known.get("texts")
    recorded = recorded_options(texts, config.source)
    readings = {name: open_data(path, config, "test", recorded) for name, path in named.items()}
    with run.lock(begins=True):
        models = load_models(config, run, texts)
        refuse_dims(config.dims, models)
        planned = {
            name: _plan(config, run, name, named[name], reading, models, known)
            for name, reading in readings.items()
        }
        if len(named) > 1:
            # Refused before anything is encoded.
            _plan_overview(config, run, list(named), {})
        warnings, reports = prompt_warnings(config, texts), []
        warnings += [note for one in models for note in one.encoder.notes]
        for one in planned.values():
            skipped = one.artifact.done
            if not skipped:
                _evaluate_data(config, one, models, known)
            renewed_by = [] if skipped else one.renewed_by
            reports.append(evaluation_report(one.artifact, config, renewed_by, warnings, skipped))
        renew_cards(run)
        return reports[0] if len(reports) == 1 else _overview(config, run, list(named), reports)


def _plan(
    config: EvaluateConfig,
    run: RunDir,
    name: str,
    path: str,
    reading: OpenedData,
    models: Sequence[JudgedModel],
    known: dict[str, Manifest],
) -> _Planned:
    """Open the artifact of one data set.

    Raises:
        ArtifactError: An evaluation of this name has other settings.
    """
    own = {**key_fields(config, "evaluations"), **key_fields(reading.fields, "texts")}
    fields: dict[str, Any] = {key: v for key, v in own.items() if key not in _RESOLVED}
    fields |= {"data": path, "models": [one.name for one in models]}
    fields |= {key: v for key, v in reading.of_run.items() if key not in own}
    fields[JUDGED_WITH] = {one.name: one.settings() for one in models}
    inputs = {CONTENT: digest_of(reading.source.fingerprint())}
    inputs |= {key: one.digest for key, one in known.items()}
    inputs |= {model_input(one.name): digest_of(one.contract()) for one in models}
    return _Planned(reading, *open_evaluation(config, run, name, fields, inputs))


def _evaluate_data(
    config: EvaluateConfig,
    planned: _Planned,
    models: Sequence[JudgedModel],
    known: dict[str, Manifest],
) -> None:
    """Make the evaluation of one data set."""
    artifact, reading = planned.artifact, planned.reading
    artifact.begin([RESULTS, QUERIES])
    data = read_evaluation_set(artifact.target.name, reading.source, config.own_passages)
    scored = [
        Scored(one.name, dims, metrics)
        for one in models
        for dims, metrics in evaluate_dims(
            one.encoder, data, config.device, one.prompts, config.dims
        ).items()
    ]
    found = find_in_training(known["texts"], known["groups"], data) if known else None
    how = {one.name: one.how() for one in models}
    write_summary(artifact.folder, metric_summaries(scored, found, config.seed), how, data.counts)
    seen = None if found is None else found.seen
    table = query_table(scored, data.query_ids, data.query_names, seen)
    write_query_table(artifact.folder / QUERIES, table)
    extra = {
        "models": [[one.name, one.contract()] for one in models],
        "how": how,
        "read": data.read,
        "reading": reading.of_run,
        "readings": {one.name: one.encoder.recorded for one in models},
    }
    artifact.finish([RESULTS, QUERIES], counts=data.counts, extra=extra)


def _plan_overview(
    config: EvaluateConfig, run: RunDir, names: list[str], inputs: dict[str, str]
) -> Artifact:
    """Open the artifact of the overview.

    Raises:
        ArtifactError: It is of other data sets.
    """
    name, fields = config.name or OVERVIEW, {"sets": names}
    return open_evaluation(config, run, name, fields, inputs)[0]


def _overview(
    config: EvaluateConfig, run: RunDir, names: list[str], parts: list[StageReport]
) -> StageReport:
    """Bring the results of several data sets together."""
    manifests = {name: require(run, "evaluations", name) for name in names}
    inputs = {f"evaluations/{name}": part.digest for name, part in manifests.items()}
    artifact = _plan_overview(config, run, names, inputs)
    skipped = artifact.done
    if not skipped:
        artifact.begin([RESULTS])
        prefix = prefix_of(config)
        summaries = {
            name.removeprefix(prefix): read_summary(part.folder) for name, part in manifests.items()
        }
        Overview.of(summaries).write(artifact.folder)
        artifact.finish([RESULTS], counts=OverviewCounts(data=len(names)))
    return overview_report(artifact, parts, skipped)

"""Evaluate: models on held-out pairs by exact search, with intervals and paired tests."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from stx_mine.errors import ConfigError
from stx_mine.inputs.pairs import PairSource
from stx_mine.models.encoder import SentenceTransformerEncoder
from stx_mine.settings import key_fields
from stx_mine.stages.evaluate.config import EvaluateConfig
from stx_mine.stages.evaluate.core.summaries import Scored, metric_summaries
from stx_mine.stages.evaluate.counts import OverviewCounts
from stx_mine.stages.evaluate.encoders import open_encoders
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
from stx_mine.stages.evaluate.seen import seen_queries
from stx_mine.stages.evaluate.sets import OVERVIEW, named_data, read_evaluation_set
from stx_mine.store.artifact import MANIFEST, Artifact, Manifest, require
from stx_mine.store.groups import TextGroups
from stx_mine.store.run_dir import RunDir
from stx_mine.store.sources import prompts_differ, stored_sources
from stx_mine.store.stage_report import StageReport
from stx_mine.store.texts import TextStore


def run_evaluate(config: EvaluateConfig) -> StageReport:
    """Evaluate every model on every data set and write `evaluations/NAME/`.

    Each data set is an artifact of its own; several have one more, their overview.

    Raises:
        ConfigError: No data is named, two have one name, or a model has too few dimensions.
        InputError: The data is missing or malformed.
        ModelError: A model cannot be loaded.
    """
    if not config.data:
        raise ConfigError("expected DATA, found none; name held-out pairs or a BEIR folder")
    run = RunDir(config.run_dir)
    sources = {
        name: PairSource.open(path, config, "test") for name, path in named_data(config).items()
    }
    with run.lock(begins=True):
        encoders = open_encoders(config, run)
        _refuse_dims(config.dims, encoders)
        known: dict[str, Manifest] = {}
        if (run.folder("texts") / MANIFEST).exists():
            known = {name: require(run, name) for name in ("texts", "groups")}
        prompts, warnings = _prompts(config, run, known.get("texts"))
        warnings += [note for encoder in encoders for note in encoder.notes]
        fields = {**key_fields(config, "evaluations"), **key_fields(config, "texts")}
        fields["models"] = [[encoder.name, encoder.contract()] for encoder in encoders]
        fields["prompts"] = prompts
        reports = []
        for path, (name, source) in zip(config.data, sources.items(), strict=True):
            own = {**fields, "data": path, "content": source.fingerprint()}
            inputs = {name: one.digest for name, one in known.items()}
            artifact = Artifact(
                run, "evaluations", config, fields=own, inputs=inputs, view=True, subfolder=name
            )
            skipped = artifact.done
            if not skipped:
                _evaluate_data(config, artifact, source, encoders, known, prompts)
            reports.append(evaluation_report(artifact, config.source, warnings, skipped))
        renew_cards(run)
        return reports[0] if len(reports) == 1 else _overview(config, run, list(sources), reports)


def _refuse_dims(dims: tuple[int, ...], encoders: list[SentenceTransformerEncoder]) -> None:
    for encoder in encoders:
        most = int(encoder.model.get_embedding_dimension() or 0)
        if dims and max(dims) > most:
            raise ConfigError(
                f"--dims must be at most the {most} dimensions of the model {encoder.name!r}, "
                f"found {max(dims)}; give smaller ones, or evaluate that model by itself"
            )


def _evaluate_data(
    config: EvaluateConfig,
    artifact: Artifact,
    source: PairSource,
    encoders: list[SentenceTransformerEncoder],
    known: dict[str, Manifest],
    prompts: Mapping[str, str | None],
) -> None:
    """Make the evaluation of one data set."""
    artifact.begin([RESULTS, QUERIES])
    data = read_evaluation_set(artifact.folder.name, source)
    relevant = data.relevant
    scored = [
        Scored(encoder.name, dims, metrics)
        for encoder in encoders
        for dims, metrics in evaluate_dims(
            encoder, data.texts, relevant, config.device, prompts, config.dims
        ).items()
    ]
    seen = None
    if known:
        groups = TextGroups.open(known["groups"])
        seen = seen_queries(TextStore.open(known["texts"]), groups, relevant)
    write_summary(artifact.folder, metric_summaries(scored, seen, config.seed))
    asked = np.unique(relevant.pairs[:, 0])
    originals = relevant.queries.original_ids.filter(pa.array(relevant.queries.first_rows()))
    table = query_table(scored, asked, originals.take(pa.array(asked)), seen)
    write_query_table(artifact.folder / QUERIES, table)
    readings = {encoder.name: encoder.recorded for encoder in encoders}
    artifact.finish([RESULTS, QUERIES], counts=relevant.counts, extra={"readings": readings})


def _overview(
    config: EvaluateConfig, run: RunDir, names: list[str], parts: list[StageReport]
) -> StageReport:
    """Bring the results of several data sets together."""
    manifests = {name: require(run, "evaluations", name) for name in names}
    artifact = Artifact(
        run,
        "evaluations",
        config,
        fields={"data": names},
        inputs={f"evaluations/{name}": part.digest for name, part in manifests.items()},
        view=True,
        subfolder=config.name or OVERVIEW,
    )
    skipped = artifact.done
    if not skipped:
        artifact.begin([RESULTS])
        summaries = {name: read_summary(part.folder) for name, part in manifests.items()}
        Overview.of(summaries).write(artifact.folder)
        artifact.finish([RESULTS], counts=OverviewCounts(data=len(names)))
    return overview_report(artifact, parts, skipped)


def _prompts(
    config: EvaluateConfig, run: RunDir, texts: Manifest | None
) -> tuple[dict[str, str | None], list[str]]:
    """Role -> prompt of the source of the data, and a warning where it is not known.

    Raises:
        ConfigError: The run has no such source.
    """
    sources = () if texts is None else stored_sources(texts)
    names = ", ".join(source.name for source in sources)
    if config.source is not None:
        chosen = [one for one in sources if one.name == config.source]
        if not chosen:
            raise ConfigError(
                f"--source {config.source!r} is no source of {run.path}, which has "
                f"{names or 'none'}; name one of them, or leave it out"
            )
        return chosen[0].prompts, []
    if not prompts_differ(sources):
        return (sources[0].prompts if sources else {}), []
    warning = (
        f"the sources of this run have different prompts ({names}), the data was encoded with "
        "those of each model; give --source NAME for the prompts of one"
    )
    return {}, [warning]

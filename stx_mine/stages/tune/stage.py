"""Tune: try policies on held-out pairs, and write the pipeline of the best into `tuning/`."""

import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from stx_mine import __version__, progress
from stx_mine.errors import ArtifactError, ConfigError
from stx_mine.settings import MAX_SEED, key_fields
from stx_mine.stages.evaluate.data_report import seen_warnings
from stx_mine.stages.evaluate.results import read_shares
from stx_mine.stages.train.evaluation_sets import sets_in_training
from stx_mine.stages.tune.bench import TrialBench
from stx_mine.stages.tune.config import TuneConfig
from stx_mine.stages.tune.counts import TuneCounts
from stx_mine.stages.tune.inputs import contents_of, make_inputs
from stx_mine.stages.tune.pipeline_file import TunedPipeline, axes_of
from stx_mine.stages.tune.preparation import Preparation, PreparationSeconds, prepare
from stx_mine.stages.tune.race import Race
from stx_mine.stages.tune.report import tune_report
from stx_mine.stages.tune.results import RESULTS, TUNED_PIPELINE, TuningResults, finalists_of
from stx_mine.store.artifact import Artifact
from stx_mine.store.files import atomic, read_json, write_json
from stx_mine.store.run_dir import RunDir
from stx_mine.store.stage_report import StageReport

_RUN, _TRIALS, _PREPARED = "run", "trials", "prepared.json"


def run_tune(config: TuneConfig) -> StageReport:
    """Try policies within a budget and write `tuning/tuned.yaml`.

    What was tried is kept as it ends: a call that was killed continues.

    Raises:
        ConfigError: No pipeline is named, or its file does not fit.
        ArtifactError: `tuning/` is of another pipeline or budget.
        StxMineError: The pipeline cannot be run as it stands in its file.
    """
    if config.pipeline is None:
        raise ConfigError(
            "expected PIPELINE, found none; name a pipeline file (`stx-mine init PAIRS` writes one)"
        )
    pipeline, axes = TunedPipeline.read(config.pipeline, config.data), axes_of(config.vary)
    run = RunDir(_run_dir(config, pipeline), config.check)
    make_inputs(pipeline, str(run.path))
    fields = {**key_fields(config, "tuning"), "settings": pipeline.json()}
    fields["content"] = contents_of(pipeline, str(run.path))
    with run.lock(begins=True):
        artifact = Artifact(
            run, "tuning", config, fields=fields, inputs={}, overwrite=config.overwrite
        )
        skipped = artifact.done
        if not skipped:
            _tune(artifact, config, pipeline, axes)
        results = TuningResults.read(artifact.result)
        warnings = list(artifact.result.extra["warnings"])
        return tune_report(artifact, results, warnings, skipped)


def _run_dir(config: TuneConfig, pipeline: TunedPipeline) -> str:
    """The run directory that was given, or that of the file."""
    is_given = config.run_dir != TuneConfig.run_dir
    return config.run_dir if is_given else pipeline.run_dir


def _tune(
    artifact: Artifact,
    config: TuneConfig,
    pipeline: TunedPipeline,
    axes: dict[tuple[str, str], list[Any]],
) -> None:
    began = time.monotonic()
    artifact.begin([RESULTS, TUNED_PIPELINE])
    with progress.step("preparing: texts, vectors, hits"):
        preparation = _prepared(artifact.folder, pipeline, artifact.run)
    bench = TrialBench(preparation, artifact.folder / _TRIALS, config.metric)
    bench.folder.mkdir(exist_ok=True)
    untrained, static = bench.untrained()
    ground = replace(preparation.ground, static=static)
    spent = sum(asdict(preparation.seconds).values())
    seeds = [(config.seed + number) % (MAX_SEED + 1) for number in range(config.seeds)]
    race = Race(bench, ground, config.budget_seconds, spent, seeds, axes)
    scored = race.run()
    if not scored:
        raise ArtifactError(
            f"the budget of {config.budget} had no room for one whole training; give a larger "
            "--budget, and the same command continues"
        )
    finalists, taken = finalists_of(scored, race.trials)
    results = TuningResults(
        metric=config.metric,
        queries=len(untrained),
        sets=[one.name for one in preparation.sets],
        untrained=float(untrained.mean()),
        finalists=finalists,
        taken=taken,
        trials=race.trials,
        skipped=race.skipped,
        notes=[*preparation.notes, *pipeline.notes],
    )
    write_json(artifact.folder / RESULTS, results.to_json())
    _write_pipeline(artifact.folder / TUNED_PIPELINE, pipeline, results)
    counts = TuneCounts(
        policies=len({one.policy.name for one in race.trials}),
        trials=len(race.trials),
        failed=sum(bool(one.failure) for one in race.trials),
        skipped=len(race.skipped),
        seconds=round(time.monotonic() - began, 1),
    )
    extra = {"warnings": _leaks(preparation)}
    artifact.finish([RESULTS, TUNED_PIPELINE], counts=counts, extra=extra)


def _prepared(folder: Path, pipeline: TunedPipeline, run: RunDir) -> Preparation:
    """What policies start from; what it took is that of the call that made it."""
    preparation = prepare(pipeline, folder / _RUN, run)
    record = folder / _PREPARED
    if record.exists():
        return replace(preparation, seconds=PreparationSeconds(**read_json(record)))
    write_json(record, asdict(preparation.seconds))
    return preparation


def _write_pipeline(path: Path, pipeline: TunedPipeline, results: TuningResults) -> None:
    winner = results.winner
    head = [
        f"{pipeline.file}, tuned by stx-mine {__version__}: {winner.name}",
        f"{results.metric} {winner.mean:.4f} on {results.queries:,} queries of "
        f"{', '.join(results.sets)}, over {len(winner.by_seed)} seeds; untrained "
        f"{results.untrained:.4f}",
    ]
    with atomic(path) as temporary:
        temporary.write_text(pipeline.text_with(winner.changes, head), "utf-8")


def _leaks(preparation: Preparation) -> list[str]:
    """Warnings of evaluation sets that training holds."""
    found = sets_in_training(preparation.run, preparation.sets)
    return [
        warning
        for name, shares in found.items()
        if shares is not None
        for warning in seen_warnings(read_shares(shares), name)
    ]

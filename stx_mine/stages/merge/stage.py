"""Merge: the weights of several models of one kind become those of one, in a folder of its own."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from stx_mine.models.config import Reading
from stx_mine.settings import key_fields
from stx_mine.stages.evaluate.judged_models import default_models
from stx_mine.stages.evaluate.model_card import CARD
from stx_mine.stages.evaluate.model_readings import model_readings
from stx_mine.stages.merge.agreement import reading_notes
from stx_mine.stages.merge.card import merged_card
from stx_mine.stages.merge.config import MergeConfig
from stx_mine.stages.merge.core.weights import shares_of
from stx_mine.stages.merge.counts import MergeCounts
from stx_mine.stages.merge.merging import Merging
from stx_mine.stages.merge.model_folder import ModelFolder
from stx_mine.stages.merge.place import MERGED, held, refuse_within, target_of
from stx_mine.stages.merge.report import merge_report
from stx_mine.stages.merge.sources import open_sources
from stx_mine.store.artifact import Artifact
from stx_mine.store.files import atomic
from stx_mine.store.manifest import is_begun, read_finished
from stx_mine.store.run_dir import RunDir
from stx_mine.store.stage_report import StageReport

_SUM_TO_1 = 1e-6


def run_merge(config: MergeConfig) -> StageReport:
    """Write the merged model, which `SentenceTransformer` loads.

    Raises:
        ConfigError: The models are too few, weights do not fit them, or the folder is one of them.
        ModelError: A model is missing, damaged or an adapter, or they do not fit each other.
        ArtifactError: Something else lies at the folder.
        LockedError: Another command writes there.
    """
    assert config.to is not None
    target = target_of(config.to)
    config = _with_models(config)
    readings = _readings(config)
    with held(target) as scratch:
        models, read = open_sources(readings, scratch)
        refuse_within(target, [(one.name, one.folder) for one in models])
        merging = _merging(config, models)
        artifact = Artifact(
            RunDir(target.parent),
            MERGED,
            config,
            fields=_fields(config, merging),
            inputs={},
            overwrite=config.overwrite,
            place=target,
        )
        if artifact.done:
            return merge_report(artifact, skipped=True)
        notes = [*_weights_notes(config, merging), *reading_notes(models)]
        _write(artifact, merging, {"read": read, "notes": notes})
        return merge_report(artifact)


def _with_models(config: MergeConfig) -> MergeConfig:
    """The config with the models of the run where it names none: the trained one, then its base.

    Raises:
        ConfigError: The run has no trained model, or weights are not one a model.
    """
    if config.models:
        return config
    run = RunDir(config.run_dir)
    names = default_models(run, "MODEL MODEL ...")[::-1]
    config.check_models(tuple(names))
    return replace(config, models=tuple(names))


def _readings(config: MergeConfig) -> dict[str, Reading]:
    """Name -> how its files are read, the base last."""
    run = RunDir(config.run_dir).first_round
    embeddings = read_finished(run, "embeddings") if is_begun(run, "embeddings") else None
    names = [*config.models, *([config.base] if config.base else [])]
    return model_readings(config, embeddings, list(dict.fromkeys(names)))


def _merging(config: MergeConfig, opened: list[ModelFolder]) -> Merging:
    """The models in the order of the config, a name that stands twice twice."""
    by_name = {one.name: one for one in opened}
    models = [by_name[name] for name in config.models]
    weights = list(config.weights or [1 / len(models)] * len(models))
    if config.method != "task":
        weights = shares_of(weights)
    return Merging(models, config.method, weights, by_name[config.base] if config.base else None)


def _fields(config: MergeConfig, merging: Merging) -> dict[str, Any]:
    """The key: models stand for what they are, not by their names."""
    return {
        **key_fields(config, MERGED),
        "weights": list(merging.weights),
        "models": [one.digest for one in merging.models],
        "base": None if merging.base is None else merging.base.digest,
        "small_files": merging.models[0].small_digest,
    }


def _weights_notes(config: MergeConfig, merging: Merging) -> list[str]:
    """What was made of weights that do not sum to 1."""
    if config.method == "task" or abs(sum(config.weights or (1,)) - 1) < _SUM_TO_1:
        return []
    given, used = (
        ", ".join(f"{one:.4g}" for one in weights) for weights in (config.weights, merging.weights)
    )
    return [f"the weights {given} do not sum to 1; they were divided by their sum: {used}"]


def _write(artifact: Artifact, merging: Merging, said: dict[str, list[str]]) -> None:
    """Write weights, small files and the card beside, then swap them in."""
    first, files = merging.models[0], list[str]()
    artifact.begin([first.weight_files[0].name])
    files += merging.write(artifact.folder)
    for name in first.small_files:
        with atomic(artifact.folder / name) as path:
            shutil.copyfile(first.folder / name, path)
        files.append(name)
    rows = [
        {
            "model": one.name,
            "weight": weight,
            "weights": one.digest,
            "cosine": cosine,
            "relative": relative,
        }
        for one, weight, cosine, relative in merging.figures()
    ]
    _write_card(artifact.folder, merged_card(merging.method, rows, first.settings))
    counts = MergeCounts(
        models=len(merging.models),
        tensors=len(first.tensors),
        parameters=merging.num_parameters,
    )
    extra = {"models": rows, "stored": _formats(first), **said}
    artifact.finish(sorted([*files, CARD]), counts=counts, extra=extra)


def _write_card(folder: Path, card: str) -> None:
    with atomic(folder / CARD) as path:
        path.write_text(card, "utf-8")


def _formats(model: ModelFolder) -> str:
    """Number formats of the weights, as safetensors call them."""
    return " and ".join(sorted({one.dtype for one in model.tensors.values()}))

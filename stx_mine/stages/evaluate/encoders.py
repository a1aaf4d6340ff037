"""The models of an evaluation, each read as the run had it."""

from pathlib import Path
from typing import Any

from stx_mine.errors import ConfigError
from stx_mine.models.config import Reading
from stx_mine.models.encoder import SentenceTransformerEncoder
from stx_mine.models.load import PREFIX
from stx_mine.stages.embed.config import DEFAULT_MODEL
from stx_mine.stages.evaluate.config import EvaluateConfig
from stx_mine.store.artifact import MANIFEST, read_manifest
from stx_mine.store.run_dir import RunDir


def open_encoders(config: EvaluateConfig, run: RunDir) -> list[SentenceTransformerEncoder]:
    """Load the models that are named, or the base model and the trained one.

    Raises:
        ConfigError: There is none to evaluate, or an option fits none, or several.
        ModelError: One cannot be loaded.
    """
    embedded = run.first_round.folder("embeddings")
    made = read_manifest(embedded).extra if (embedded / MANIFEST).exists() else None
    names = list(dict.fromkeys(config.models or _default_models(run, made)))
    readings = {name: _reading(config, name) for name in names}
    _refuse_unread(config, readings)
    if made is not None and made["model"] in readings:
        base = made["model"]
        readings[base] = readings[base].as_recorded(made["reading"])
    return [
        SentenceTransformerEncoder.load(
            name, config.device, None, config.encode_batch_size, reading
        )
        for name, reading in readings.items()
    ]


def _default_models(run: RunDir, made: dict[str, Any] | None) -> list[str]:
    """The model that embedded round 1, if one did, and the one that this run trained.

    Raises:
        ConfigError: There is neither.
    """
    trained = run.folder("model")
    base = DEFAULT_MODEL if made is None else made["model"]
    models = [base] if base else []
    models += [str(trained)] if (trained / MANIFEST).exists() else []
    if not models:
        raise ConfigError(
            f"expected --models, found none, and {run.path} was embedded without a model; name one"
        )
    return models


def _reading(config: EvaluateConfig, name: str) -> Reading:
    """What the options say of one of several models: a folder has no revision, most pool."""
    asked, folder = config.reading, Path(name)
    if name.startswith(PREFIX) or (folder / "modules.json").exists():
        return asked.of_another()
    return Reading(
        asked.trust_remote_code, None if folder.is_dir() else asked.revision, asked.pooling
    )


def _refuse_unread(config: EvaluateConfig, readings: dict[str, Reading]) -> None:
    """Refuse options that no model takes, and a revision that is of several.

    Raises:
        ConfigError: One of them is given.
    """
    takers = {
        f"--revision {config.revision}": [n for n, one in readings.items() if one.revision],
        f"--pooling {config.pooling}": [n for n, one in readings.items() if one.pooling],
    }
    for words, asked in zip(takers, (config.revision, config.pooling), strict=True):
        if asked is not None and not takers[words]:
            raise ConfigError(f"{words} fits none of {', '.join(readings)}; leave it out")
    if config.revision is not None and len(takers[f"--revision {config.revision}"]) > 1:
        raise ConfigError(
            f"--revision {config.revision} is of one model, found several on the hub ("
            f"{', '.join(takers[f'--revision {config.revision}'])}); evaluate them one by one"
        )

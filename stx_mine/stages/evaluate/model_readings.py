"""How the files of several models are read that one command names."""

from collections.abc import Sequence
from pathlib import Path

from stx_mine.errors import ConfigError
from stx_mine.models.config import ModelFields, Reading
from stx_mine.models.load import PREFIX
from stx_mine.store.artifact import Manifest


def model_readings(
    config: ModelFields, embeddings: Manifest | None, names: Sequence[str]
) -> dict[str, Reading]:
    """Name of a model -> how its files are read: as asked for, else as the run had them.

    Args:
        config: What is asked for.
        embeddings: The first `embeddings/` of the run; None where it has none.
        names: The models.

    Raises:
        ConfigError: An option fits none of them, or several.
    """
    readings = {name: _reading(config, name) for name in names}
    _refuse_unread(config, readings)
    base = None if embeddings is None else embeddings.extra["model"]
    if embeddings is not None and base in readings:
        readings[base] = readings[base].as_recorded(embeddings.extra["reading"])
    return readings


def _reading(config: ModelFields, name: str) -> Reading:
    """What the options say of one of several models: a folder has no revision, most pool."""
    asked, folder = config.reading, Path(name)
    if name.startswith(PREFIX) or (folder / "modules.json").exists():
        return asked.of_another()
    return Reading(
        asked.trust_remote_code, None if folder.is_dir() else asked.revision, asked.pooling
    )


def _refuse_unread(config: ModelFields, readings: dict[str, Reading]) -> None:
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
            f"{', '.join(takers[f'--revision {config.revision}'])}); give the others as folders"
        )

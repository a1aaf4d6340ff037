"""Which model `train` would train, and how it is read."""

from stx_mine.models.config import Reading
from stx_mine.stages.embed.config import DEFAULT_MODEL
from stx_mine.stages.estimate.config import EstimateConfig
from stx_mine.store.artifact import require
from stx_mine.store.manifest import is_begun
from stx_mine.store.run_dir import RunDir


def model_to_train(config: EstimateConfig, run: RunDir) -> tuple[str, int | None, Reading]:
    """Name of the model that `train` would use, the tokens that it reads, how it is read."""
    if not is_begun(run.first_round, "embeddings"):
        return config.model or DEFAULT_MODEL, config.max_length, config.reading
    base = require(run.first_round, "embeddings")
    name, reading = config.model or base.extra["model"], config.reading
    if name is not None and name == base.extra["model"]:
        reading = reading.as_recorded(base.extra["reading"])
    return name, config.max_length or base.fields["max_length"], reading

"""The model to train, with the prompts and the length limit that the run has for it."""

from sentence_transformers import SentenceTransformer

from stx_mine.errors import ConfigError
from stx_mine.models.encoder import SentenceTransformerEncoder
from stx_mine.stages.train.choice import check_model
from stx_mine.stages.train.config import TrainConfig
from stx_mine.stages.train.lora import add_lora
from stx_mine.stages.train.processes import Processes
from stx_mine.store.artifact import MANIFEST, Manifest, require
from stx_mine.store.run_dir import RunDir


def load_student(
    config: TrainConfig, run: RunDir, batches: Manifest, processes: Processes
) -> SentenceTransformerEncoder:
    """Load the model to train.

    Raises:
        ConfigError: No model is named or known, or the loss cannot use it.
        ModelError: It cannot be loaded.
        ArtifactError: There are no embeddings.
    """
    name, max_length, prompts = _base_model(config, run, batches)
    student = SentenceTransformerEncoder.load(name, processes.device, max_length, 1)
    # Prompts that `embed` was given are those of the run, in training and in the model it leaves.
    student.model.prompts.update(prompts)
    check_model(config, student.model, processes.size)
    return student


def add_adapters(config: TrainConfig, model: SentenceTransformer) -> None:
    """Add the low-rank adapters that the config asks for, if it does."""
    if config.lora_rank is not None:
        alpha = config.lora_alpha or 2 * config.lora_rank
        add_lora(model, config.lora_rank, alpha, config.seed)


def _base_model(
    config: TrainConfig, run: RunDir, batches: Manifest
) -> tuple[str, int | None, dict[str, str]]:
    """Name of the model to train, its length limit, and the prompts that `embed` was given.

    Raises:
        ConfigError: (text, label) batches of a file are all there is, and no model is named.
        ArtifactError: There are no embeddings.
    """
    first = run.first_round
    if (
        batches.fields["layout"] == "labels"
        and not (first.folder("embeddings") / MANIFEST).exists()
    ):
        if config.model is None:
            raise ConfigError(
                f"expected --model, found none and no model that embedded {first.path}/; give "
                "--model package:wordllama or another"
            )
        return config.model, config.max_length, {}
    embedded = require(first, "embeddings")
    name = config.model or embedded.extra["model"]
    length = config.max_length or embedded.fields["max_length"]
    return name, length, embedded.extra["prompts"]

"""The model to train, with the prompts and the length limit that the run has for it."""

from dataclasses import replace

from sentence_transformers import SentenceTransformer

from stx_mine.errors import ConfigError
from stx_mine.models.adapter import has_adapter
from stx_mine.models.config import Reading
from stx_mine.models.encoder import SentenceTransformerEncoder
from stx_mine.models.load import open_model
from stx_mine.stages.train.choice import check_model
from stx_mine.stages.train.config import TrainConfig
from stx_mine.stages.train.dropout import set_dropout
from stx_mine.stages.train.lora import add_lora, merge_adapters, train_adapters
from stx_mine.stages.train.processes import Processes
from stx_mine.stages.train.trainer import count_parameters
from stx_mine.store.artifact import Manifest, require
from stx_mine.store.manifest import is_begun
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
    name, max_length, prompts, reading = _base_model(config, run, batches)
    student = SentenceTransformerEncoder.load(name, processes.device, max_length, 1, reading)
    # Prompts that `embed` was given are those of the run, in training and in the model it leaves.
    student.model.prompts.update(prompts)
    check_model(config, student.model, processes.size)
    if config.dropout is not None:
        set_dropout(student.model, config.dropout)
    return student


def load_base(config: TrainConfig, run: RunDir, batches: Manifest) -> SentenceTransformer:
    """Load the model that training began with once more, on the CPU, whole.

    Raises:
        ModelError: It cannot be loaded.
        ArtifactError: There are no embeddings.
    """
    name, max_length, prompts, reading = _base_model(config, run, batches)
    model = open_model(name, "cpu", max_length, reading=reading).model
    model.prompts.update(prompts)
    return model


def add_adapters(
    config: TrainConfig, student: SentenceTransformerEncoder
) -> SentenceTransformerEncoder:
    """Add the adapters that the config asks for; those that the model came with are trained on.

    Returns:
        The student, with a note of what becomes of the adapter that it came with.
    """
    model, brought = student.model, has_adapter(student.model)
    note = ""
    if config.lora_rank is not None:
        if brought:
            merge_adapters(model)
            note = "the adapter that it came with was merged into its base, a new one was trained"
        add_lora(model, config.lora_rank, config.lora_alpha or 2 * config.lora_rank, config.seed)
    elif brought:
        train_adapters(model)
        note = (
            f"the adapter that it came with was trained on ({count_parameters(model):,} weights, "
            "its base is frozen) and merged into its base at the end"
        )
    return replace(student, notes=(*student.notes, note)) if note else student


def _base_model(
    config: TrainConfig, run: RunDir, batches: Manifest
) -> tuple[str, int | None, dict[str, str], Reading]:
    """Name of the model to train, its length limit, the prompts of `embed`, how it is read.

    Raises:
        ConfigError: (text, label) batches of a file are all there is, and no model is named.
        ArtifactError: There are no embeddings.
    """
    first = run.first_round
    if batches.fields["layout"] == "labels" and not is_begun(first, "embeddings"):
        if config.model is None:
            raise ConfigError(
                f"expected --model, found none and no model that embedded {first.path}/; give "
                "--model package:wordllama or another"
            )
        return config.model, config.max_length, {}, config.reading
    embedded = require(first, "embeddings")
    name = config.model or embedded.extra["model"]
    length = config.max_length or embedded.fields["max_length"]
    reading = config.reading
    if config.model in (None, embedded.extra["model"]) and embedded.extra["reading"]:
        reading = reading.as_recorded(embedded.extra["reading"])
    return name, length, embedded.extra["prompts"], reading

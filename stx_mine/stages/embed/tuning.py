"""The tuning of a run: whether its model has one, whether trials pay, the task that runs them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from stx_mine.engine.run import run_on_engine
from stx_mine.engine.tasks import Worker
from stx_mine.errors import ConfigError
from stx_mine.models.load import is_static
from stx_mine.models.runtime import PLAIN
from stx_mine.models.token_inputs import TokenInputs
from stx_mine.stages.embed.choices import BY_ENCODE, Choices, Reason
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.embed.fidelity import fidelity_of
from stx_mine.stages.embed.model_task import ShardEmbedder
from stx_mine.stages.embed.trials import Asked, default_tuning, tune
from stx_mine.store.files import read_json, write_json
from stx_mine.store.names import SCRATCH

_CHOICES = f"{SCRATCH}choices.json"
# Texts of a trial, and the fewest texts of a run for which trials pay.
_TRIAL_TEXTS, _FEWEST = 512, 20_000
_WHY_UNTUNED: dict[Reason, str] = {
    "static": "it is a table of token embeddings",
    "encode": BY_ENCODE,
}


def choose_tuning(worker: ShardEmbedder, here: ShardEmbedder, folder: Path) -> Choices:
    """How texts go through the model, chosen where they will be embedded.

    Args:
        worker: What embeds, on the engine and the devices of the config.
        here: The same in this process.
        folder: Where the task writes what it chose, until it is read here.

    Raises:
        ConfigError: An option of this kind is given, and the model would not use it.
    """
    if fixed := _fixed(here):
        _refuse_unused(worker.config, fixed)
        if worker.runtime == PLAIN:
            return Choices(None, fixed)
    if (device_type := _device_type(worker, here)) and not _pays(here, worker.config):
        return Choices(default_tuning(device_type, asked_of(worker.config)), "default")
    path = folder / _CHOICES
    try:
        run_on_engine(
            [_CHOICES],
            Tuner(worker, folder.absolute(), fixed),
            worker.config,
            "measuring batch sizes",
        )
        return Choices.of_plan(read_json(path))
    finally:
        path.unlink(missing_ok=True)


def _fixed(embedder: ShardEmbedder) -> Reason | None:
    """Why there is nothing to choose; None where there is."""
    if embedder.function is not None:
        return "function"
    if is_static(embedder.model):
        return "static"
    texts, prompt = embedder.sample("passages", _TRIAL_TEXTS)
    inputs = TokenInputs.of(embedder.model, "passage", prompt, texts)
    return "encode" if inputs is None else None


def _device_type(worker: ShardEmbedder, here: ShardEmbedder) -> str | None:
    """Type of the device that embeds, such as cuda; None where Ray decides."""
    if worker.devices:
        return worker.devices[0].partition(":")[0]
    return None if worker.config.engine == "ray" else here.model.device.type


def _pays(embedder: ShardEmbedder, config: EmbedConfig) -> bool:
    """Whether there is something to measure, and enough to do for it."""
    is_exact = embedder.runtime == PLAIN and config.precision in ("auto", "float32")
    return not is_exact or embedder.store.num_passages + embedder.store.num_queries >= _FEWEST


def asked_of(config: EmbedConfig) -> Asked:
    """What a config leaves no choice about."""
    if config.backend != "torch":
        # Its numbers and its threads are its own.
        return Asked("float32", config.batch_tokens, 1)
    precision = None if config.precision == "auto" else config.precision
    if precision is None and "flash" in (config.attention or ""):
        # It knows no float32.
        precision = "bfloat16"
    return Asked(precision, config.batch_tokens, config.batches_at_once)


def _refuse_unused(config: EmbedConfig, reason: Reason) -> None:
    asked: dict[str, str | int | None] = {
        "--precision": None if config.precision in ("auto", "float32") else config.precision,
        "--batch-tokens": config.batch_tokens,
        "--batches-at-once": config.batches_at_once,
    }
    if reason == "static":
        asked["--backend"] = None if config.backend == "torch" else config.backend
        asked["--attention"] = config.attention
    for option, value in asked.items():
        if value is not None:
            raise ConfigError(
                f"{option} {value} is for models that take batches of token ids, {config.model} "
                f"does not: {_WHY_UNTUNED[reason]}; leave it out"
            )


@dataclass(frozen=True)
class Tuner(Worker):
    """The tuning task: trials on the device that will embed, and their effect on vectors.

    Attributes:
        embedder: What embeds.
        folder: Where the choices go.
        fixed: Why there is nothing to choose; None where there is.
    """

    embedder: ShardEmbedder
    folder: Path
    fixed: Reason | None

    @property
    def wants_gpu(self) -> bool:
        """As embedding does."""
        return self.embedder.wants_gpu

    @property
    def copies(self) -> Sequence["Tuner"]:
        """Of several devices the first one is tried, with as many cores as it will have."""
        return [replace(self, embedder=copy) for copy in self.embedder.copies]

    def __call__(self, task: str) -> None:
        """Write the choices."""
        tuned = Choices(None, self.fixed) if self.fixed else _tune(self.embedder)
        tuning = tuned.tuning
        precision = tuning.precision if tuning else "float32"
        ways = [self.embedder.runtime.label, None if precision == "float32" else precision]
        if way := ", ".join(name for name in ways if name):
            tuned = replace(tuned, way=way, fidelity=fidelity_of(self.embedder, tuning))
        write_json(self.folder / task, tuned.plan_json())


def _tune(embedder: ShardEmbedder) -> Choices:
    """The tuning of a model that can be tuned; by trials where they pay."""
    config, model = embedder.config, embedder.model
    asked = asked_of(config)
    if embedder.store.num_passages + embedder.store.num_queries < _FEWEST:
        return Choices(default_tuning(model.device.type, asked), "default")
    texts, prompt = embedder.sample("passages", _TRIAL_TEXTS)
    inputs = TokenInputs.of(model, "passage", prompt, texts)
    assert inputs is not None, "what has nothing to choose is not tuned"
    tuning, trials = tune(model, inputs, inputs.tokens(texts), asked)
    return Choices(tuning, "measured", tuple(trials))

"""How the texts of a run go through its model: chosen by trials, its effect known, in words."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from stx_mine.engine.run import run_on_engine
from stx_mine.engine.tasks import Worker
from stx_mine.errors import ConfigError, ModelError
from stx_mine.models.encoder import similarity_of
from stx_mine.models.load import PLAIN, is_static
from stx_mine.models.token_inputs import TokenInputs
from stx_mine.stages.embed.batch_tuning import Asked, Trial, default_tuning, spread, tune
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.embed.core.fidelity import Fidelity, measure_fidelity
from stx_mine.stages.embed.fast_encoder import FastEncoder
from stx_mine.stages.embed.model_task import ROLE_OF_SHARDS, ShardEmbedder
from stx_mine.stages.embed.token_encoder import Tuning
from stx_mine.store.files import read_json, write_json
from stx_mine.store.report import percent

_CHOICES = "embed-choices.json"
# Texts that trials take, and the fewest texts of a run for which they pay.
_TRIAL_TEXTS, _FEWEST = 512, 20_000
# Texts that the effect of half precision is measured on.
_QUERIES, _PASSAGES = 200, 2_000
_STATIC, _BY_ENCODE, _DEFAULT, _MEASURED = "static", "encode", "default", "measured"
_WHY_NOT = {
    _STATIC: "it is a table of token embeddings",
    _BY_ENCODE: "it makes more of texts than token ids",
}


def choose_tuning(worker: ShardEmbedder, here: ShardEmbedder, folder: Path) -> dict[str, Any]:
    """How texts go through the model, chosen where they will be embedded.

    Args:
        worker: What embeds, on the engine and the devices of the config.
        here: The same in this process.
        folder: Where a choice that is made elsewhere is left for a moment.

    Returns:
        JSON-ready choices, for the plan: `tuning`, the reason, the trials, and the fidelity to
        float32 of whatever is not that of torch.

    Raises:
        ConfigError: An option of this kind is given, and the model would not heed it.
    """
    if fixed := _fixed(here):
        _refuse_unheeded(worker.config, fixed)
        if worker.runtime == PLAIN:
            return {"tuning": None, "reason": fixed, "trials": [], "fidelity": None}
    if (device_type := _device_type(worker, here)) and not _pays(here, worker.config):
        tuning = default_tuning(device_type, asked_of(worker.config))
        return {"tuning": asdict(tuning), "reason": _DEFAULT, "trials": [], "fidelity": None}
    path = folder / _CHOICES
    try:
        run_on_engine([_CHOICES], Tuner(worker, folder.absolute(), fixed), worker.config, "tune")
        return read_json(path)
    finally:
        path.unlink(missing_ok=True)


def _fixed(embedder: ShardEmbedder) -> str | None:
    """Why there is nothing to choose; None where there is."""
    if embedder.function is not None:
        return "function"
    if is_static(embedder.model):
        return _STATIC
    texts, prompt = _sample(embedder, "passages", _TRIAL_TEXTS)
    inputs = TokenInputs.of(embedder.model, "passage", prompt, texts)
    return _BY_ENCODE if inputs is None else None


def _device_type(worker: ShardEmbedder, here: ShardEmbedder) -> str | None:
    """Type of the device that embeds, such as cuda; None where Ray will say."""
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


def _refuse_unheeded(config: EmbedConfig, reason: str) -> None:
    asked: dict[str, str | int | None] = {
        "--precision": None if config.precision in ("auto", "float32") else config.precision,
        "--batch-tokens": config.batch_tokens,
        "--batches-at-once": config.batches_at_once,
    }
    if reason == _STATIC:
        asked["--backend"] = None if config.backend == "torch" else config.backend
        asked["--attention"] = config.attention
    for option, value in asked.items():
        if value is not None:
            raise ConfigError(
                f"{option} {value} is for models that take batches of token ids, {config.model} "
                f"does not: {_WHY_NOT[reason]}; leave it out"
            )


@dataclass(frozen=True)
class Tuner(Worker):
    """The tuning task: trials on the device that will embed, and what half precision does there.

    Attributes:
        embedder: What embeds.
        folder: Where the choices go.
        fixed: Why there is nothing to choose; None where there is.
    """

    embedder: ShardEmbedder
    folder: Path
    fixed: str | None

    @property
    def wants_gpu(self) -> bool:
        """As embedding does."""
        return self.embedder.wants_gpu

    @property
    def copies(self) -> Sequence["Tuner"]:
        """Of several devices the first one is tried, with its share of the cores."""
        return [replace(self, embedder=one) for one in self.embedder.copies]

    def __call__(self, task: str) -> None:
        """Write the choices."""
        tuning, reason, trials = (None, self.fixed, []) if self.fixed else _tune(self.embedder)
        precision = tuning.precision if tuning else "float32"
        ways = [self.embedder.runtime.label, None if precision == "float32" else precision]
        way = ", ".join(one for one in ways if one)
        found = _fidelity(self.embedder, tuning) if way else None
        write_json(
            self.folder / task,
            {
                "tuning": asdict(tuning) if tuning else None,
                "reason": reason,
                "trials": [
                    {**asdict(one.tuning), "tokens_per_s": one.tokens_per_s} for one in trials
                ],
                "fidelity": {"way": way, **found.to_json()} if found else None,
            },
        )


def _tune(embedder: ShardEmbedder) -> tuple[Tuning, str, list[Trial]]:
    """How texts go through the model, why, and what was tried."""
    config, model = embedder.config, embedder.model
    asked = asked_of(config)
    if embedder.store.num_passages + embedder.store.num_queries < _FEWEST:
        return default_tuning(model.device.type, asked), _DEFAULT, []
    texts, prompt = _sample(embedder, "passages", _TRIAL_TEXTS)
    inputs = TokenInputs.of(model, "passage", prompt, texts)
    assert inputs is not None, "what has nothing to choose is not tuned"
    tuning, trials = tune(model, inputs, inputs.tokens(texts), asked)
    return tuning, _MEASURED, trials


def refuse_overlap(config: EmbedConfig, fidelity: dict[str, Any] | None) -> None:
    """Refuse half precision that changes the top 100 more than is allowed.

    Raises:
        ModelError: It does.
    """
    if fidelity is not None and fidelity["overlap_100"] < config.min_overlap:
        raise ModelError(
            f"expected an overlap of at least {config.min_overlap:g} with the top 100 of float32, "
            f"found {fidelity['overlap_100']:.4f} with {fidelity['way']}; leave out that option "
            "(--precision float32), or give a smaller --min-overlap"
        )


def _fidelity(embedder: ShardEmbedder, tuning: Tuning | None) -> Fidelity:
    """What the way of a run does to vectors, against float32 and plain torch."""
    wanted = {"queries": _QUERIES, "passages": _PASSAGES}
    exact_tuning = tuning and replace(tuning, precision="float32")
    plain = embedder.model if embedder.runtime == PLAIN else _plain(embedder)

    def vectors(
        model: SentenceTransformer, tuning: Tuning | None
    ) -> dict[str, NDArray[np.float32]]:
        encoder = FastEncoder(model, tuning)
        samples = {role: _sample(embedder, role, number) for role, number in wanted.items()}
        return {
            role: encoder.embed(texts, ROLE_OF_SHARDS[role], prompt).vectors
            for role, (texts, prompt) in samples.items()
        }

    exact, lower = vectors(plain, exact_tuning), vectors(embedder.model, tuning)
    similarity = similarity_of(embedder.model, embedder.config.model)
    return measure_fidelity(
        exact["queries"], lower["queries"], exact["passages"], lower["passages"], similarity
    )


def _plain(embedder: ShardEmbedder) -> SentenceTransformer:
    """The model as torch runs it.

    Raises:
        ModelError: Its weights are not there.
    """
    try:
        return embedder.load(PLAIN)
    except ModelError as error:
        raise ModelError(
            f"what {embedder.runtime.label} does to vectors cannot be known without the weights of "
            f"torch; put them into the folder of the model too ({error})"
        ) from error


def _sample(embedder: ShardEmbedder, role: str, number: int) -> tuple[pa.ChunkedArray, str | None]:
    """Texts at even distances, and the prompt of the first."""
    column = embedder.table(role).column("text")
    places = spread(len(column), number)
    prompt = embedder.prompts(role, 0, 1)[0][0]
    return column.take(pa.array(places)), prompt


def described(extra: dict[str, Any], counts: dict[str, Any]) -> list[str]:
    """Sentences on how texts went through the model, and what was lost."""
    choices, fidelity = extra["tuning"], extra["fidelity"]
    tuning, lines = choices["tuning"], []
    if choices["reason"] in (_DEFAULT, _MEASURED):
        way = fidelity["way"] if fidelity else tuning["precision"]
        lines.append(
            f"{way}, {tuning['batch_tokens']:,} tokens a batch, batches at once: "
            f"{tuning['batches_at_once']} ({choices['reason']})"
        )
    elif choices["reason"] == _BY_ENCODE:
        lines.append(f"through the model's own encode: {_WHY_NOT[_BY_ENCODE]}")
    if fidelity:
        lines.append(
            f"{fidelity['way']} against float32: cosine {fidelity['mean_cosine']:.5f} on "
            f"average, {fidelity['worst_cosine']:.5f} at worst; overlap of the top 10 "
            f"{fidelity['overlap_10']:.3f}, of the top 100 {fidelity['overlap_100']:.3f} "
            f"({fidelity['queries']:,} queries, {fidelity['passages']:,} passages)"
        )
    if counts["truncated"]:
        texts = counts["queries"] + counts["passages"] - counts["uncounted"]
        whole = counts["tokens"] + counts["tokens_lost"]
        lines.append(
            f"truncated: {percent(counts['truncated'], texts)} of the texts, "
            f"{percent(counts['tokens_lost'], whole)} of the tokens"
        )
    if counts["cached"]:
        texts = counts["queries"] + counts["passages"]
        lines.append(f"from the cache: {percent(counts['cached'], texts)} of the texts")
    return lines

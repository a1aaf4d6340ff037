"""The embedding task: the texts of one shard to one file of vectors."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from stx_mine.core.role import PLURALS, Role
from stx_mine.models.encoder import model_contract
from stx_mine.models.limits import embedding_dim
from stx_mine.models.load import OpenedModel, open_model
from stx_mine.models.runtime import Runtime
from stx_mine.settings import key_fields
from stx_mine.stages.embed.cache import VectorCache, text_keys
from stx_mine.stages.embed.choices import Choices
from stx_mine.stages.embed.counts import ShardCounts
from stx_mine.stages.embed.devices import DeviceWorker
from stx_mine.stages.embed.fast_encoder import Embedded, FastEncoder
from stx_mine.stages.embed.function_encoder import FunctionEncoder
from stx_mine.stages.embed.shards import VectorWriter
from stx_mine.stages.embed.text_function import function_of
from stx_mine.store.artifact import PLAN
from stx_mine.store.files import read_json

ROLE_OF_SHARDS: dict[str, Role] = {plural: role for role, plural in PLURALS.items()}
# Texts of a role that say how its texts become inputs of the model.
_SAMPLE = 4_096


@dataclass(frozen=True)
class ShardEmbedder(DeviceWorker, VectorWriter):
    """Embeds the texts of a shard; the plan in the folder says how they go through the model.

    Attributes:
        place: Working directory of the caller, where the module of --encoder may lie.
    """

    place: Path

    @property
    def wants_gpu(self) -> bool:
        """Unless another device is named, or a function or a server embeds."""
        return not self.config.is_function and self.may_be_gpu

    @property
    def tasks_at_once(self) -> int:
        """Two on a GPU: one shard is tokenised while the other has the model."""
        if self.function is not None or self.model.device.type != "cuda":
            return 1
        # Threads would each open their own.
        for name in ("shards", "encoder", "cache"):
            getattr(self, name)
        return 2

    @property
    def runtime(self) -> Runtime:
        """What runs the network."""
        return Runtime(self.config.backend, self.config.model_file, self.config.attention)

    def load(self, runtime: Runtime) -> OpenedModel[SentenceTransformer]:
        """The model, with something to run its network.

        Raises:
            ModelError: It cannot be loaded.
        """
        config = self.config
        # Where half precision is asked for, float32 of a file in half would be twice the memory.
        halves = config.precision in ("bfloat16", "float16") or "flash" in (config.attention or "")
        return open_model(
            config.model,
            self.device,
            config.max_length,
            runtime,
            config.reading,
            as_stored=halves,
        )

    @property
    def model(self) -> SentenceTransformer:
        """The model."""
        return self.opened.model

    @cached_property
    def opened(self) -> OpenedModel[SentenceTransformer]:
        """The model, and how it was read.

        Raises:
            ModelError: It cannot be loaded.
            ConfigError: It has fewer dimensions than are to be kept.
        """
        config = self.config
        self.share_cores()
        opened = self.load(self.runtime)
        model = opened.model
        dim = embedding_dim(model)
        self.check_dimensions(dim, config.model)
        if config.truncate_dim is not None:
            model.truncate_dim = config.truncate_dim
        return opened

    @cached_property
    def function(self) -> FunctionEncoder | None:
        """The function or the server that embeds, where one is named instead of a model.

        Raises:
            ModelError: There is no such function.
        """
        function = function_of(self.config, self.folder, self.place)
        return None if function is None else FunctionEncoder(function)

    @cached_property
    def encoder(self) -> FastEncoder | FunctionEncoder:
        """What embeds, as the plan says."""
        if self.function is not None:
            return self.function
        samples = {
            of_role: self.table(role).column("text").slice(0, _SAMPLE)
            for role, of_role in ROLE_OF_SHARDS.items()
        }
        return FastEncoder(self.model, self._choices.tuning, samples)

    @cached_property
    def cache(self) -> VectorCache | None:
        """Vectors of earlier runs; None where no cache is named.

        Raises:
            ArtifactError: It cannot be written, or is damaged.
        """
        if self.config.embedding_cache is None:
            return None
        beside = {"shard_size", "query_prompt", "passage_prompt", "model", "precision"}
        beside |= {"query_vectors", "passage_vectors"}
        space = {k: v for k, v in key_fields(self.config, "embeddings").items() if k not in beside}
        tuning = self._choices.tuning
        space |= {"model": self.contract(), "precision": tuning and tuning.precision}
        return VectorCache.open(self.config.embedding_cache, space)

    @cached_property
    def _choices(self) -> Choices:
        return Choices.of_plan(read_json(self.folder / PLAN)["choices"])

    def contract(self) -> dict[str, Any]:
        """What decides the vectors, except for the prompts of sources; JSON-ready."""
        return dict(self._contract)

    @cached_property
    def _contract(self) -> dict[str, Any]:
        if self.function is not None:
            return self.function.contract(self.config.similarity or "cosine")
        return model_contract(self.model, self.config.model)

    def table(self, role: str) -> pa.Table:
        """The texts of queries or passages."""
        return self.store.queries if role == "queries" else self.store.passages

    def __call__(self, name: str) -> None:
        """Embed one shard.

        Raises:
            InputError: A vector is not finite.
            ModelError: Memory does not suffice for a single text.
        """
        role, start = self.shards[name]
        texts = self.table(role).column("text").slice(start, self.config.shard_size)
        vectors, counts = self._embed(texts, role, start)
        self.write(name, vectors, counts)

    def _embed(
        self, texts: pa.ChunkedArray, role: str, start: int
    ) -> tuple[NDArray[Any], ShardCounts]:
        """Vectors of consecutive texts from id `start`, each with the prompt of its source."""
        by_prompt = self.prompts(role, start, start + len(texts))
        if len(by_prompt) == 1:
            return self._embed_with(by_prompt[0][0], texts, role)
        vectors = np.empty((len(texts), self.encoder.dim), self.config.dtype)
        counts = ShardCounts()
        for prompt, places in by_prompt:
            vectors[places], found = self._embed_with(prompt, texts.take(pa.array(places)), role)
            counts += found
        return vectors, counts

    def _embed_with(
        self, prompt: str | None, texts: pa.ChunkedArray, role: str
    ) -> tuple[NDArray[Any], ShardCounts]:
        """Vectors of texts with one prompt, from the cache where it has them."""
        if self.cache is None:
            return self._embed_new(prompt, texts, role)
        keys = text_keys(texts, role, prompt)
        cached, known = self.cache.find(keys, self.encoder.dim)
        vectors = np.empty((len(texts), self.encoder.dim), self.config.dtype)
        vectors[cached] = known
        new = np.flatnonzero(~cached)
        vectors[new], counts = self._embed_new(prompt, texts.take(pa.array(new)), role)
        self.cache.add(keys[new], vectors[new])
        num_cached = len(texts) - len(new)
        return vectors, counts + ShardCounts(num_cached, num_cached, num_cached)

    def _embed_new(
        self, prompt: str | None, texts: pa.ChunkedArray, role: str
    ) -> tuple[NDArray[Any], ShardCounts]:
        found = self.encoder.embed(texts, ROLE_OF_SHARDS[role], prompt)
        vectors = self.stored(
            found.vectors,
            lambda row: f"the vector of the text {texts[row].as_py()[:60]!r} of the {role}",
            "use another model, --precision float32 or --dtype float32, or remove these texts",
        )
        return vectors, _counts(found, len(texts))

    def sample(self, role: str, number: int) -> tuple[pa.ChunkedArray, str | None]:
        """Up to `number` texts of a role at even distances, and the prompt of the first."""
        column = self.table(role).column("text")
        last = max(0, len(column) - 1)
        places = np.unique(np.linspace(0, last, min(len(column), number)).astype(np.int64))
        return column.take(pa.array(places)), self.prompts(role, 0, 1)[0][0]

    def prompts(
        self, role: str, start: int, stop: int
    ) -> list[tuple[str | None, NDArray[np.int64]]]:
        """The prompts of a range of texts, each with the places, from `start`, that get it."""
        own = self.config.query_prompt if role == "queries" else self.config.passage_prompt
        if self.store.sources is None:
            return [(own, np.arange(stop - start))]
        found = self.store.sources.prompts_of(ROLE_OF_SHARDS[role], start, stop)
        return [(own if one is None else one, ids) for one, ids in found if len(ids)]


def _counts(found: Embedded, num_texts: int) -> ShardCounts:
    return ShardCounts(
        texts=num_texts,
        tokens=found.num_tokens or 0,
        uncounted=num_texts if found.num_tokens is None else 0,
        tokens_lost=found.num_lost,
        truncated=found.num_truncated,
        halvings=found.num_halvings,
    )

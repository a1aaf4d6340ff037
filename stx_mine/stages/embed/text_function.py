"""What embeds without a model in this process: a function of a person, or a server."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from stx_mine.core.similarity import unit_rows
from stx_mine.errors import ModelError
from stx_mine.models.server import ModelServer, settled
from stx_mine.models.user_function import UserFunction
from stx_mine.stages.embed.cache import spaces_of
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.store.artifact import PLAN
from stx_mine.store.files import json_or_empty

# Texts of a request.
_REQUEST_TEXTS = 64
_PROBES = (
    "how many dimensions?",
    "The river rose above its banks after three days of rain.",
    "error: cannot open shared object file",
    "Wie spät ist es?",
)


class TextFunction(Protocol):
    """Makes vectors of texts."""

    @property
    def name(self) -> str:
        """The option that names it, with its value."""

    @property
    def call_texts(self) -> int:
        """Texts of a call, to begin with."""

    def __call__(self, texts: list[str]) -> NDArray[Any]:
        """A row per text."""

    def contract(self) -> dict[str, Any]:
        """What decides the vectors, as far as it can be seen; JSON-ready."""


@dataclass(frozen=True)
class PersonsFunction:
    """A function that a person wrote.

    Attributes:
        function: It.
    """

    function: UserFunction
    call_texts: int = 1_024

    @property
    def name(self) -> str:
        """The option that names it, with its value."""
        return f"{self.function.option} {self.function.name}"

    def __call__(self, texts: list[str]) -> NDArray[Any]:
        """What it returns, as an array."""
        return self.function(texts)

    def contract(self) -> dict[str, Any]:
        """Its name, and the source of its module.

        What it loads cannot be seen: with other weights under the same code, say --overwrite, and
        name another --embedding-cache.
        """
        return {"encoder": self.function.name, "source": self.function.source_digest()}


@dataclass(frozen=True)
class EmbeddingServer:
    """A server that embeds (`POST embeddings`).

    Attributes:
        server: It.
        earlier: Contracts of vectors that were made before, perhaps by its model.
    """

    server: ModelServer
    earlier: tuple[dict[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """The option that names it, with its value."""
        return self.server.name

    @property
    def call_texts(self) -> int:
        """So many that all requests at a time are at work."""
        return 4 * _REQUEST_TEXTS * self.server.at_once

    def __call__(self, texts: list[str]) -> NDArray[np.float32]:
        """float32 (texts, dim).

        Raises:
            ModelError: It answers something else, or nothing.
        """
        starts = range(0, len(texts), _REQUEST_TEXTS)
        parts = self.server.map(lambda at: self._ask(texts[at : at + _REQUEST_TEXTS]), starts)
        dims = {part.shape[1] for part in parts}
        if len(dims) > 1:
            raise ModelError(
                f"expected vectors of one length from {self.name}, found {sorted(dims)}; see that "
                "it serves one model"
            )
        return np.concatenate(parts)

    def _ask(self, texts: list[str]) -> NDArray[np.float32]:
        answer = self.server.post("embeddings", {"input": texts})
        vectors = self.server.values_of(answer, "data", "an embedding", "texts", len(texts), ndim=2)
        # What is too large for float32 becomes infinite, and is refused.
        with np.errstate(over="ignore"):
            return vectors.astype(np.float32)

    def contract(self) -> dict[str, Any]:
        """The name of its model, and what that makes of some texts, since weights can't be seen."""
        return {"server_model": self.server.model, "probes": self._probes}

    @cached_property
    def _probes(self) -> list[list[float]]:
        # One at a time, so that each is computed alone.
        vectors = np.concatenate([self._ask([text]) for text in _PROBES])
        cosines = unit_rows(vectors) @ unit_rows(vectors).T
        lengths = np.linalg.norm(vectors, axis=1)[:, None] / max(1e-9, np.linalg.norm(vectors[0]))
        shown = np.concatenate([cosines, unit_rows(vectors)[:, :16], lengths], axis=1)
        return settled(shown.astype(np.float64), [one.get("probes") for one in self.earlier])


def function_of(config: EmbedConfig, folder: Path, place: Path) -> TextFunction | None:
    """What embeds instead of a model in this process, where there is such.

    Args:
        config: The config.
        folder: Of the embeddings, which may be there.
        place: Where the module of a function may lie.

    Raises:
        ModelError: There is no such function.
    """
    if config.encoder is not None:
        return PersonsFunction(UserFunction.find("--encoder", config.encoder, place))
    if config.is_function:
        server = ModelServer.of_config("--model", config.model, config)
        return EmbeddingServer(server, tuple(_contracts(config, folder)))
    return None


def _contracts(config: EmbedConfig, folder: Path) -> Iterator[dict[str, Any]]:
    """Contracts of vectors that are there: of these embeddings, and in the cache."""
    kept = json_or_empty(folder / PLAN).get("fields")
    spaces = () if config.embedding_cache is None else spaces_of(config.embedding_cache)
    for space in (kept, *spaces):
        contract = space.get("model") if isinstance(space, dict) else None
        if isinstance(contract, dict):
            yield contract

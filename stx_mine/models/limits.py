"""How many tokens a model reads and how many dimensions it has, also where it does not say."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Router
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from torch import nn

from stx_mine.errors import ModelError


def limit_tokens(model: SentenceTransformer, name: str, max_length: int) -> None:
    """Let a model read so many tokens of a text at most, and keep that when it is saved.

    A table of token embeddings has no limit of its own: its tokenizer truncates.

    Args:
        model: The model, changed in place.
        name: How the user named it.
        max_length: The limit; special tokens count where the model adds any.

    Raises:
        ModelError: The model has no limit that could be set.
    """
    for module in _input_modules(model):
        if isinstance(module, StaticEmbedding):
            own = module.tokenizer.truncation or {}
            direction = own.get("direction", "right")
            module.tokenizer.enable_truncation(max_length, direction=direction)
        elif hasattr(module, "max_seq_length"):
            module.max_seq_length = max_length
        else:
            raise ModelError(
                f"--max-length {max_length} is no option of the model {name!r}, whose texts are "
                f"read by {type(module).__name__}, which has no limit; leave it out"
            )


def input_limits(model: SentenceTransformer) -> list[int | None]:
    """Tokens of a text that a model reads, special ones included; None for all.

    Returns:
        One limit, or that of each route where queries and passages have networks of their own.
    """
    return [_limit_of(module) for module in _input_modules(model)]


def embedding_dim(model: SentenceTransformer) -> int:
    """Dimensions of a model's vectors: as it reports them, else of one vector that it makes."""
    try:
        reported = model.get_embedding_dimension()
    except (ValueError, NotImplementedError):
        reported = None
    if reported is not None:
        return int(reported)
    vectors = np.asarray(model.encode_query(["text"], show_progress_bar=False))
    return int(vectors.shape[1])


def _input_modules(model: SentenceTransformer) -> Iterator[nn.Module]:
    """What turns texts into inputs: the first module, or the first of each route."""
    first = model[0]
    if isinstance(first, Router):
        yield from (modules[0] for modules in first.sub_modules.values())
    else:
        yield first


def _limit_of(module: Any) -> int | None:
    if isinstance(module, StaticEmbedding):
        truncation = module.tokenizer.truncation
        return None if truncation is None else int(truncation["max_length"])
    limit = getattr(module, "max_seq_length", None)
    return None if limit is None or limit == float("inf") else int(limit)

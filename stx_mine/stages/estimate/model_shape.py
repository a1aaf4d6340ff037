"""What the memory of a step depends on in a model, measured on a sample of texts."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from torch import nn
from transformers import PreTrainedModel

from stx_mine.core.role import Role
from stx_mine.models.limits import embedding_dim
from stx_mine.models.tokenise import Tokeniser
from stx_mine.stages.estimate.core.step_cost import ModelShape
from stx_mine.stages.estimate.step_time import TIMED_ROLES
from stx_mine.stages.train.trainer import count_parameters

_SAMPLE = 512


def model_shape(model: SentenceTransformer, sample: dict[Role, list[str]]) -> ModelShape:
    """What memory depends on, with the lengths of a sample of texts.

    Args:
        model: The model to train.
        sample: At least one text of each role.
    """
    lengths = {role: _lengths(model, sample[role], role) for role in TIMED_ROLES}
    shape = ModelShape(
        parameters=count_parameters(model),
        dim=embedding_dim(model),
        query_tokens=float(lengths["query"].mean()),
        passage_tokens=float(lengths["passage"].mean()),
        longest_tokens=int(max(tokens.max() for tokens in lengths.values())),
    )
    networks = [module for module in model.modules() if isinstance(module, PreTrainedModel)]
    if not networks:
        return shape
    network = networks[0]
    config = network.config
    kept = getattr(config, "_attn_implementation", None) == "eager"
    # Code that comes with a model names things as it likes.
    stacks = [len(one) for one in network.modules() if isinstance(one, nn.ModuleList)]
    width = int(network.get_input_embeddings().weight.shape[1])
    return replace(
        shape,
        layers=int(getattr(config, "num_hidden_layers", max(stacks, default=1))),
        hidden=int(getattr(config, "hidden_size", width)),
        heads=int(getattr(config, "num_attention_heads", 0)) if kept else 0,
    )


def _lengths(model: SentenceTransformer, texts: list[str], role: Role) -> NDArray[np.int64]:
    """int64: tokens of each text."""
    features = Tokeniser(model)(texts, role)
    if "attention_mask" in features:
        return np.asarray(features["attention_mask"].sum(1), np.int64)
    ends = np.append(np.asarray(features["offsets"]), len(features["input_ids"]))
    return np.diff(ends)


def sample_texts(column: pa.ChunkedArray) -> list[str]:
    """Up to 512 texts of a column, evenly spaced."""
    places = np.linspace(0, len(column) - 1, min(_SAMPLE, len(column))).astype(np.int64)
    texts: list[str] = column.take(pa.array(places)).to_pylist()
    return texts

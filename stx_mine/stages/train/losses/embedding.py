"""Embed the distinct texts of a packed batch in mini-batches, with gradients."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from stx_mine.models.token_batches import token_batches
from stx_mine.models.tokenise import PAD_TO
from stx_mine.stages.train.processes import gather_shares

# Tensors, and facts about them.
PrefixedFeatures = dict[str, Any]


def embed(model: nn.Module, features: PrefixedFeatures, batch_tokens: int) -> Tensor:
    """Embeddings of all texts of a batch.

    Where a batch is more than one mini-batch, only its embeddings are kept, and each mini-batch
    goes through the network again when its gradient is wanted (gradient caching; Gao et al.
    2021): memory follows `batch_tokens`, for a third more work. A static model keeps nothing but
    token ids, so it takes all texts at once.

    Inputs that say `pad_to` make few shapes: a mini-batch has a multiple of so many tokens a text,
    and as many texts as fit in `batch_tokens`, some of them there to fill it up.

    Args:
        model: A SentenceTransformer, perhaps wrapped.
        features: Its inputs; padded to the longest text where it has an `attention_mask`.
        batch_tokens: Tokens of a mini-batch, padding included.

    Returns:
        (N, D) in the order of the texts.
    """
    if "attention_mask" not in features:
        return _forward(model, features)
    mask_NL, pad_to = features["attention_mask"], features.get(PAD_TO)
    multiple = pad_to or 1
    # One look at the device: each makes it wait until all that it was given is done.
    first_N, num_N = torch.stack([mask_NL.argmax(1), mask_NL.sum(1)]).cpu().numpy()
    widths = -(-num_N // multiple) * multiple
    batches = token_batches(widths, batch_tokens)
    parts, order = [], []
    for batch in batches:
        width = int(widths[batch[0]])
        size = len(batch) if pad_to is None else max(1, batch_tokens // width)
        # Texts that fill up a mini-batch: what becomes of them is thrown away.
        rows = torch.from_numpy(np.pad(batch, (0, size - len(batch)), "edge")).to(mask_NL.device)
        columns = _columns(first_N[batch], num_N[batch], width, mask_NL.shape[1])
        mini_batch = _take(features, rows, columns)
        if len(batches) == 1 or not torch.is_grad_enabled():
            embeddings = _forward(model, mini_batch)
        else:
            embeddings = checkpoint(_forward, model, mini_batch, use_reentrant=False)
        parts.append(embeddings[: len(batch)])
        order.append(rows[: len(batch)])
    return torch.cat(parts)[torch.argsort(torch.cat(order))]


def embed_distinct(
    model: nn.Module, features: list[PrefixedFeatures], labels: dict[str, Tensor], batch_tokens: int
) -> tuple[Tensor, Tensor]:
    """Embeddings of the distinct anchors (A, D) and passages (M, D).

    Each process embeds its share, and all of them have all.
    """
    anchors, passages = (embed(model, feature, batch_tokens) for feature in features)
    return (
        gather_shares(anchors, labels["num_anchors"]),
        gather_shares(passages, labels["num_passages"]),
    )


def _forward(model: nn.Module, features: PrefixedFeatures) -> Tensor:
    embedding: Tensor = model(dict(features))["sentence_embedding"]
    return embedding


def _columns(first_N: NDArray[np.int64], num_N: NDArray[np.int64], width: int, total: int) -> slice:
    """`width` columns that hold the tokens of some texts, on whichever side their padding is."""
    first = int(first_N.min())
    last = min(max(first + width, int((first_N + num_N).max())), total)
    return slice(min(first, last - width), last)


def _take(features: PrefixedFeatures, rows: Tensor, columns: slice) -> PrefixedFeatures:
    """Some columns of the inputs of some texts."""
    shape = features["attention_mask"].shape
    return {
        name: value[rows, columns] if isinstance(value, Tensor) and value.shape == shape else value
        for name, value in features.items()
        if name != PAD_TO
    }

"""Embed the distinct texts of a packed batch in mini-batches, with gradients."""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from stx_mine.models.token_batches import token_batches
from stx_mine.train.processes import gather_shares

Features = dict[str, Tensor]


def embed(model: nn.Module, features: Features, batch_tokens: int) -> Tensor:
    """Embeddings of all texts of a batch.

    Where a batch is more than one mini-batch, only its embeddings are kept, and each mini-batch
    goes through the network again when its gradient is wanted (gradient caching; Gao et al.
    2021): memory follows `batch_tokens`, for a third more work. A static model keeps nothing but
    token ids, so it takes all texts at once.

    Args:
        model: A SentenceTransformer, perhaps wrapped.
        features: Its inputs; padded to the longest text where it has an `attention_mask`.
        batch_tokens: Tokens of a mini-batch, padding included.

    Returns:
        (N, D) in the order of the texts.
    """
    if "attention_mask" not in features:
        return _forward(model, features)
    mask_NL = features["attention_mask"]
    batches = token_batches(mask_NL.sum(1).cpu().numpy(), batch_tokens)
    parts, order = [], []
    for batch in batches:
        rows = torch.from_numpy(batch).to(mask_NL.device)
        mini_batch = _take(features, rows)
        if len(batches) == 1 or not torch.is_grad_enabled():
            parts.append(_forward(model, mini_batch))
        else:
            parts.append(checkpoint(_forward, model, mini_batch, use_reentrant=False))
        order.append(rows)
    return torch.cat(parts)[torch.argsort(torch.cat(order))]


def embed_distinct(
    model: nn.Module, features: list[Features], labels: dict[str, Tensor], batch_tokens: int
) -> tuple[Tensor, Tensor]:
    """Embeddings of the distinct anchors (A, D) and passages (M, D).

    Each process embeds its share, and all of them have all.
    """
    anchors, passages = (embed(model, one, batch_tokens) for one in features)
    return (
        gather_shares(anchors, int(labels["num_anchors"])),
        gather_shares(passages, int(labels["num_passages"])),
    )


def _forward(model: nn.Module, features: Features) -> Tensor:
    embedding: Tensor = model(dict(features))["sentence_embedding"]
    return embedding


def _take(features: Features, rows: Tensor) -> Features:
    """Inputs of some texts, without the columns that are padding in all of them."""
    mask_NL = features["attention_mask"]
    used = mask_NL[rows].any(0).nonzero()
    first, last = int(used[0]), int(used[-1]) + 1
    return {
        name: value[rows, first:last]
        if isinstance(value, Tensor) and value.shape == mask_NL.shape
        else value
        for name, value in features.items()
    }

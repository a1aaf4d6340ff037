"""Embed the distinct texts of a packed batch in mini-batches, with gradients."""

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from stx_mine.models.memory import free_memory
from stx_mine.models.token_batches import call_tokens, default_tokens, token_batches
from stx_mine.models.tokenise import PAD_TO
from stx_mine.stages.train.losses.config import ACTIVATION_SHARE, StepFields
from stx_mine.stages.train.losses.shared_lookup import shared_lookup
from stx_mine.stages.train.processes import gather_shares

# Tensors, and facts about them.
PrefixedFeatures = dict[str, Any]


@dataclass(frozen=True)
class MiniBatches:
    """How the texts of a step go through a network.

    Attributes:
        tokens: Of a mini-batch at most, padding included.
        activation_share: Of the free memory, which the activations of a step may take.
    """

    tokens: int
    activation_share: float = ACTIVATION_SHARE

    @classmethod
    def of(cls, options: StepFields, device: torch.device) -> "MiniBatches":
        """As options say it, for a model on a device."""
        tokens = options.batch_tokens or default_tokens(device.type)
        return cls(tokens, options.activation_share)

    def room(self, device: torch.device) -> float:
        """Bytes that activations may take on a device; processes share the memory of a CPU."""
        if not self.activation_share:
            return 0.0
        sharing = int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if device.type == "cpu" else 1
        return self.activation_share * free_memory(device) / sharing


def embed(model: nn.Module, features: PrefixedFeatures, mini_batches: MiniBatches) -> Tensor:
    """Embeddings of all texts of a batch.

    Where a batch is more than one mini-batch, the activations of as many are kept for the backward
    pass as there is room for. Of the others only the embeddings are: they go through the network
    again when their gradient is wanted (gradient caching; Gao et al. 2021), which is a third more
    work, and the same numbers. A static model keeps nothing but token ids, so it takes all texts at
    once.

    Inputs that say `pad_to` make few shapes: a mini-batch has a multiple of so many tokens a text,
    and as many texts as fit, some of them there to fill it up.

    Args:
        model: A SentenceTransformer, perhaps wrapped.
        features: Its inputs; padded to the longest text where it has an `attention_mask`.
        mini_batches: What goes through the network at one time.

    Returns:
        (N, D) in the order of the texts.
    """
    if "attention_mask" not in features:
        return _forward(model, features, nullcontext())
    mask_NL, pad_to = features["attention_mask"], features.get(PAD_TO)
    multiple = pad_to or 1
    # One look at the device: each makes it wait until all that it was given is done.
    first_N, num_N = torch.stack([mask_NL.argmax(1), mask_NL.sum(1)]).cpu().numpy()
    widths = -(-num_N // multiple) * multiple
    call = call_tokens(mask_NL.device.type) if pad_to is None else None
    batches = token_batches(widths, mini_batches.tokens, call)
    is_cached = len(batches) > 1 and torch.is_grad_enabled()
    room = mini_batches.room(mask_NL.device) if is_cached else 0.0
    token_bytes = 0.0
    lookup = shared_lookup(model, features) if is_cached else nullcontext()
    parts, order = [], []
    for batch in batches:
        width = int(widths[batch[0]])
        size = len(batch) if pad_to is None else max(1, mini_batches.tokens // width)
        # Texts that fill up a mini-batch: what becomes of them is thrown away.
        rows = torch.from_numpy(np.pad(batch, (0, size - len(batch)), "edge")).to(mask_NL.device)
        columns = _columns(first_N[batch], num_N[batch], width, mask_NL.shape[1])
        mini_batch = _take(features, rows, columns)
        if not is_cached:
            embeddings = _forward(model, mini_batch, lookup)
        elif room > token_bytes * size * width:
            kept = KeptBytes(model)
            with kept:
                embeddings = _forward(model, mini_batch, lookup)
            room -= kept.total
            # Texts get shorter, and their tokens take less.
            token_bytes = kept.total / (size * width)
        else:
            embeddings = checkpoint(_forward, model, mini_batch, lookup, use_reentrant=False)
        # What a mini-batch adds to a gradient is rounded by itself, whichever are kept.
        torch.clear_autocast_cache()
        parts.append(embeddings[: len(batch)])
        order.append(rows[: len(batch)])
    return torch.cat(parts)[torch.argsort(torch.cat(order))]


def embed_distinct(
    model: nn.Module,
    features: list[PrefixedFeatures],
    labels: dict[str, Tensor],
    mini_batches: MiniBatches,
) -> tuple[Tensor, Tensor]:
    """Embeddings of the distinct anchors (A, D) and passages (M, D).

    Each process embeds its share, and all of them have all.
    """
    anchors, passages = (embed(model, feature, mini_batches) for feature in features)
    return (
        gather_shares(anchors, labels["num_anchors"]),
        gather_shares(passages, labels["num_passages"]),
    )


class KeptBytes(saved_tensors_hooks):  # type: ignore[misc]
    """Counts what the forward pass within it keeps for the backward pass."""

    def __init__(self, model: nn.Module) -> None:
        """Count from 0.

        Args:
            model: Its parameters are there anyway, and do not count.
        """
        self.total = 0
        self._known = {one.untyped_storage().data_ptr() for one in model.parameters()}
        super().__init__(self._count, lambda tensor: tensor)

    def _count(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._known:
            self._known.add(storage.data_ptr())
            self.total += storage.nbytes()
        return tensor


def on_device(features: PrefixedFeatures, device: torch.device) -> PrefixedFeatures:
    """The inputs of a model, their tensors on its device."""
    return {
        name: value.to(device) if isinstance(value, Tensor) else value
        for name, value in features.items()
    }


def _forward(
    model: nn.Module, features: PrefixedFeatures, lookup: AbstractContextManager[None]
) -> Tensor:
    with lookup:
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

"""Low-rank adapters: few weights to train, folded into the model before it is published."""

import torch
from sentence_transformers import SentenceTransformer

from stx_mine.errors import ConfigError
from stx_mine.models.load import is_static


def add_lora(model: SentenceTransformer, rank: int, alpha: int, seed: int) -> None:
    """Freeze the transformer and add adapters to all its linear layers (Hu et al. 2021).

    Args:
        model: Changed in place.
        rank: Rank of each adapter.
        alpha: Adapters are scaled by alpha / rank.
        seed: Of their first values, the same in every process.

    Raises:
        ConfigError: peft is not installed, or the model is no transformer.
    """
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise ConfigError(
            "--lora-rank needs peft, which is not installed; run `pip install 'stx-mine[peft]'`"
        ) from error
    if is_static(model) or not model.has_peft_compatible_model():
        raise ConfigError(
            "--lora-rank needs a transformer, found another kind of model; leave it out"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model.add_adapter(LoraConfig(r=rank, lora_alpha=alpha, target_modules="all-linear"))


def merge_lora(model: SentenceTransformer) -> None:
    """Fold adapters into the weights, so that the model loads without peft."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, BaseTunerLayer):
                layer.merge()
                setattr(parent, name, layer.get_base_layer())
    model.delete_adapter("default")
    model.requires_grad_(True)

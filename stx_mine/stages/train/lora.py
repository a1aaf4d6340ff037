"""Low-rank adapters: few weights to train, folded into the model before it is published."""

import torch
from sentence_transformers import SentenceTransformer

from stx_mine.errors import ConfigError, ModelError, one_line
from stx_mine.models.adapter import adapter_layers
from stx_mine.models.load import is_static


def add_lora(model: SentenceTransformer, rank: int, alpha: int, seed: int) -> None:
    """Freeze the transformer and add adapters to all its linear layers (Hu et al. 2021).

    Args:
        model: Changed in place.
        rank: Rank of each adapter.
        alpha: Adapters are scaled by alpha / rank.
        seed: Of their first values, the same in every process.

    Raises:
        ConfigError: peft is not installed or too old for the installed transformers, or the model
            is no transformer.
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
        try:
            model.add_adapter(LoraConfig(r=rank, lora_alpha=alpha, target_modules="all-linear"))
        except ValueError as error:
            raise ConfigError(
                f"peft cannot add the adapters of --lora-rank ({one_line(error)}); run "
                "`pip install --upgrade peft`, or leave it out"
            ) from error


def train_adapters(model: SentenceTransformer) -> None:
    """Let the adapters that a model came with learn; its base stays frozen."""
    network = model.transformers_model
    network.set_adapter(network.active_adapters())


def merge_adapters(model: SentenceTransformer) -> None:
    """Fold adapters into the weights, so that the model loads without peft.

    Raises:
        ModelError: They are of a kind that cannot be folded in.
    """
    network = model.transformers_model
    for parent, name, layer in list(adapter_layers(model)):
        try:
            layer.merge()
        except (NotImplementedError, ValueError) as error:
            raise ModelError(
                f"the adapter cannot be merged into its base ({error}); give a model that is whole"
            ) from error
        setattr(parent, name, layer.get_base_layer())
    for name in list(network.peft_config):
        model.delete_adapter(name)
    # The library would save under the names that the files of the adapter had.
    network._weight_conversions = None
    model.requires_grad_(True)

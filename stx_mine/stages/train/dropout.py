"""Dropout of a network while it trains."""

from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Module
from torch.nn.modules.dropout import _DropoutNd

from stx_mine.errors import ConfigError
from stx_mine.models.load import is_static


def set_dropout(model: SentenceTransformer, share: float) -> None:
    """Give every place of a network that has dropout the same one; its config stays as it is.

    Args:
        model: Changed in place.
        share: Of the values that are set to 0, from 0 to 0.9.

    Raises:
        ConfigError: It is a static model, or has dropout nowhere.
    """
    if is_static(model):
        raise ConfigError("--dropout needs a transformer, found a static model; leave it out")
    num_places = 0
    for module in model.modules():
        if isinstance(module, _DropoutNd):
            module.p = share
            num_places += 1
        if isinstance(module, Module):
            # Numbers of the library's own modules are saved with the model.
            continue
        # Functions of attention are called with a number.
        names = [name for name, value in vars(module).items() if isinstance(value, float)]
        for name in names:
            if "dropout" in name:
                setattr(module, name, share)
                num_places += 1
    if not num_places:
        raise ConfigError("--dropout found no dropout in the model; leave it out")

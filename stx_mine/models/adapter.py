"""PEFT adapters: a folder of few weights over a base model that is loaded first."""

from collections.abc import Iterator

from sentence_transformers import SentenceTransformer
from torch import nn

from stx_mine.errors import ModelError, one_line
from stx_mine.models.checkpoint import Checkpoint
from stx_mine.models.soundness import refuse_misfits, watch_weights

NO_PEFT = "is an adapter, which needs peft; run `pip install 'stx-mine[peft]'`"


def open_adapter(found: Checkpoint, base: SentenceTransformer, revision: str | None) -> None:
    """Load an adapter that peft saved, without modules, onto its base; the base says how it pools.

    Args:
        found: The adapter.
        base: Its base, changed in place.
        revision: Of the adapter, on the hub.

    Raises:
        ModelError: peft is not installed, or the adapter does not fit.
    """
    if not base.has_peft_compatible_model():
        raise ModelError(
            f"the adapter {found.name} needs a transformer, its base {found.base} is none; give a "
            "model that is whole"
        )
    kwargs = {} if revision is None else {"adapter_kwargs": {"revision": revision}}
    try:
        with watch_weights() as report:
            base.load_adapter(found.name, **kwargs)
    except ImportError as error:
        raise ModelError(f"{found.name} {NO_PEFT}") from error
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        reason = one_line(error)[:160]
        raise ModelError(
            f"the adapter {found.name} does not fit its base {found.base} "
            f"({type(error).__name__}: {reason}); merge it with peft, and give what that saves"
        ) from error
    refuse_misfits(found.name, report)


def adapter_layers(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    """Yield (parent, name within it, layer) of each layer that has an adapter."""
    try:
        from peft.tuners.tuners_utils import BaseTunerLayer
    except ImportError:
        return
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, BaseTunerLayer):
                yield parent, name, layer


def has_adapter(model: nn.Module) -> bool:
    """Whether an adapter lies over the network."""
    return next(adapter_layers(model), None) is not None

"""Whether the device that a person names is one of this machine."""

from typing import TYPE_CHECKING

from stx_mine.errors import ConfigError, one_line

if TYPE_CHECKING:
    import torch


def refuse_device_name(name: str) -> "torch.device":
    """The device of a name, here or elsewhere.

    Raises:
        ConfigError: It is the name of none.
    """
    import torch

    try:
        return torch.device(name)
    except RuntimeError as error:
        raise ConfigError(
            f"--device expects cpu, cuda, cuda:1, mps or the like, found {name!r}; name one that "
            "is here, or leave it out"
        ) from error


def refuse_device(name: str | None) -> None:
    """Refuse a device that this machine lacks: libraries tell it late, and each in its own way.

    Args:
        name: Such as cuda:1; None for the best that is here.

    Raises:
        ConfigError: There is no such device here, or none that holds numbers.
    """
    if name is None:
        return
    import torch

    device = refuse_device_name(name)
    reason = ""
    if device.type == "cuda":
        number = torch.cuda.device_count()
        if (device.index or 0) >= number:
            reason = f"torch sees {number} GPUs"
    else:
        try:
            torch.zeros(1, device=device).cpu()
        except (RuntimeError, AssertionError, ImportError) as error:
            reason = one_line(error)[:160]
    if reason:
        raise ConfigError(
            f"--device {name} is not here ({reason}); name one that is, such as cpu, or leave it "
            "out"
        )

"""Which devices of this machine are at work."""

import torch

from stx_mine.engine.task_shards import local_rank
from stx_mine.models.devices import refuse_device, refuse_device_name
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.store.lock import TaskShard


def devices_of(config: EmbedConfig, task_shard: TaskShard | None) -> tuple[str, ...]:
    """The devices of this machine that embed, as `devices_here` says.

    Raises:
        ConfigError: A name is not that of a device, or of none that is here.
    """
    if config.device is None and config.backend == "openvino":
        return ("cpu",)
    if config.device is None and config.encoder is not None:
        return ()
    return devices_here(config.device, config.engine == "ray", task_shard)


def devices_here(device: str | None, on_ray: bool, task_shard: TaskShard | None) -> tuple[str, ...]:
    """The devices of this machine, one process each: those named, else all GPUs if several.

    Args:
        device: Names with commas between; None for the best.
        on_ray: Whether the devices are those of other machines.
        task_shard: Which share of the tasks is done here.

    Returns:
        Their names; none where one process takes the best device that it sees.

    Raises:
        ConfigError: A name is not that of a device, or of none that is here.
    """
    if device is not None:
        named = tuple(one.strip() for one in device.split(","))
        for one in named:
            (refuse_device_name if on_ray else refuse_device)(one)
        return named
    if on_ray:
        return ()
    gpus = tuple(f"cuda:{number}" for number in range(torch.cuda.device_count()))
    if task_shard is not None and gpus and (rank := local_rank()) is not None:
        return (gpus[rank % len(gpus)],)
    return gpus if len(gpus) > 1 else ()

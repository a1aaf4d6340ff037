"""Which devices of this machine embed."""

import torch

from stx_mine.engine.task_shards import local_rank
from stx_mine.models.devices import refuse_device, refuse_device_name
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.store.lock import TaskShard


def devices_of(config: EmbedConfig, task_shard: TaskShard | None) -> tuple[str, ...]:
    """The devices of this machine, one process each: those named, else all GPUs if several.

    Empty where one process takes the best device that it sees.

    Raises:
        ConfigError: A name is not that of a device, or of none that is here.
    """
    if config.device is not None:
        named = tuple(one.strip() for one in config.device.split(","))
        for one in named:
            # Where Ray embeds, the device is another machine's.
            (refuse_device_name if config.engine == "ray" else refuse_device)(one)
        return named
    if config.backend == "openvino":
        return ("cpu",)
    if config.encoder is not None or config.engine == "ray":
        return ()
    gpus = tuple(f"cuda:{number}" for number in range(torch.cuda.device_count()))
    if task_shard is not None and gpus and (rank := local_rank()) is not None:
        return (gpus[rank % len(gpus)],)
    return gpus if len(gpus) > 1 else ()

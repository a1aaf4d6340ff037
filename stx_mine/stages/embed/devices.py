"""Which devices of this machine are at work."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch

from stx_mine.engine.task_shards import local_rank
from stx_mine.engine.tasks import Worker
from stx_mine.models.devices import refuse_device, refuse_device_name
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.store.lock import TaskShard


@dataclass(frozen=True, kw_only=True)
class DeviceWorker(Worker):
    """A worker with a process for each of several devices.

    Attributes:
        devices: Devices of this machine, one process each; none for the best one seen.
        num_beside: How many processes share the cores of this machine.
    """

    devices: tuple[str, ...] = ()
    num_beside: int = 1

    @property
    def device(self) -> str | None:
        """The device of this process; None for the best one seen."""
        return self.devices[0] if self.devices else None

    @property
    def may_be_gpu(self) -> bool:
        """Whether no other device is named."""
        return self.device is None or self.device.startswith("cuda")

    @property
    def copies(self) -> Sequence[Self]:
        """Itself for each device, where there are several."""
        number = len(self.devices)
        if number < 2:
            return ()
        return [replace(self, devices=(device,), num_beside=number) for device in self.devices]

    def share_cores(self) -> None:
        """Leave the processes beside this one their cores."""
        if self.num_beside > 1:
            torch.set_num_threads(max(1, torch.get_num_threads() // self.num_beside))


def devices_of(config: EmbedConfig, task_shard: TaskShard | None) -> tuple[str, ...]:
    """The devices of this machine that embed, as `devices_here` says.

    Raises:
        ConfigError: A name is not that of a device, or of none that is here.
    """
    if config.device is None and config.backend == "openvino":
        return ("cpu",)
    if config.device is None and config.is_function:
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

"""Several training processes as torchrun starts them: who leads, and what they exchange."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn

from stx_mine.engine.task_shards import rank_of_world
from stx_mine.errors import ConfigError, StxMineError
from stx_mine.models.devices import refuse_device

_PATIENCE = timedelta(hours=2)
_OF_LAUNCHERS = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Processes:
    """The processes of one training run, from the view of one of them.

    Attributes:
        rank: Number of this process; 0 alone writes and speaks.
        size: How many there are.
        device: Where this one computes; None: wherever the model goes by itself.
    """

    rank: int = 0
    size: int = 1
    device: str | None = None

    @property
    def is_first(self) -> bool:
        """Whether this process writes and speaks."""
        return self.rank == 0

    @contextmanager
    def first_goes_ahead(self) -> Iterator[None]:
        """Process 0 runs the block, and the others after it; where it fails, they do not start.

        Raises:
            StxMineError: In the others, where process 0 failed.
        """
        if not self.is_first and not self._hear():
            raise StxMineError("process 0 stopped; its message says why")
        finished = False
        try:
            yield
            finished = True
        finally:
            if self.is_first:
                self._tell(finished)

    def _tell(self, fine: bool) -> None:
        if self.size > 1:
            distributed.broadcast(torch.tensor([int(fine)], device=self.device), src=0)

    def _hear(self) -> bool:
        word = torch.zeros(1, dtype=torch.int64, device=self.device)
        distributed.broadcast(word, src=0)
        return bool(word.item())


@contextmanager
def joined(device: str | None) -> Iterator[Processes]:
    """Join the processes that torchrun or `accelerate launch` started, if they did.

    Args:
        device: What the user asked for; with GPUs each process takes the one of its number.

    Yields:
        This process among the others; without a launcher the only one.

    Raises:
        ConfigError: There is no such device here, or fewer GPUs than processes.
    """
    _, size = rank_of_world(os.environ)
    if size == 1:
        refuse_device(device)
        yield Processes(device=device)
        return
    lacking = [name for name in _OF_LAUNCHERS if name not in os.environ]
    if lacking:
        raise ConfigError(
            f"WORLD_SIZE is {size} in the environment, found no {', '.join(lacking)}; start with "
            "torchrun or `accelerate launch`, or unset WORLD_SIZE"
        )
    kind = device or ("cuda" if torch.cuda.is_available() else "cpu")
    on_gpu = kind.startswith("cuda")
    if on_gpu:
        local, num_gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= num_gpus:
            raise ConfigError(
                f"expected a GPU for each process of this machine, found {num_gpus} and process "
                f"{local}; give torchrun --nproc-per-node {num_gpus}, or --device cpu"
            )
        kind = f"cuda:{local}"
        torch.cuda.set_device(local)
    # The others wait while the first evaluates, perhaps for longer than the ten minutes of nccl.
    distributed.init_process_group("nccl" if on_gpu else "gloo", timeout=_PATIENCE)
    yield Processes(distributed.get_rank(), size, kind)
    # Not after an error: it would wait for processes that wait for this one.
    distributed.destroy_process_group()


class _Gather(torch.autograd.Function):  # type: ignore[misc]
    """Equal shares of all processes, and back: the gradients that all of them have for a share."""

    @staticmethod
    def forward(ctx: Any, own_ND: Tensor) -> Tensor:
        shares = [torch.empty_like(own_ND) for _ in range(distributed.get_world_size())]
        distributed.all_gather(shares, own_ND.contiguous())
        return torch.stack(shares)

    @staticmethod
    def backward(ctx: Any, grad_WND: Tensor) -> Tensor:
        grad_WND = grad_WND.contiguous()
        distributed.all_reduce(grad_WND)
        return grad_WND[distributed.get_rank()]


def gather_shares(own_ND: Tensor, num_rows: Tensor | int) -> Tensor:
    """All rows, of which process r of W has rows r, r + W, r + 2W ...

    The gradient of a row is the sum over the processes, each with its own loss. So the gradient
    of the mean of their losses is the mean over the processes of what reaches the parameters.

    Args:
        own_ND: (ceil(num_rows / W), D) rows of this process; what lies past the end is cut off.
        num_rows: Rows of all processes together.

    Returns:
        (num_rows, D), the same in every process.
    """
    if not distributed.is_initialized():
        return own_ND
    rows_WND: Tensor = _Gather.apply(own_ND)
    return rows_WND.transpose(0, 1).flatten(0, 1)[:num_rows]


def mean_over_processes(value: float, device: torch.device) -> float:
    """The mean of what each process has; the same in all of them."""
    if not distributed.is_initialized():
        return value
    total = torch.tensor(value, dtype=torch.float64, device=device)
    distributed.all_reduce(total)
    return float(total.item()) / float(distributed.get_world_size())


def of_first(value: float | None, device: torch.device) -> float:
    """What process 0 has; the others give None."""
    if not distributed.is_initialized():
        assert value is not None
        return value
    word = torch.tensor(value or 0.0, dtype=torch.float64, device=device)
    distributed.broadcast(word, src=0)
    return float(word)


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace the gradient of every parameter by its mean over the processes."""
    if not distributed.is_initialized():
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    for work in [distributed.all_reduce(grad, async_op=True) for grad in gradients]:
        work.wait()
    for grad in gradients:
        grad /= distributed.get_world_size()

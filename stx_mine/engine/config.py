"""Options of the engine: where the tasks of a stage run."""

from dataclasses import dataclass
from typing import Literal

from stx_mine.errors import ConfigError
from stx_mine.settings import StageConfig, option


@dataclass(frozen=True, kw_only=True)
class EngineConfig(StageConfig):
    """Where the tasks of a stage run; shared by the stages that have many."""

    engine: Literal["local", "ray"] = option(
        "local", "Where tasks run: local (this process), or ray (needs stx-mine[ray])."
    )
    ray_address: str | None = option(
        None, "Address of a Ray cluster (default: Ray is started on this machine)."
    )
    workers: int | None = option(
        None, "Ray actors at work at a time (default: one a GPU, else one a core).", minimum=1
    )
    worker_gpus: float | None = option(
        None, "GPUs of a Ray actor (default: 1 where Ray has any and the task gains).", minimum=0
    )
    task: str | None = option(
        None,
        "Do share i (from 0) of n of the tasks, as i/n (default: of a Slurm array or torchrun).",
    )

    def __post_init__(self) -> None:
        """Refuse options that the engine would not heed.

        Raises:
            ConfigError: There is one.
        """
        super().__post_init__()
        for one in ("ray_address", "workers", "worker_gpus"):
            value = getattr(self, one)
            if value is not None and self.engine != "ray":
                raise ConfigError(
                    f"--{one.replace('_', '-')} {value} needs --engine ray, found --engine "
                    f"{self.engine}; leave it out"
                )
        if self.task is not None and self.engine == "ray":
            raise ConfigError(
                f"--task {self.task} and --engine ray both divide the tasks; leave one of them out"
            )

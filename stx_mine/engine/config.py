"""Options of the engine: where the tasks of a stage run."""

from dataclasses import dataclass
from typing import Literal

from stx_mine.settings import WHERE, ReadingConfig, option


@dataclass(frozen=True, kw_only=True)
class EngineConfig(ReadingConfig):
    """Where the tasks of a stage run; shared by the stages that have many."""

    engine: Literal["local", "ray"] = option(
        "local",
        "Where tasks run: local (this process), or ray (needs stx-mine[ray]).",
        group=WHERE,
    )
    ray_address: str | None = option(
        None,
        "Address of a Ray cluster (default: Ray is started on this machine).",
        group=WHERE,
        needs="engine=ray",
    )
    workers: int | None = option(
        None,
        "Ray actors at work at a time (default: one per GPU, else one per core).",
        minimum=1,
        group=WHERE,
        needs="engine=ray",
    )
    worker_gpus: float | None = option(
        None,
        "GPUs of a Ray actor (default: 1 where Ray has any and the task gains).",
        minimum=0,
        group=WHERE,
        needs="engine=ray",
    )
    task: str | None = option(
        None,
        "Do share i (from 0) of n of the tasks, as i/n (default: of a Slurm array or torchrun).",
        group=WHERE,
        conflicts="engine=ray",
        because="which divides the tasks itself",
    )

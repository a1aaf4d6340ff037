"""Make the files of an artifact: here, in processes or on Ray, all of them or a share."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from stx_mine.engine.config import EngineConfig
from stx_mine.engine.local import run_tasks
from stx_mine.engine.processes import run_in_processes
from stx_mine.engine.task_shards import own_tasks
from stx_mine.engine.tasks import Worker, attempt
from stx_mine.errors import TaskShardsLeftError
from stx_mine.store.artifact import Artifact
from stx_mine.store.lock import TaskShard


def make_files(
    artifact: Artifact,
    tasks: Sequence[str],
    worker: Worker,
    config: EngineConfig,
    label: str,
    task_shard: TaskShard | None = None,
) -> None:
    """Run every task whose file is missing; afterwards all files are there.

    Args:
        artifact: What the files belong to, begun.
        tasks: Names of all files, in the same order for every share.
        worker: Makes one file.
        config: Says where tasks run.
        label: What the progress line says.
        task_shard: What this call does of the tasks; None for all.

    Raises:
        TaskShardsLeftError: The share is done, and files of other shares are missing.
        TaskError: A task failed three times; finished files stay.
    """
    run_on_engine(artifact.pending(list(own_tasks(tasks, task_shard))), worker, config, label)
    left = artifact.pending(list(tasks))
    if left:
        assert task_shard is not None, f"{left[0]} was reported as made and is not there"
        raise TaskShardsLeftError(
            f"share {task_shard.number} of {task_shard.count} of {artifact.target}/ is done "
            f"({label}); {len(left):,} of {len(tasks):,} files are left to other shares, and what "
            "ends last continues; run again those that ended already"
        )


def run_on_engine(tasks: Sequence[str], worker: Worker, config: EngineConfig, label: str) -> None:
    """Run tasks where the config says: on Ray, in a process a device, or here.

    Raises:
        TaskError: A task failed three times; what others wrote stays.
    """
    if not tasks:
        return
    if config.engine == "ray":
        from stx_mine.engine.on_ray import run_on_ray

        run_on_ray(tasks, worker, config, label)
    elif copies := worker.copies:
        run_in_processes(tasks, copies, label)
    elif worker.tasks_at_once > 1:
        with ThreadPoolExecutor(worker.tasks_at_once) as threads:
            run_tasks(tasks, partial(attempt, worker), label, threads)
    else:
        run_tasks(tasks, partial(attempt, worker), label)

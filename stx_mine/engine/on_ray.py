"""Run tasks on Ray: one row of a Ray Data set is one task, done by one of a pool of actors.

Ray moves names of tasks and words about failures; what tasks read and write are files, which every
node finds under the same path.
"""

import importlib.util
import logging
import os
import re
import signal
import socket
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from stx_mine import errors, progress
from stx_mine.engine.config import EngineConfig
from stx_mine.engine.tasks import CONTINUES, TRIES, Worker, attempt
from stx_mine.errors import ConfigError, StxMineError, TaskError, one_line

_STORE_BYTES = 1 << 28
_ADDRESS, _PATIENCE_S = re.compile(r"(?:ray://)?\[?([^\[\]/]+?)\]?:(\d+)"), 10
# Tasks that may be lost with their workers before the others are not tried any more.
_MAX_LOST = 3


def run_on_ray(tasks: Sequence[str], worker: Worker, config: EngineConfig, label: str) -> None:
    """Run every task; one that fails is tried again by itself, finished ones stay.

    Args:
        tasks: What is left to do.
        worker: Does one task; every actor gets its own.
        config: The cluster, how many actors, and their GPUs.
        label: What the progress line says.

    Raises:
        ConfigError: Ray is not installed, cannot be reached, or has no such GPUs.
        TaskError: A task failed three times.
    """
    if not tasks:
        return
    _start(config.ray_address)
    import ray

    pool, resources = _pool(worker, config, len(tasks))
    done: set[str] = set()
    with _quiet_data(), progress.step(label, len(tasks), "parts") as counted:
        rows = ray.data.from_items(
            [{"task": task} for task in tasks], override_num_blocks=len(tasks)
        )
        with warnings.catch_warnings():
            # Deprecated without another way to bound the retries (Ray 2.60).
            warnings.simplefilter("ignore", ray.util.annotations.RayDeprecationWarning)
            outcomes = rows.map(
                _Actor,
                fn_constructor_args=(worker,),
                compute=pool,
                max_restarts=-1,
                max_task_retries=TRIES - 1,
                **resources,
            )
        try:
            for outcome in outcomes.iter_rows():
                _raise(outcome)
                done.add(outcome["task"])
                counted.advance()
        except ray.exceptions.RayError as error:
            raise _lost(tasks, done, f"Ray gave up: {error}") from error
    if len(done) < len(tasks):
        reason = f"its worker died {TRIES} times, for want of memory or by another's hand"
        raise _lost(tasks, done, reason)


class _Actor:
    """Holds a worker in a process of Ray."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        with _Carried() as carried:
            attempt(self._worker, row["task"])
        return {"task": row["task"], **carried.words}


class _Carried:
    """Keeps what a task raises, so that it is raised where the stage runs."""

    def __init__(self) -> None:
        self.words = {"kind": "", "message": "", "trace": ""}

    def __enter__(self) -> "_Carried":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        _: TracebackType | None,
    ) -> bool:
        if kind is None or not issubclass(kind, Exception):
            return False
        trace = "".join(traceback.format_exception(error))
        self.words = {"kind": kind.__name__, "message": str(error), "trace": trace}
        return True


def _raise(outcome: dict[str, Any]) -> None:
    """Raise what the task raised, if anything."""
    if not outcome["kind"]:
        return
    kind = getattr(errors, outcome["kind"], None)
    if isinstance(kind, type) and issubclass(kind, StxMineError):
        raise kind(outcome["message"])
    raise RuntimeError(f"task {outcome['task']} failed on Ray:\n{outcome['trace']}")


def _lost(tasks: Sequence[str], done: set[str], reason: str) -> TaskError:
    left = [task for task in tasks if task not in done]
    named = ", ".join(left[:3]) + (" ..." if len(left) > 3 else "")
    return TaskError(
        f"{len(left):,} of {len(tasks):,} tasks are not done: {named} "
        f"({' '.join(reason.split())[:300]}); {CONTINUES}"
    )


def _start(address: str | None) -> None:
    """Connect to a cluster, or start Ray on this machine; nothing where Ray runs already.

    Raises:
        ConfigError: It is not installed or cannot be reached.
    """
    if importlib.util.find_spec("ray") is None or importlib.util.find_spec("ray.data") is None:
        raise ConfigError(
            "--engine ray needs the package ray, found none; run `pip install 'stx-mine[ray]'`"
        )
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    import ray.data

    if ray.is_initialized():
        return
    _refuse_unreachable(address)
    own: dict[str, Any] = {"include_dashboard": False, "object_store_memory": _STORE_BYTES}
    try:
        with _kept_termination():
            ray.init(
                address or "local",
                log_to_driver=False,
                logging_level=logging.ERROR,
                **({} if address else own),
            )
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"cannot reach Ray at {address or 'this machine'} ({' '.join(str(error).split())[:300]}"
            "); give another --ray-address, or none to start Ray here"
        ) from error


@contextmanager
def _kept_termination() -> Iterator[None]:
    """Let SIGTERM mean what it did before: Ray, when it begins, answers it in a way of its own.

    Processes that are forked later would have its answer too, and may outlive the signal.
    """
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _refuse_unreachable(address: str | None) -> None:
    """Refuse an address at which nobody listens, which Ray itself would try for minutes.

    Raises:
        ConfigError: Nobody does.
    """
    found = _ADDRESS.fullmatch(address or "")
    if found is None:
        return
    try:
        socket.create_connection((found[1], int(found[2])), timeout=_PATIENCE_S).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"cannot reach Ray at {address} ({one_line(error)}); give another --ray-address, or "
            "none to start Ray here"
        ) from error


def _pool(worker: Worker, config: EngineConfig, num_tasks: int) -> tuple[Any, dict[str, Any]]:
    """The pool of actors and what each may use.

    Raises:
        ConfigError: No node has so many GPUs.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    most = max(one.get("GPU", 0) for one in nodes)
    gpus = config.worker_gpus
    if gpus is None:
        gpus = 1.0 if worker.wants_gpu and most else 0.0
    if gpus > most:
        raise ConfigError(
            f"--worker-gpus {gpus:g} needs a node with so many GPUs, the largest of {len(nodes)} "
            f"has {most:g}; give less, or --worker-gpus 0"
        )
    if gpus:
        nodes = [one for one in nodes if one.get("GPU", 0) >= gpus]
        room = sum(int(one["GPU"] // gpus) for one in nodes)
    else:
        room = sum(int(one.get("CPU", 0)) for one in nodes)
    workers = max(1, min(config.workers or room, num_tasks))
    # Cores that no other actor of the node needs.
    fewest = min(int(one.get("CPU", 1)) for one in nodes)
    cpus = max(1, fewest // -(-workers // len(nodes)))
    # None waits behind another: it would lose a try where that one kills the worker.
    pool = ray.data.ActorPoolStrategy(
        min_size=1, max_size=workers, initial_size=workers, max_tasks_in_flight_per_actor=1
    )
    # Ray itself sets only OMP_NUM_THREADS.
    threads = dict.fromkeys(("RAYON_NUM_THREADS", "NUMBA_NUM_THREADS"), str(cpus))
    return pool, {"num_cpus": cpus, "num_gpus": gpus, "runtime_env": {"env_vars": threads}}


@contextmanager
def _quiet_data() -> Iterator[None]:
    """Ray Data without bars and logs of its own, and with lost tasks counted, while inside."""
    from ray.data import DataContext

    context = DataContext.get_current()
    settings = {
        "enable_progress_bars": False,
        "print_on_execution_start": False,
        "max_errored_blocks": _MAX_LOST,
    }
    before = {name: getattr(context, name) for name in settings}
    log = logging.getLogger("ray.data")
    level = log.level
    log.setLevel(logging.CRITICAL)
    for name, value in settings.items():
        setattr(context, name, value)
    try:
        yield
    finally:
        log.setLevel(level)
        for name, value in before.items():
            setattr(context, name, value)

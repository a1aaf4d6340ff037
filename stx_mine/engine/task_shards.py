"""Shares: which part of a stage's tasks this call does, where several calls do them together."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence

from stx_mine.engine.config import EngineConfig
from stx_mine.errors import ConfigError
from stx_mine.settings import StageConfig, key_fields
from stx_mine.store.kinds import KINDS
from stx_mine.store.lock import TaskShard


def task_shard_of(config: StageConfig) -> TaskShard | None:
    """The share that `--task`, Slurm or torchrun give this call; None for all tasks.

    Raises:
        ConfigError: There is no such share.
    """
    if not isinstance(config, EngineConfig) or config.engine == "ray":
        return None
    found = _given(config.task) if config.task else _surrounding(os.environ)
    if found is None or found == (0, 1):
        return None
    number, count = found
    fields = {artifact: key_fields(config, artifact) for artifact in KINDS}
    content = json.dumps([type(config).__name__, count, fields], default=str)
    return TaskShard(number, count, hashlib.sha256(content.encode()).hexdigest()[:32])


def own_tasks(tasks: Sequence[str], task_shard: TaskShard | None) -> Sequence[str]:
    """The tasks of a share: every n-th, so that shares are of like length."""
    return tasks if task_shard is None else tasks[task_shard.number :: task_shard.count]


def local_rank() -> int | None:
    """Which process of this machine torchrun says this is; None outside of it."""
    word = os.environ.get("LOCAL_RANK", "")
    return int(word) if _is_number(word) else None


def rank_of_world(environment: Mapping[str, str]) -> tuple[int, int]:
    """Which of how many processes torchrun says this is; (0, 1) outside of it.

    Raises:
        ConfigError: It says nothing that can be.
    """
    size, rank = environment.get("WORLD_SIZE", "1"), environment.get("RANK", "0")
    if not _is_number(size) or not _is_number(rank) or int(rank) >= int(size):
        raise ConfigError(
            f"expected RANK from 0 to WORLD_SIZE - 1 in the environment, as torchrun has them, "
            f"found RANK {rank!r} and WORLD_SIZE {size!r}; start with torchrun, or unset both"
        )
    return int(rank), int(size)


def _is_number(word: str) -> bool:
    """Whether a word is a whole number as programs write them."""
    return word.isascii() and word.isdigit()


def _given(word: str) -> tuple[int, int]:
    number, slash, count = word.partition("/")
    if not slash or not _is_number(number) or not _is_number(count) or int(number) >= int(count):
        raise ConfigError(
            f"--task must be i/n with i from 0 to n - 1, found {word!r}; give --task 0/1 for all "
            "tasks"
        )
    return int(number), int(count)


def _surrounding(environment: Mapping[str, str]) -> tuple[int, int] | None:
    """What a Slurm array or torchrun says; None outside of them."""
    if "SLURM_ARRAY_TASK_ID" in environment:
        return _slurm(environment)
    if "RANK" in environment and "WORLD_SIZE" in environment:
        return rank_of_world(environment)
    return None


def _slurm(environment: Mapping[str, str]) -> tuple[int, int]:
    names = ("ID", "MIN", "MAX", "COUNT", "STEP")
    defaults = {"STEP": "1"}
    words = [environment.get(f"SLURM_ARRAY_TASK_{one}", defaults.get(one, "")) for one in names]
    if all(map(_is_number, words)):
        number, first, last, count, step = map(int, words)
        place, beside = divmod(number - first, max(step, 1))
        if not beside and 0 <= place < count and first + (count - 1) * step == last:
            return place, count
    found = ", ".join(f"{name} {word!r}" for name, word in zip(names, words, strict=True))
    raise ConfigError(
        f"expected a Slurm array of evenly spaced numbers, found {found}; give --task i/n, or "
        "--task 0/1 for all tasks"
    )

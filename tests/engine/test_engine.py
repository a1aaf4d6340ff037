"""Tasks and shares: tries, what travels, `--task`, the lock of shares, who publishes."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import REPO_ROOT, cli_command, cli_environment
from hypothesis import given
from hypothesis import strategies as st

from stx_mine.engine.run import make_files
from stx_mine.engine.task_shards import own_tasks, task_shard_of
from stx_mine.engine.tasks import TRIES, Worker
from stx_mine.errors import ConfigError, LockedError, StxMineError, TaskError, TaskShardsLeftError
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.embed.stage import run_embed
from stx_mine.stages.ingest.config import IngestConfig
from stx_mine.stages.ingest.stage import run_ingest
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.stage import run_mine
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.stage import run_pack
from stx_mine.store.artifact import MANIFEST, Artifact, require
from stx_mine.store.files import atomic, checksum
from stx_mine.store.lock import TaskShard
from stx_mine.store.run_dir import RunDir
from stx_mine.store.texts import TextStore
from stx_mine.store.vectors import Vectors

FILES = [f"{number}.txt" for number in range(7)]
LOCAL = EmbedConfig()


@dataclass(frozen=True)
class Writer(Worker):
    """Writes a file a task; some fail some times first."""

    folder: Path
    failing: tuple[str, ...] = ()
    times: int = 0
    error: type[Exception] = OSError

    @cached_property
    def tries(self) -> dict[str, int]:
        return {}

    def __call__(self, task: str) -> None:
        self.tries[task] = self.tries.get(task, 0) + 1
        if task in self.failing and self.tries[task] <= self.times:
            raise self.error(f"no luck with {task}")
        with atomic(self.folder / task) as path:
            path.write_text(task)


def begun(run: RunDir) -> Artifact:
    artifact = Artifact(run, "texts", fields={"seed": 1}, inputs={})
    artifact.begin(FILES)
    return artifact


# --- tries ---


def test_a_failure_that_passes_costs_nothing_but_a_try(tmp_path: Path) -> None:
    artifact = begun(RunDir(tmp_path))
    worker = Writer(artifact.folder, failing=(FILES[2],), times=TRIES - 1)
    make_files(artifact, FILES, worker, LOCAL, "write")
    assert artifact.pending(FILES) == []
    assert worker.tries == {name: TRIES if name == FILES[2] else 1 for name in FILES}


def test_a_task_that_fails_three_times_is_named_and_finished_files_stay(tmp_path: Path) -> None:
    artifact = begun(RunDir(tmp_path))
    worker = Writer(artifact.folder, failing=(FILES[3],), times=TRIES)
    with pytest.raises(TaskError, match=r"task 3\.txt failed 3 times.*OSError: no luck"):
        make_files(artifact, FILES, worker, LOCAL, "write")
    assert artifact.pending(FILES) == FILES[3:]
    make_files(artifact, FILES, Writer(artifact.folder), LOCAL, "write")
    assert artifact.pending(FILES) == []


def test_shapes_that_do_not_fit_are_tried_once_and_memory_again(tmp_path: Path) -> None:
    """Of the RuntimeErrors of torch some pass, and others cannot."""

    class ShapeError(RuntimeError):
        def __init__(self, _: str) -> None:
            super().__init__("The size of tensor a (600) must match the size of tensor b (512)")

    class MemoryShortError(RuntimeError):
        def __init__(self, _: str) -> None:
            super().__init__("CUDA out of memory. Tried to allocate 20 MiB")

    artifact = begun(RunDir(tmp_path))
    worker = Writer(artifact.folder, failing=(FILES[0],), times=1, error=ShapeError)
    with pytest.raises(TaskError, match=r"task 0\.txt failed once with ShapeError: The size"):
        make_files(artifact, FILES, worker, LOCAL, "write")
    assert worker.tries == {FILES[0]: 1}
    worker = Writer(artifact.folder, failing=(FILES[0],), times=TRIES - 1, error=MemoryShortError)
    make_files(artifact, FILES, worker, LOCAL, "write")
    assert worker.tries[FILES[0]] == TRIES


@pytest.mark.parametrize("error", [ValueError, StxMineError])
def test_a_failure_that_cannot_pass_is_not_tried_again(tmp_path, error) -> None:
    artifact = begun(RunDir(tmp_path))
    worker = Writer(artifact.folder, failing=(FILES[0],), times=1, error=error)
    with pytest.raises(error, match="no luck"):
        make_files(artifact, FILES, worker, LOCAL, "write")
    assert worker.tries == {FILES[0]: 1}


def test_what_a_worker_has_opened_does_not_travel(tmp_path: Path) -> None:
    worker = Writer(tmp_path)
    worker(FILES[0])
    assert worker.tries
    travelled = pickle.loads(pickle.dumps(worker))
    assert travelled == worker
    assert travelled.tries == {}


# --- several processes ---


# A module of its own, so that its processes import little.
SIGNING = """
import os, signal
from dataclasses import dataclass, replace
from pathlib import Path
from stx_mine.engine.tasks import Worker
from stx_mine.store.files import atomic

@dataclass(frozen=True)
class Signing(Worker):
    folder: Path
    names: tuple
    deadly: tuple = ()

    @property
    def copies(self):
        return [replace(self, names=(one,)) for one in self.names] if len(self.names) > 1 else []

    def __call__(self, task):
        if task in self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        with atomic(self.folder / task) as path:
            path.write_text(f"{self.names[0]} {os.getpid()}")
"""


def test_copies_of_a_worker_get_a_process_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each writes its name into a file a task; at some it is killed."""
    (tmp_path / "signing.py").write_text(SIGNING)
    monkeypatch.syspath_prepend(tmp_path)
    import signing

    artifact = begun(RunDir(tmp_path / "run"))
    worker = signing.Signing(artifact.folder, ("one", "two"))
    make_files(artifact, FILES[:-1], worker, LOCAL, "write")
    signed = {tuple((artifact.folder / name).read_text().split()) for name in FILES[:-1]}
    assert {name for name, _ in signed} <= {"one", "two"}
    assert len(signed) == len({process for _, process in signed})
    assert str(os.getpid()) not in {process for _, process in signed}
    with pytest.raises(TaskError, match=r"one of 2 processes was killed.*the same command"):
        make_files(artifact, FILES, replace(worker, deadly=FILES[-1:]), LOCAL, "write")
    assert artifact.pending(FILES) == FILES[-1:]


# A module of its own, so that its processes import little.
LASTING = """
import os, sys, time
from dataclasses import dataclass
from pathlib import Path
from stx_mine.engine.processes import run_in_processes
from stx_mine.engine.tasks import Worker

@dataclass(frozen=True)
class Lasting(Worker):
    folder: Path

    def __call__(self, task):
        (self.folder / task).write_text(str(os.getpid()))
        time.sleep(600)

def begin(folder):
    run_in_processes(["a", "b"], [Lasting(Path(folder))] * 2, "last")
"""


def lives(process: int) -> bool:
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_no_process_of_a_pool_outlives_who_began_it(tmp_path: Path) -> None:
    """Killed, it cannot end them; they would keep their memory, and its GPUs."""
    (tmp_path / "lasting.py").write_text(LASTING)
    paths = os.pathsep.join([str(tmp_path), str(REPO_ROOT)])
    pool = subprocess.Popen(
        [sys.executable, "-c", "import lasting, sys; lasting.begin(sys.argv[1])", tmp_path],
        env=cli_environment(PYTHONPATH=paths),
    )
    deadline = time.monotonic() + 120
    while len([one for one in tmp_path.glob("[ab]") if one.read_text()]) < 2:
        assert time.monotonic() < deadline and pool.poll() is None
        time.sleep(0.05)
    workers = [int((tmp_path / name).read_text()) for name in "ab"]
    pool.kill()
    pool.wait()
    while any(map(lives, workers)):
        assert time.monotonic() < deadline, "they outlive it"
        time.sleep(0.05)


@dataclass(frozen=True)
class Meeting(Worker):
    """Does two tasks at a time; each waits for the other."""

    folder: Path

    @property
    def tasks_at_once(self) -> int:
        return 2

    @cached_property
    def barrier(self) -> threading.Barrier:
        return threading.Barrier(2, timeout=30)

    def __call__(self, task: str) -> None:
        self.barrier.wait()
        (self.folder / task).touch()


def test_a_worker_may_do_two_tasks_at_a_time(tmp_path: Path) -> None:
    artifact = begun(RunDir(tmp_path))
    worker = Meeting(artifact.folder)
    assert worker.barrier.parties == 2
    make_files(artifact, FILES[:6], worker, LOCAL, "write")
    assert artifact.pending(FILES) == FILES[6:]


# --- which tasks ---


@given(st.integers(0, 50), st.integers(1, 12))
def test_shares_are_every_task_once(num_tasks: int, count: int) -> None:
    tasks = [str(number) for number in range(num_tasks)]
    parts = [own_tasks(tasks, TaskShard(number, count, "")) for number in range(count)]
    assert sorted(one for part in parts for one in part) == sorted(tasks)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


SLURM = {"ID": "7", "MIN": "3", "MAX": "9", "COUNT": "4", "STEP": "2"}


def environment(monkeypatch: pytest.MonkeyPatch, **words: str) -> None:
    for name in ("RANK", "WORLD_SIZE", *(f"SLURM_ARRAY_TASK_{one}" for one in SLURM)):
        monkeypatch.delenv(name, raising=False)
    for name, word in words.items():
        monkeypatch.setenv(name, word)


def test_a_share_comes_from_slurm_torchrun_or_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch)
    assert task_shard_of(LOCAL) is None
    environment(monkeypatch, RANK="1", WORLD_SIZE="4")
    assert (task_shard_of(LOCAL).number, task_shard_of(LOCAL).count) == (1, 4)
    slurm = {f"SLURM_ARRAY_TASK_{name}": word for name, word in SLURM.items()}
    environment(monkeypatch, RANK="1", WORLD_SIZE="4", **slurm)
    assert (task_shard_of(LOCAL).number, task_shard_of(LOCAL).count) == (2, 4)
    assert task_shard_of(EmbedConfig(task="0/1")) is None
    assert task_shard_of(EmbedConfig(task="4/5")).count == 5
    assert task_shard_of(EmbedConfig(engine="ray")) is None
    # Another device is the same plan, another format is not.
    plans = [EmbedConfig(**one) for one in ({}, {"device": "cpu"}, {"dtype": "float16"})]
    same, also, other = (task_shard_of(one).plan for one in plans)
    assert same == also != other
    assert task_shard_of(MineConfig()).plan != same


@pytest.mark.parametrize("word", ["3", "3/3", "-1/3", "a/b", "1/2/3", "1/0"])
def test_a_share_that_cannot_be_is_refused(word: str) -> None:
    with pytest.raises(ConfigError, match="--task must be i/n"):
        task_shard_of(EmbedConfig(task=word))


def test_a_slurm_array_with_gaps_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    slurm = {f"SLURM_ARRAY_TASK_{name}": word for name, word in SLURM.items()}
    for change in ({"COUNT": "3"}, {"ID": "6"}, {"MAX": ""}):
        words = {f"SLURM_ARRAY_TASK_{name}": word for name, word in change.items()}
        environment(monkeypatch, **slurm | words)
        with pytest.raises(ConfigError, match="evenly spaced"):
            task_shard_of(LOCAL)


def test_options_of_another_engine_are_refused() -> None:
    with pytest.raises(ConfigError, match="--workers 2 needs --engine ray"):
        EmbedConfig(workers=2)
    with pytest.raises(ConfigError, match="--task 0/2 does not fit --engine ray"):
        EmbedConfig(engine="ray", task="0/2")
    with pytest.raises(ConfigError, match="--engine ray needs --layout inline or ids"):
        PackConfig(layout="labels", batch_size=64, engine="ray")


# --- the lock ---

PLAN = [TaskShard(number, 3, "one plan") for number in range(3)]


def test_shares_of_a_plan_work_together_and_with_nobody_else(tmp_path: Path) -> None:
    first, second, other = (RunDir(tmp_path) for _ in range(3))
    with first.lock(PLAN[0]), second.lock(PLAN[1]):
        with pytest.raises(LockedError, match="share 0 of 3"), other.lock():
            pass
        with pytest.raises(LockedError, match="in use by process"), other.lock(PLAN[1]):
            pass
        with pytest.raises(LockedError), other.lock(TaskShard(2, 3, "another plan")):
            pass
        with other.lock(PLAN[2]):
            pass
    with other.lock():
        assert not list(tmp_path.glob(".lock-stx-mine-share-*"))
        with pytest.raises(LockedError, match="in use by process"), first.lock(PLAN[0]):
            pass


def test_a_share_waits_while_another_publishes(tmp_path: Path) -> None:
    first, second = RunDir(tmp_path), RunDir(tmp_path)
    order: list[str] = []

    def publish() -> None:
        with second.exclusive():
            order.append("second")

    with first.lock(PLAN[0]), second.lock(PLAN[1]):
        with first.exclusive():
            thread = threading.Thread(target=publish)
            thread.start()
            time.sleep(0.5)
            with first.exclusive():
                order.append("first")
        thread.join(10)
    assert order == ["first", "second"]


def test_two_shares_that_end_at_once_publish_once(tmp_path: Path) -> None:
    runs = [RunDir(tmp_path), RunDir(tmp_path)]
    with runs[0].lock(PLAN[0]), runs[1].lock(PLAN[1]):
        artifacts = [begun(run) for run in runs]
        make_files(artifacts[0], FILES, Writer(artifacts[0].folder), LOCAL, "write")
        found = []
        threads = [
            threading.Thread(
                target=lambda one=one, by=by: found.append(one.finish(FILES, counts={"by": by}))
            )
            for by, one in enumerate(artifacts)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
    assert found[0].content == found[1].content
    assert require(runs[0], "texts").counts == found[0].counts


def test_overwrite_by_shares_replaces_once(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    old = begun(run)
    make_files(old, FILES, Writer(old.folder), LOCAL, "write")
    runs = [RunDir(tmp_path), RunDir(tmp_path)]
    with runs[0].lock(PLAN[0]), runs[1].lock(PLAN[1]):
        first, second = (
            Artifact(one, "texts", fields={"seed": 2}, inputs={}, overwrite=True) for one in runs
        )
        first.begin(FILES)
        with pytest.raises(TaskShardsLeftError, match=r"share 0 of 3 .* 4 of 7 files"):
            make_files(first, FILES, Writer(first.folder), LOCAL, "write", PLAN[0])
        second.begin(FILES)
        assert len(second.pending(FILES)) == 4


# --- stages ---


def files(folder: Path) -> dict[str, str]:
    """Checksums of all but plans, manifests (times, places), locks and lists of searches."""
    return {
        path.relative_to(folder).as_posix(): checksum(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".json" and not path.name.startswith(".")
    }


def by_shares(run, config, count: int, order) -> None:
    """Run shares until one publishes; each but the last leaves files to others."""
    for place, number in enumerate(order):
        mine = type(config)(**{**vars(config), "task": f"{number}/{count}"})
        if place < len(order) - 1:
            with pytest.raises(TaskShardsLeftError, match=f"share {number} of {count}"):
                run(mine)
        else:
            run(mine)


def test_shares_make_the_bytes_of_one_call(small_input: Path, tmp_path: Path) -> None:
    whole, shared = tmp_path / "whole", tmp_path / "shared"
    inputs = {
        "pairs": str(small_input / "pairs.parquet"),
        "corpus": str(small_input / "corpus.parquet"),
    }
    for folder in (whole, shared):
        embed = EmbedConfig(run_dir=str(folder), shard_size=200, device="cpu", **inputs)
        mine = MineConfig(
            run_dir=str(folder),
            k=2,
            depth=20,
            max_depth=40,
            query_block=150,
            # Parts of the corpus change nothing either.
            corpus_parts=1 if folder == whole else 3,
            device="cpu",
        )
        pack = PackConfig(run_dir=str(folder), batch_size=32, shard_rows=64, packings=2)
        if folder == whole:
            run_embed(embed)
            run_mine(mine)
            run_pack(pack)
        else:
            by_shares(run_embed, embed, 3, [2, 0, 1])
            # The layer of depth 20, then the deeper one; the last call goes on with its own share.
            by_shares(run_mine, mine, 2, [1, 0, 1])
            by_shares(run_pack, pack, 3, [1, 2, 0])
    assert files(shared) == files(whole)
    assert not [*shared.rglob("assignment-*"), *shared.rglob("*-part-*")]
    for name in ("embeddings", "negatives", "batches"):
        assert require(RunDir(shared), name).digest == require(RunDir(whole), name).digest
    # Whoever comes late finds everything done.
    assert run_pack(PackConfig(**{**vars(pack), "task": "1/3"})).skipped


def test_shares_of_a_transformer_choose_once_and_count_together(
    small_input: Path, tmp_path: Path, tiny_transformer: Path
) -> None:
    pairs = str(small_input / "pairs.parquet")
    options = {"shard_size": 300, "max_length": 40, "precision": "bfloat16", "device": "cpu"}
    whole, shared = (
        EmbedConfig(
            pairs=pairs, run_dir=str(tmp_path / one), model=str(tiny_transformer), **options
        )
        for one in ("whole", "shared")
    )
    run_embed(whole)
    by_shares(run_embed, shared, 2, [1, 0])
    one, other = (require(RunDir(tmp_path / name), "embeddings") for name in ("whole", "shared"))
    assert one.digest == other.digest
    assert one.counts == other.counts
    assert other.counts["truncated"] > 0
    assert other.extra["fidelity"]["way"] == "bfloat16"
    assert files(tmp_path / "shared") == files(tmp_path / "whole")
    assert not list((tmp_path / "shared/embeddings").glob("*.counts.json"))


def test_shares_copy_given_vectors_together(small_input: Path, tmp_path: Path) -> None:
    pairs, run = str(tmp_path / "pairs.parquet"), tmp_path / "run"
    table = pq.read_table(small_input / "pairs.parquet").slice(0, 500)
    # Five texts stand twice, with another vector each time.
    table = pa.concat_tables([table, table.slice(0, 5)])
    pq.write_table(table, pairs)
    vectors = np.random.default_rng(0).normal(size=(len(table), 4)).astype(np.float32)
    paths = {f"{one}_vectors": str(tmp_path / f"{one}.npy") for one in ("query", "passage")}
    for path in paths.values():
        np.save(path, vectors)
    config = EmbedConfig(pairs=pairs, run_dir=str(run), shard_size=200, **paths)
    by_shares(run_embed, config, 2, [1, 0])
    manifest = require(RunDir(run), "embeddings")
    store = TextStore.open(require(RunDir(run), "texts"))
    row_of = {text: row for row, text in reversed(list(enumerate(table[0].to_pylist())))}
    rows = [row_of[text] for text in store.queries.column("text").to_pylist()]
    found = Vectors.open(manifest, "queries")
    np.testing.assert_array_equal(np.concatenate([one[:] for one in found.shards]), vectors[rows])
    left = {path.name for path in manifest.folder.iterdir()}
    assert left == {"plan.json", MANIFEST, *(one["file"] for one in manifest.content["files"])}


@pytest.mark.slow
def test_a_killed_share_is_just_run_again(small_input: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = ["embed", "--shard-size", "4", "--device", "cpu"]
    run_ingest(IngestConfig(pairs=str(small_input / "pairs.parquet"), run_dir=str(run)))
    killed = subprocess.Popen(
        cli_command(*command, "--task", "0/2", "--run-dir", run),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=cli_environment(),
    )
    deadline = time.monotonic() + 120
    while not any((run / "embeddings").glob("*.npy")) and time.monotonic() < deadline:
        time.sleep(0.001)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    made = len(list((run / "embeddings").glob("*.npy")))
    both = [
        subprocess.Popen(
            cli_command(*command, "--run-dir", run),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=cli_environment(RANK=str(number), WORLD_SIZE="2"),
        )
        for number in range(2)
    ]
    ended = [one.communicate(timeout=120) for one in both]
    assert [one.returncode for one in both] == [0, 0], ended
    assert any("embeddings: done" in stdout for stdout, _ in ended), ended
    manifest = require(RunDir(run), "embeddings")
    assert 0 < made < len(manifest.content["files"])
    assert (manifest.folder / MANIFEST).exists()

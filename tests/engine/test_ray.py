"""Ray: the bytes of the local engine, workers that are killed, tasks that fail."""

import os
import shutil
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from test_engine import FILES, Writer, begun, files

from stx_mine.engine.run import make_files
from stx_mine.engine.tasks import TRIES, Worker
from stx_mine.errors import ConfigError, InputError, TaskError
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.embed.stage import run_embed
from stx_mine.stages.ingest.config import IngestConfig
from stx_mine.stages.ingest.stage import run_ingest
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.stage import run_mine
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.stage import run_pack
from stx_mine.store.artifact import require
from stx_mine.store.files import atomic
from stx_mine.store.run_dir import RunDir

ray = pytest.importorskip("ray", reason="ray is not installed (pip install 'stx-mine[ray]')")
RAY = EmbedConfig(engine="ray", workers=2)


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """One Ray for all tests here: starting one takes seconds."""
    here = Path(__file__).parent
    with pytest.MonkeyPatch.context() as patch:
        # Workers import this file for what it defines.
        patch.setenv("PYTHONPATH", os.pathsep.join(map(str, (here, here.parent, here.parents[1]))))
        before = signal.getsignal(signal.SIGTERM)
        ray.init(
            "local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error"
        )
        signal.signal(signal.SIGTERM, before)
        yield
        ray.shutdown()


@dataclass(frozen=True)
class Dying(Worker):
    """Writes a file a task; its process is killed at some, the first times."""

    folder: Path
    deadly: tuple[str, ...]
    times: int

    def __call__(self, task: str) -> None:
        deaths = len(list(self.folder.glob(f"{task}.death-*")))
        if task in self.deadly and deaths < self.times:
            (self.folder / f"{task}.death-{deaths}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.05)
        with atomic(self.folder / task) as path:
            path.write_text(task)


@pytest.mark.slow
def test_a_killed_worker_costs_a_try_of_its_task(tmp_path: Path) -> None:
    artifact = begun(RunDir(tmp_path))
    worker = Dying(artifact.folder, (FILES[2], FILES[5]), times=TRIES - 1)
    make_files(artifact, FILES, worker, RAY, "write")
    assert artifact.pending(FILES) == []
    assert len(list(artifact.folder.glob("*.death-*"))) == 2 * (TRIES - 1)


@pytest.mark.slow
def test_a_task_that_kills_its_worker_three_times_is_named(tmp_path: Path) -> None:
    artifact = begun(RunDir(tmp_path))
    worker = Dying(artifact.folder, (FILES[4],), times=99)
    with pytest.raises(TaskError, match=r"1 of 7 tasks are not done: 4\.txt \(its worker died 3"):
        make_files(artifact, FILES, worker, RAY, "write")
    assert len(list(artifact.folder.glob("*.death-*"))) == TRIES
    assert artifact.pending(FILES) == [FILES[4]]
    make_files(artifact, FILES, Writer(artifact.folder), RAY, "write")
    assert artifact.pending(FILES) == []


def test_a_task_that_fails_three_times_is_named_and_finished_files_stay(tmp_path: Path) -> None:
    artifact = begun(RunDir(tmp_path))
    worker = Writer(artifact.folder, failing=(FILES[-1],), times=TRIES)
    with pytest.raises(TaskError, match=r"task 6\.txt failed 3 times.*OSError: no luck"):
        make_files(artifact, FILES, worker, replace(RAY, workers=1), "write")
    assert artifact.pending(FILES) == FILES[-1:]


@pytest.mark.slow
def test_a_mistake_of_the_user_comes_back_as_such_and_a_bug_with_its_trace(tmp_path: Path) -> None:
    artifact = begun(RunDir(tmp_path))
    mistake = Writer(artifact.folder, failing=tuple(FILES), times=1, error=InputError)
    with pytest.raises(InputError, match="no luck with"):
        make_files(artifact, FILES, mistake, RAY, "write")
    bug = replace(mistake, error=KeyError)
    with pytest.raises(RuntimeError, match=r"(?s)task \d\.txt failed on Ray.*test_engine\.py"):
        make_files(artifact, FILES, bug, RAY, "write")


def test_gpus_that_no_node_has_are_refused_and_not_waited_for(tmp_path: Path) -> None:
    artifact = begun(RunDir(tmp_path))
    with pytest.raises(ConfigError, match="--worker-gpus 1 needs a node with so many GPUs"):
        make_files(artifact, FILES, Writer(artifact.folder), replace(RAY, worker_gpus=1), "write")


def test_both_engines_make_the_same_bytes(small_input: Path, tmp_path: Path) -> None:
    pairs, corpus = (str(small_input / f"{name}.parquet") for name in ("pairs", "corpus"))
    for name, engine in (("local", {}), ("ray", {"engine": "ray", "workers": 2})):
        where = {"run_dir": str(tmp_path / name), **engine}
        run_embed(EmbedConfig(pairs=pairs, corpus=corpus, shard_size=300, device="cpu", **where))
        parts = 2 if engine else 1
        run_mine(
            MineConfig(
                k=2,
                query_block=200,
                corpus_parts=parts,
                device="cpu",
                sources="dense,bm25",
                **where,
            )
        )
        run_pack(PackConfig(batch_size=32, shard_rows=64, packings=2, **where))
    assert files(tmp_path / "ray") == files(tmp_path / "local")
    for name in ("embeddings", "negatives", "batches"):
        digests = {require(RunDir(tmp_path / one), name).digest for one in ("local", "ray")}
        assert len(digests) == 1


@pytest.mark.slow
def test_both_engines_embed_alike_however_vectors_come(
    small_input: Path, tmp_path: Path, tiny_transformer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = str(small_input / "pairs.parquet")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "counting_letters.py").write_text(
        "import numpy as np\n"
        "def embed(texts):\n"
        "    return np.array([[len(one), one.count('e'), 1.0] for one in texts])\n"
    )
    shutil.copytree(tiny_transformer, "tiny")
    run_ingest(IngestConfig(pairs=pairs, run_dir=str(tmp_path / "texts")))
    counts = require(RunDir(tmp_path / "texts"), "texts").counts
    for role in ("queries", "passages"):
        np.save(f"{role}.npy", np.random.default_rng(0).normal(size=(counts[role], 8)))
    ways = {
        # Trials of half precision run where the texts will be embedded; paths are relative.
        "model": {"model": "tiny", "precision": "bfloat16", "embedding_cache": "cache-{}"},
        "function": {"encoder": "counting_letters:embed"},
        "vectors": {"query_vectors": "queries.npy", "passage_vectors": "passages.npy"},
    }
    for name, options in ways.items():
        found = []
        for engine in ({"engine": "local"}, {"engine": "ray", "workers": 2}):
            own = {k: v.format(engine["engine"]) for k, v in options.items()}
            run = f"{name}-{engine['engine']}"
            run_embed(EmbedConfig(pairs=pairs, run_dir=run, shard_size=400, **own, **engine))
            found.append(require(RunDir(run), "embeddings"))
            assert not [*Path(run).rglob("*.counts.json"), *Path(run).rglob("rows-*")]
            assert not list(Path(run).glob("*.json"))
        assert found[0].digest == found[1].digest
        assert found[0].counts == found[1].counts
        assert found[0].extra["fidelity"] == found[1].extra["fidelity"]


def test_devices_are_given_by_ray_or_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="both give devices"):
        EmbedConfig(engine="ray", device="cuda:0,cuda:1")

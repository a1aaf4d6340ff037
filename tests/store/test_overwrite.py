"""A stage that overwrites and is killed on the way has lost nothing, and goes on where it was."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stx_mine.engine.tasks import Worker
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.embed.model_task import ShardEmbedder
from stx_mine.stages.embed.stage import run_embed
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.search_task import BlockSearcher
from stx_mine.stages.mine.stage import run_mine
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.shards import ShardWriter
from stx_mine.stages.pack.stage import run_pack
from stx_mine.store.artifact import require
from stx_mine.store.files import checksum
from stx_mine.store.run_dir import RunDir


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


def tree(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): checksum(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".lock")
    }


def embed(run: Path) -> None:
    run_embed(
        EmbedConfig(
            run_dir=str(run),
            model="package:wordllama",
            device="cpu",
            dtype="float16",
            shard_size=200,
            overwrite=True,
        )
    )


def mine(run: Path) -> None:
    run_mine(MineConfig(run_dir=str(run), device="cpu", k=4, query_block=200, overwrite=True))


def pack(run: Path, **options: Any) -> None:
    run_pack(PackConfig(run_dir=str(run), batch_size=32, overwrite=True, **options))


def pack_again(run: Path) -> None:
    pack(run, shard_rows=64)


@pytest.mark.parametrize(
    ("artifact", "subfolder", "command", "worker"),
    [
        ("embeddings", None, embed, ShardEmbedder),
        ("hits", "dense", mine, BlockSearcher),
        ("batches", None, pack_again, ShardWriter),
    ],
)
def test_a_kill_while_a_stage_overwrites_leaves_the_old_one_whole(
    run_copy: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    artifact: str,
    subfolder: str | None,
    command: Callable[[Path], None],
    worker: type[Worker],
) -> None:
    run, undisturbed = RunDir(run_copy), RunDir(tmp_path / "undisturbed")
    if artifact == "batches":
        pack(run_copy)
    shutil.copytree(run.path, undisturbed.path)
    command(undisturbed.path)
    expected = require(undisturbed, artifact, subfolder)
    target = run.folder(artifact, subfolder)
    before, names, left, whole = tree(target), set(run.path.iterdir()), [2], worker.__call__
    assert expected.digest != require(run, artifact, subfolder).digest

    def dies(self: Worker, task: str) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        whole(self, task)

    with monkeypatch.context() as patch:
        patch.setattr(worker, "__call__", dies)
        with pytest.raises(Killed):
            command(run.path)
    assert tree(target) == before
    require(run, artifact, subfolder)

    done: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(worker, "__call__", lambda self, task: (done.append(task), whole(self, task)))
        command(run.path)
    found = require(run, artifact, subfolder)
    assert found.digest == expected.digest
    assert tree(target).keys() == tree(undisturbed.folder(artifact, subfolder)).keys()
    assert [one["xxh3_128"] for one in found.content["files"]] == [
        one["xxh3_128"] for one in expected.content["files"]
    ]
    # The first two tasks were not done again.
    tasks = [one["file"] for one in expected.content["files"] if "-of-" in one["file"]]
    assert 0 < len(done) == len(tasks) - 2
    assert set(run.path.iterdir()) == names

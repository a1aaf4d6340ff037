"""Publishing and fetching: whole or not at all, resumed, checked, refused where another lies."""

import json
from pathlib import Path

import fsspec
import pytest
from conftest import Cli

from stx_mine.errors import ArtifactError, ConfigError, TaskError
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.stage import run_mine
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.stage import run_pack
from stx_mine.stages.transfer.config import FetchConfig, PublishConfig
from stx_mine.stages.transfer.fetch import run_fetch
from stx_mine.stages.transfer.publish import run_publish
from stx_mine.stages.transfer.storage import Storage
from stx_mine.store.artifact import MANIFEST, require
from stx_mine.store.files import checksum
from stx_mine.store.run_dir import RunDir


@pytest.fixture
def url(tmp_path: Path):
    """A bucket in memory of one's own."""
    found = f"memory://{tmp_path.name}/run"
    yield found
    memory = fsspec.filesystem("memory")
    if memory.exists(f"/{tmp_path.name}"):
        memory.rm(f"/{tmp_path.name}", recursive=True)


def publish(run: Path, url: str, *artifacts: str, **options):
    return run_publish(PublishConfig(run_dir=str(run), url=url, artifact=artifacts, **options))


def fetch(run: Path, url: str, *artifacts: str, **options):
    return run_fetch(FetchConfig(run_dir=str(run), url=url, artifact=artifacts, **options))


def tree(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): checksum(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith((".lock", "layer-000.json"))
        if not path.name.endswith("-queries.npy")
    }


@pytest.mark.parametrize("scheme", ["memory", "file"])
def test_what_is_fetched_is_what_was_published(small_run, tmp_path, url, scheme) -> None:
    where = url if scheme == "memory" else (tmp_path / "remote").as_uri()
    sent = publish(small_run, where)
    assert sent.counts["files_moved"] == sent.counts["files"] > 0
    assert publish(small_run, where).skipped
    other = tmp_path / "other"
    fetch(other, where)
    assert tree(other) == tree(small_run)
    assert fetch(other, where).skipped
    # The next stage works there as if it had always been there.
    run_pack(PackConfig(run_dir=str(other), batch_size=32, packings=1))


class Cut:
    """A network that fails for good after some files."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, method: str, after: int) -> None:
        filesystem = type(fsspec.filesystem("memory"))
        whole = getattr(filesystem, method)
        self.left = after

        def cut(*args, **options):
            self.left -= 1
            if self.left < 0:
                raise OSError("the line is dead")
            return whole(*args, **options)

        monkeypatch.setattr(filesystem, method, cut)


def test_a_half_published_artifact_is_never_whole_and_goes_on(
    small_run, tmp_path, url, monkeypatch
) -> None:
    total = publish(small_run, url + "-undisturbed", "texts").counts["files"]
    with monkeypatch.context() as patch:
        Cut(patch, "put_file", after=2)
        with pytest.raises(TaskError, match="the line is dead"):
            publish(small_run, url, "texts")
    assert Storage(url).names() == []
    with pytest.raises(ArtifactError, match="no finished texts at memory://"):
        fetch(tmp_path / "other", url, "texts")
    rest = publish(small_run, url, "texts")
    assert rest.counts["files_moved"] == total - 2
    fetch(tmp_path / "other", url, "texts")
    assert tree(tmp_path / "other" / "texts") == tree(small_run / "texts")


def test_a_half_fetched_artifact_is_never_whole_and_goes_on(
    small_run, tmp_path, url, monkeypatch
) -> None:
    publish(small_run, url, "texts")
    other = tmp_path / "other"
    with monkeypatch.context() as patch:
        Cut(patch, "get_file", after=2)
        with pytest.raises(TaskError, match="the line is dead"):
            fetch(other, url)
    assert not (other / "texts").exists()
    counts = fetch(other, url).counts
    assert counts["files_moved"] == counts["files"] - 2
    assert tree(other / "texts") == tree(small_run / "texts")


def test_another_artifact_at_the_url_is_refused_until_overwrite(run_copy, tmp_path, url) -> None:
    publish(run_copy, url, "negatives")
    fetch(tmp_path / "other", url, "negatives")
    run_mine(MineConfig(run_dir=str(run_copy), k=2, device="cpu"))
    with pytest.raises(ArtifactError, match=r"holds another negatives.*--overwrite"):
        publish(run_copy, url, "negatives")
    publish(run_copy, url, "negatives", overwrite=True)
    with pytest.raises(ArtifactError, match=r"negatives/ is here already.*--overwrite"):
        fetch(tmp_path / "other", url, "negatives")
    fetch(tmp_path / "other", url, "negatives", overwrite=True)
    assert tree(tmp_path / "other" / "negatives") == tree(run_copy / "negatives")


def test_files_of_an_older_upload_are_not_taken_for_those_of_a_newer(
    run_copy, tmp_path, url, monkeypatch
) -> None:
    """Even where they have the same name and size."""
    publish(run_copy, url, "negatives")
    run_mine(MineConfig(run_dir=str(run_copy), k=4, seed=7, sampling="random", device="cpu"))
    new = require(RunDir(run_copy), "negatives")
    with monkeypatch.context() as patch:
        Cut(patch, "put_file", after=0)
        with pytest.raises(TaskError):
            publish(run_copy, url, "negatives", overwrite=True)
    publish(run_copy, url, "negatives")
    fetch(tmp_path / "other", url, "negatives")
    assert tree(tmp_path / "other" / "negatives") == tree(new.folder)


def test_hits_that_have_grown_are_sent_in_part(run_copy, tmp_path, url) -> None:
    publish(run_copy, url, "hits")
    run_mine(MineConfig(run_dir=str(run_copy), k=4, depth=150, device="cpu"))
    counts = publish(run_copy, url, "hits/dense").counts
    assert 0 < counts["files_moved"] < counts["files"]
    fetch(tmp_path / "other", url)
    assert require_files(tmp_path / "other") == require_files(run_copy)


def require_files(run: Path) -> list[dict[str, object]]:
    content = json.loads((run / "hits" / "dense" / MANIFEST).read_text())
    return content["files"]


def test_damage_on_either_side_is_found(run_copy, tmp_path, url) -> None:
    publish(run_copy, url, "texts")
    memory = fsspec.filesystem("memory")
    path = f"{Storage(url)._path('texts')}/pairs.arrow"
    good = memory.cat_file(path)
    memory.pipe_file(path, bytes([good[0] ^ 1]) + good[1:])
    with pytest.raises(ArtifactError, match=r"pairs\.arrow is damaged.*delete it there"):
        fetch(tmp_path / "other", url)
    assert not (tmp_path / "other" / "texts").exists()
    memory.rm_file(path)
    assert publish(run_copy, url, "texts").counts["files_moved"] == 1
    fetch(tmp_path / "other", url)
    victim = run_copy / "embeddings" / "queries-00000-of-00001.npy"
    victim.write_bytes(victim.read_bytes()[:-1] + b"\0")
    with pytest.raises(ArtifactError, match=r"queries-00000-of-00001\.npy is damaged"):
        publish(run_copy, url, "embeddings")


def test_mistakes_are_named(small_run, tmp_path, cli_here: Cli) -> None:
    assert "name one, as in" in cli_here("publish", run_dir=small_run).error
    error = cli_here("publish", "nowhere://bucket", run_dir=small_run).error
    assert "nowhere://" in error and "pip install s3fs" in error
    error = cli_here("publish", "memory://m", "--artifact", "text", run_dir=small_run).error
    assert "--artifact text is no artifact; there are" in error
    with pytest.raises(ArtifactError, match="no finished batches in"):
        publish(small_run, "memory://m", "batches")
    with pytest.raises(ConfigError, match="name one"):
        run_fetch(FetchConfig(run_dir=str(tmp_path)))
    assert "no finished artifact" in cli_here("fetch", "memory://none", run_dir=tmp_path).error

"""Publishing and fetching: whole or not at all, resumed, checked, refused where another lies."""

import json
from collections.abc import Callable
from functools import partial
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
from stx_mine.stages.transfer.listings import finished
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
    with pytest.raises(ArtifactError, match=r"pairs\.arrow is damaged.*--overwrite` where it"):
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


# --- manifests from elsewhere ---


def evil(change: dict[str, object]) -> dict[str, object]:
    entry = {"file": "pairs.arrow", "bytes": 4, "xxh3_128": "0" * 32}
    content = {"artifact": "texts", "key": "k", "inputs": {}, "digest": "d", "counts": {}}
    return {**content, "files": [{**entry, **dict(change.pop("entry", {}))}], **change}


@pytest.mark.parametrize(
    "change",
    [
        *(
            {"entry": {"file": name}}
            for name in ("../../.bashrc", "/etc/x", "a/../../x", ".ssh", "")
        ),
        {"entry": {"bytes": 1 << 60}},
        {"entry": {"bytes": 1 << 49}},
        {"key": None},
        {"files": []},
        {"artifact": "model"},
    ],
)
def test_a_manifest_from_elsewhere_writes_nothing_outside_its_folder(tmp_path, url, change) -> None:
    memory = fsspec.filesystem("memory")
    folder = Storage(url)._path("texts")
    memory.pipe_file(f"{folder}/manifest.json", json.dumps(evil(dict(change))).encode())
    memory.pipe_file(f"{folder}/plan.json", json.dumps(evil({})).encode())
    memory.pipe_file(f"{folder}/pairs.arrow", b"evil")
    memory.pipe_file(f"{folder}/../../.bashrc", b"evil")
    home = tmp_path / "home"
    home.mkdir()
    (home / ".bashrc").write_text("mine")
    with pytest.raises(ArtifactError, match=r"texts.*(publish it again|free)"):
        fetch(home / "run", url)
    found = [path.name for path in home.rglob("*") if path.is_file()]
    assert set(found) <= {".bashrc", ".lock-stx-mine", "plan.json"}
    assert (home / ".bashrc").read_text() == "mine"
    assert not (home / "run" / "texts").exists()


def test_a_listing_with_a_name_that_leaves_the_run_is_refused(tmp_path, monkeypatch) -> None:
    """Keys of an object store may hold dots; this one lists what a bucket could."""
    memory = type(fsspec.filesystem("memory"))
    monkeypatch.setattr(memory, "exists", lambda *_: True)
    keys = ["/b/run/evaluations/../../x/manifest.json"]
    monkeypatch.setattr(memory, "find", lambda *_, **__: keys)
    with pytest.raises(ArtifactError, match=r"found 'evaluations/\.\./\.\./x'"):
        fetch(tmp_path / "run", "memory://b/run")


# --- other people's files, kills and damage ---


def named(folder: Path, content: str = "mine") -> dict[str, str]:
    names = ("notes.txt", "config.json", "manifest.json", "sub/pairs.arrow")
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return tree(folder)


def test_what_a_disk_that_failed_left_of_a_first_file_is_no_other_folder(
    small_run, tmp_path
) -> None:
    (tmp_path / "remote/texts").mkdir(parents=True)
    (tmp_path / "remote/texts/publishing.json.tmp").write_text("{")
    publish(small_run, (tmp_path / "remote").as_uri(), "texts")
    assert tree(tmp_path / "remote/texts").keys() == tree(small_run / "texts").keys()


def test_a_folder_that_was_not_published_is_left_alone(small_run, tmp_path) -> None:
    where = tmp_path / "theirs"
    before = named(where / "texts")
    for overwrite in (False, True):
        with pytest.raises(ArtifactError, match=r"did not publish.*left alone, also with"):
            publish(small_run, where.as_uri(), "texts", overwrite=overwrite)
    assert tree(where / "texts") == before
    # In one that was published, what somebody has put there since stays too.
    publish(small_run, where.as_uri(), "negatives")
    (where / "negatives" / "notes.txt").write_text("mine")
    stale = where / "negatives" / "negatives-99999.arrow"
    stale.write_text("of the same name, but not ours")
    publish(small_run, where.as_uri(), "negatives", overwrite=True)
    assert (where / "negatives" / "notes.txt").read_text() == "mine"
    assert stale.exists()
    theirs = tmp_path / "run" / "negatives"
    before = named(theirs)
    for overwrite in (False, True):
        with pytest.raises(ArtifactError, match="left alone, also with --overwrite"):
            fetch(tmp_path / "run", where.as_uri(), "negatives", overwrite=overwrite)
    assert tree(theirs) == before


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


def killed_at(
    number: int, patch: pytest.MonkeyPatch, act: Callable[[], object], scheme: str = "file"
) -> bool:
    """Do something that dies at the n-th change of a file, half of it done; whether it died."""
    filesystem, left = fsspec.filesystem(scheme), [number]
    kind = type(filesystem)

    def dies(name: str, whole):
        def change(self, *args, **options):
            left[0] -= 1
            if left[0] >= 0:
                return whole(self, *args, **options)
            if name in ("put_file", "pipe_file"):
                # A disk keeps half a file. So do file systems that say nothing of it.
                with filesystem.open(args[name == "put_file"], "wb") as handle:
                    handle.write(b"{")
            raise Killed

        return change

    for name in ("put_file", "pipe_file", "mv", "rm_file"):
        patch.setattr(kind, name, dies(name, getattr(kind, name)))
    try:
        act()
    except Killed:
        return True
    return False


@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_a_publish_killed_at_any_change_of_a_file_goes_on(
    run_copy, tmp_path, url, monkeypatch, scheme
) -> None:
    places = url if scheme == "memory" else (tmp_path / "places").as_uri()
    filesystem = fsspec.filesystem(scheme)
    old = f"{places}/old"
    publish(run_copy, old, "negatives")
    run_mine(MineConfig(run_dir=str(run_copy), k=2, device="cpu"))
    new = tree(run_copy / "negatives")
    for number in range(100):
        where = f"{places}/{number}"
        filesystem.copy(f"{old}/negatives", f"{where}/negatives", recursive=True)
        again = partial(publish, run_copy, where, "negatives", overwrite=True)
        with monkeypatch.context() as patch:
            was_killed = killed_at(number, patch, again, scheme)
        # A reader finds the old one, the new one, or none; never a mixture.
        if Storage(where).names():
            try:
                fetch(tmp_path / f"reader{number}", where)
            except ArtifactError as error:
                # Half a manifest, where half a file is kept under its whole name.
                assert scheme == "memory" and "is damaged; publish it again" in str(error)
        again()
        assert filesystem.find(f"{where}/negatives") == [
            filesystem._strip_protocol(f"{where}/negatives/{name}")
            for name in sorted([*(one.name for one in (run_copy / "negatives").iterdir())])
        ]
        fetch(tmp_path / f"reader{number}", where, overwrite=True)
        assert tree(tmp_path / f"reader{number}" / "negatives") == new, number
        if not was_killed:
            assert number > 6
            return
    pytest.fail("it never ended")


@pytest.mark.parametrize("file", ["manifest.json", "plan.json", "publishing.json", "pairs.arrow"])
@pytest.mark.parametrize("damage", [b"", b"{", b"[[[[" * 100_000, b"null"])
def test_overwrite_mends_whatever_is_damaged(small_run, tmp_path, file, damage) -> None:
    where = (tmp_path / "remote").as_uri()
    publish(small_run, where, "texts")
    (tmp_path / "remote" / "texts" / file).write_bytes(damage)
    if file != "publishing.json":
        with pytest.raises(ArtifactError, match=r"texts/.*publish"):
            fetch(tmp_path / "other", where, "texts")
    publish(small_run, where, "texts", overwrite=True)
    assert tree(tmp_path / "remote" / "texts") == tree(small_run / "texts")
    fetch(tmp_path / "other", where, "texts")


@pytest.mark.parametrize("url", ["", " ", "file://", "file:///", "memory://"])
def test_a_url_that_names_no_place_is_refused(small_run, tmp_path, url, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for moves in (publish, fetch):
        with pytest.raises(ConfigError, match="URL"):
            moves(small_run, url)
    assert list(tmp_path.iterdir()) == []


def test_a_fetch_that_was_killed_is_no_artifact_and_goes_on(run_copy, tmp_path, url) -> None:
    publish(run_copy, url, "embeddings")
    other = tmp_path / "other"
    fetch(other, url)
    (other / "embeddings").rename(other / "embeddings.new")
    (other / "embeddings.new" / MANIFEST).unlink()
    (other / "embeddings.new" / "of_other_content.npy").write_text("old")
    assert list(finished(RunDir(other))) == []
    assert fetch(other, url).counts["files_moved"] == 0
    assert tree(other) == {f"embeddings/{k}": v for k, v in tree(run_copy / "embeddings").items()}


def test_credentials_in_a_url_are_never_shown(small_run, tmp_path, cli_here: Cli) -> None:
    for url in ("nowhere://AKIA:se/cret@bucket/run", "memory://x?token=secret", "s3://secret@b"):
        done = cli_here("publish", url, "--artifact", "text", run_dir=small_run)
        assert done.code == 2
        assert "secret" not in done.stdout + done.stderr.replace("secrets", "")
        assert "se/cret" not in done.stderr
    sent = publish(small_run, "memory://user:secret@shown/run", "negatives")
    assert "secret" not in sent.folder and "***@" in sent.folder

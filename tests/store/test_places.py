"""Swaps: the old one stays until the new one is whole, and what is not ours stays for good."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import cli_environment

from stx_mine.errors import ArtifactError, ConfigError
from stx_mine.inputs.config import Source
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.embed.stage import run_embed
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.stage import run_mine
from stx_mine.stages.queries.config import QueriesConfig
from stx_mine.stages.queries.stage import run_queries
from stx_mine.stages.split.config import SplitConfig
from stx_mine.stages.split.stage import run_split
from stx_mine.store import artifact as artifact_module
from stx_mine.store import places
from stx_mine.store.artifact import MANIFEST, PLAN, Artifact, require
from stx_mine.store.files import atomic
from stx_mine.store.kinds import KINDS
from stx_mine.store.lock import TaskShard
from stx_mine.store.manifest import sealed
from stx_mine.store.run_dir import RunDir
from stx_mine.store.stage_report import make_report

FILES = ["one.txt", "two.txt"]


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


def make(run: RunDir, name: str, seed: int, **options: Any) -> None:
    """What a stage does under the lock."""
    with run.lock(begins=True):
        made = Artifact(run, name, fields={"seed": seed}, inputs={}, overwrite=True, **options)
        if made.done:
            return
        made.begin(FILES)
        for file in made.pending(FILES):
            with atomic(made.folder / file) as path:
                path.write_text(f"{seed} {file}")
        made.finish(FILES, counts={})


def tree(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".lock")
        if path.name not in (PLAN, MANIFEST)
    }


def whole(run: RunDir, name: str, subfolder: str | None) -> int:
    """The seed of the artifact that is there; all of its files are of that seed."""
    manifest = require(run, name, subfolder)
    seed = manifest.fields["seed"]
    for file in FILES:
        assert (manifest.folder / file).read_text() == f"{seed} {file}"
    return int(seed)


PLACES = [
    pytest.param("embeddings", None, id="resumed"),
    pytest.param("negatives", None, id="view"),
    pytest.param("split", None, id="beside"),
    pytest.param("evaluations", "dev", id="several"),
]


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path / "run")


@pytest.mark.parametrize(("name", "subfolder"), PLACES)
def test_a_kill_at_any_change_of_a_file_loses_nothing_and_leaves_nothing(
    tmp_path: Path, name: str, subfolder: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at the n-th rename or removal, for each n, the same command ends as undisturbed."""
    expected = RunDir(tmp_path / "undisturbed")
    make(expected, name, 1, subfolder=subfolder)
    make(expected, name, 2, subfolder=subfolder)
    assert whole(expected, name, subfolder) == 2
    real = {one: getattr(Path, one) for one in ("replace", "unlink", "rmdir")}
    for number in range(100):
        run, left = RunDir(tmp_path / str(number)), [number]
        make(run, name, 1, subfolder=subfolder)

        def dies(one: str, left: list[int] = left) -> Any:
            def change(path: Path, *args: Any, **options: Any) -> Any:
                if not path.name.startswith(".lock"):
                    if not left[0]:
                        raise Killed
                    left[0] -= 1
                return real[one](path, *args, **options)

            return change

        with monkeypatch.context() as patch:
            for one in real:
                patch.setattr(Path, one, dies(one))
            try:
                make(run, name, 2, subfolder=subfolder)
            except Killed:
                was_killed = True
            else:
                was_killed = False
        with run.lock():
            assert whole(run, name, subfolder) in (1, 2)
        make(run, name, 2, subfolder=subfolder)
        assert tree(run.path) == tree(expected.path), number
        assert not [one for one in run.path.rglob("*") if one.suffix in (".new", ".old", ".tmp")]
        if not was_killed:
            assert number > 6
            return
    pytest.fail("it never ended")


KILLED = """
import os, signal, sys
from pathlib import Path
from stx_mine.store.artifact import Artifact
from stx_mine.store.lock import TaskShard
from stx_mine.store.run_dir import RunDir
from stx_mine.store.stage_report import make_report
run, renamed = RunDir(sys.argv[1]), []
real = Path.replace
def replace(path, target):
    real(path, target)
    if path.name == "model":
        os.kill(os.getpid(), signal.SIGKILL)
Path.replace = replace
with run.lock():
    made = Artifact(run, "model", fields={"seed": 2}, inputs={}, overwrite=True)
    made.begin(["one.txt", "two.txt"])
    for file in ("one.txt", "two.txt"):
        (made.folder / file).write_text(f"2 {file}")
    made.finish(["one.txt", "two.txt"], counts={})
"""


def test_a_real_kill_between_the_two_renames_is_mended_by_the_next_command(run: RunDir) -> None:
    make(run, "model", 1)
    done = subprocess.run([sys.executable, "-c", KILLED, run.path], env=cli_environment())
    assert done.returncode == -signal.SIGKILL
    assert not run.folder("model").exists()
    with run.lock():
        assert whole(run, "model", None) == 2
    assert sorted(path.name for path in run.path.iterdir()) == [".lock-stx-mine", "model"]


def test_what_overwrites_and_fails_has_lost_nothing(run: RunDir) -> None:
    make(run, "model", 1)
    with run.lock():
        failing = Artifact(run, "model", fields={"seed": 2}, inputs={}, overwrite=True)
        failing.begin(FILES)
        (failing.folder / "one.txt").write_text("2 one.txt")
    assert whole(run, "model", None) == 1
    # The same command continues, another one of the earlier settings has what it had.
    again = Artifact(run, "model", fields={"seed": 2}, inputs={}, overwrite=True)
    assert again.pending(FILES) == ["two.txt"]
    assert Artifact(run, "model", fields={"seed": 1}, inputs={}).done
    # A third one begins anew.
    third = Artifact(run, "model", fields={"seed": 3}, inputs={}, overwrite=True)
    assert third.pending(FILES) == FILES
    make(run, "model", 3)
    assert whole(run, "model", None) == 3
    assert not (run.path / "model.new").exists()


def test_shares_that_overwrite_meet_beside_the_old_one(run: RunDir) -> None:
    make(run, "embeddings", 1)
    first, second = (
        Artifact(run, "embeddings", fields={"seed": 2}, inputs={}, overwrite=True) for _ in "ab"
    )
    for number, share in enumerate((first, second)):
        share.begin(FILES)
        (share.folder / FILES[number]).write_text(f"2 {FILES[number]}")
    assert first.pending(FILES) == []
    first.finish(FILES, counts={})
    # The second finds what the first has put into place, and begins nothing again.
    assert second.pending(FILES) == []
    second.finish(FILES, counts={})
    third = Artifact(run, "embeddings", fields={"seed": 2}, inputs={}, overwrite=True)
    assert third.done
    assert whole(run, "embeddings", None) == 2


@pytest.mark.parametrize("name", [*KINDS])
@pytest.mark.parametrize("kind", ["folder", "file", "hidden", "json", "link"])
def test_what_is_not_ours_is_left_alone(run: RunDir, name: str, kind: str) -> None:
    target = run.folder(name)
    target.parent.mkdir(parents=True)
    if kind == "file":
        target.write_text("mine")
    elif kind == "link":
        target.symlink_to(run.path.parent / "nowhere")
    else:
        target.mkdir()
        names = {"folder": "thesis.txt", "hidden": ".git", "json": MANIFEST}
        (target / names[kind]).write_text('{"key": "of a browser extension", "name": "x"}')
    before = tree(run.path)
    for overwrite in (False, True):
        with pytest.raises(ArtifactError, match="left alone, also with --overwrite: give another"):
            Artifact(run, name, fields={}, inputs={}, overwrite=overwrite)
    with run.lock():
        pass
    assert tree(run.path) == before
    assert target.is_symlink() == (kind == "link")


@pytest.mark.parametrize("ending", [".new", ".old"])
def test_a_neighbour_that_only_looks_like_a_leftover_stays(run: RunDir, ending: str) -> None:
    make(run, "embeddings", 1)
    other = run.path / f"embeddings{ending}"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    with pytest.raises(ArtifactError, match=rf"at .*embeddings\{ending}, or nothing, found"):
        make(run, "embeddings", 2)
    assert (other / "thesis.txt").read_text() == "mine"
    assert whole(run, "embeddings", None) == 1


def test_an_empty_folder_and_one_that_was_just_begun_are_taken(run: RunDir) -> None:
    run.folder("texts").mkdir(parents=True)
    make(run, "texts", 1)
    run.folder("model").mkdir()
    (run.folder("model") / f"{PLAN}.tmp").write_text("{")
    make(run, "model", 1)
    assert whole(run, "model", None) == whole(run, "texts", None) == 1


def test_a_link_to_another_disk_stays_a_link(run: RunDir, tmp_path: Path) -> None:
    make(run, "embeddings", 1)
    run.folder("embeddings").rename(tmp_path / "disk")
    run.folder("embeddings").symlink_to(tmp_path / "disk")
    make(run, "embeddings", 2)
    assert run.folder("embeddings").is_symlink()
    assert whole(run, "embeddings", None) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "run"]


def test_where_two_do_not_fit_it_is_said_and_the_old_one_stays(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(run, "model", 1)
    monkeypatch.setattr(artifact_module.shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    with pytest.raises(ArtifactError, match=r"model/ stays until .*delete that folder and run"):
        make(run, "model", 2)
    assert whole(run, "model", None) == 1


def test_a_name_from_a_manifest_never_leaves_the_run(run: RunDir) -> None:
    make(run, "model", 1)
    for name in ("..", "../model", "", ".x", "a\nb"):
        with pytest.raises(ArtifactError, match="expected the name of a folder of"):
            run.folder("evaluations", name)
    path = run.folder("model") / MANIFEST
    content = json.loads(path.read_text())
    path.write_text(json.dumps(sealed({**content, "inputs": {"evaluations/../..": "x"}})))
    with pytest.raises(ArtifactError, match="expected the name of a folder of"):
        require(run, "model")


def test_leftovers_are_no_artifacts(run: RunDir) -> None:
    make(run, "evaluations", 1, subfolder="dev")
    folder = run.folder("evaluations")
    for name in ("dev.old", "dev.new", ".dev"):
        shutil.copytree(folder / "dev", folder / name)
    assert places.finished_below(folder, "evaluations") == [folder / "dev"]
    with run.lock():
        assert sorted(path.name for path in folder.iterdir()) == [".dev", "dev"]


def test_what_an_artifact_is_made_from_is_not_replaced_by_it(
    run_copy: Path, small_input: Path
) -> None:
    for folder in ("texts", "queries", "split", "embeddings"):
        (run_copy / folder).mkdir(exist_ok=True)
        for name in ("pairs", "corpus"):
            shutil.copy(small_input / f"{name}.parquet", run_copy / folder)
    run, where = str(run_copy), "is where this command writes"
    inside = {
        "pairs": str(run_copy / "texts" / "pairs.parquet"),
        "corpus": str(run_copy / "texts" / ".." / "texts" / "corpus.parquet"),
    }
    for name, path in inside.items():
        outside = {one: str(small_input / f"{one}.parquet") for one in inside}
        with pytest.raises(ConfigError, match=where):
            run_embed(EmbedConfig(**{**outside, name: path}, run_dir=run, overwrite=True))
    source = Source(name="a", path=inside["pairs"])
    with pytest.raises(ConfigError, match=where):
        run_embed(EmbedConfig(sources=(source,), run_dir=run, overwrite=True))
    with pytest.raises(ConfigError, match=where):
        run_split(SplitConfig(pairs=f"{run}/split/pairs.parquet", run_dir=run, overwrite=True))
    with pytest.raises(ConfigError, match=where):
        run_queries(QueriesConfig(corpus=f"{run}/queries/corpus.parquet", run_dir=run))
    vectors = f"{run}/embeddings/queries-00000-of-00001.npy"
    given = {"query_vectors": vectors, "passage_vectors": vectors}
    with pytest.raises(ConfigError, match=where):
        run_embed(EmbedConfig(**outside, **given, run_dir=run, overwrite=True))


def test_locks_and_choices_have_names_of_nobody_else(run: RunDir) -> None:
    """A run directory may be any folder, such as one of source code."""
    run.path.mkdir()
    theirs = [".lock", ".lock.json", "embed-choices.json", ".share-0-of-2.lock"]
    for name in theirs:
        (run.path / name).write_text("of somebody else")
    shard = TaskShard(0, 2, "a plan")
    with run.lock(begins=True):
        pass
    with run.lock(shard, begins=True):
        pass
    assert {name: (run.path / name).read_text() for name in theirs} == dict.fromkeys(
        theirs, "of somebody else"
    )


def test_mine_and_embed_refuse_what_is_not_ours_before_their_work(
    run_copy: Path, small_input: Path
) -> None:
    run = RunDir(run_copy)
    for name in ("negatives", "embeddings"):
        for place in (run.folder(name), places.beside(run.folder(name))):
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            (place / "thesis.txt").write_text("mine")
            before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*.*")}
            with pytest.raises(ArtifactError, match="is left alone, also with --overwrite"):
                if name == "negatives":
                    run_mine(MineConfig(run_dir=str(run_copy), k=2, depth=50, device="cpu"))
                else:
                    pairs = str(small_input / "pairs.parquet")
                    run_embed(EmbedConfig(pairs=pairs, dtype="float16", run_dir=str(run_copy)))
            now = {path: path.stat().st_mtime_ns for path in run.path.rglob("*.*")}
            assert {p: t for p, t in now.items() if not p.name.startswith(".lock")} == {
                p: t for p, t in before.items() if not p.name.startswith(".lock")
            }
            shutil.rmtree(place)


SCRATCH = {
    "queries": ["blocks/00000.arrow", "pairs.parquet.tmp"],
    "embeddings": ["queries-00000-of-00001.npy.counts.json", "rows-queries.npy"],
    "batches": ["assignment-00000.npy", "epoch-000/train-00000-of-00001.parquet.tmp"],
    "model": ["checkpoints/checkpoint-4/optimizer.pt", "saving/config.json"],
}


@pytest.mark.parametrize("name", list(SCRATCH))
def test_what_tasks_needed_goes_with_any_next_command(run: RunDir, name: str) -> None:
    """Killed once its manifest is written: the next command of the run need not be its own."""
    make(run, name, 1)
    make(run, "texts", 1)
    before = tree(run.path)
    for file in SCRATCH[name]:
        path = run.folder(name) / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("half")
    (run.folder(name) / "notes.txt").write_text("mine")
    make(run, "texts", 1)
    assert tree(run.path) == {**before, f"{name}/notes.txt": "mine"}


def test_what_an_unfinished_artifact_has_is_kept(run: RunDir) -> None:
    with run.lock(begins=True):
        Artifact(run, "model", fields={"seed": 1}, inputs={}).begin(FILES)
    checkpoint = run.folder("model") / "checkpoints" / "state.json"
    checkpoint.parent.mkdir()
    checkpoint.write_text("{}")
    make(run, "texts", 1)
    assert checkpoint.exists()
    make(run, "model", 1)
    assert not checkpoint.parent.exists()


def test_a_report_says_what_is_stale_and_what_was_begun_beside(run: RunDir) -> None:
    make(run, "embeddings", 1)
    digest = require(run, "embeddings").digest
    with run.lock():
        for name, inputs in (("negatives", "embeddings"), ("batches", "negatives")):
            made = Artifact(run, name, fields={}, inputs={inputs: require(run, inputs).digest})
            made.begin([])
            made.finish([], counts={})
        changed = Artifact(run, "embeddings", fields={"seed": 2}, inputs={}, overwrite=True)
        changed.begin(FILES)
        assert run.begun_beside() == ["embeddings"]
        kept = Artifact(run, "embeddings", fields={"seed": 1}, inputs={})
        report = make_report(kept, [], skipped=True)
        assert report.lines == ()
        assert report.warnings[0].startswith("embeddings.new/ was begun beside embeddings/")
        for file in FILES:
            (changed.folder / file).write_text(f"2 {file}")
        changed.finish(FILES, counts={})
        report = make_report(changed, ["done"])
    assert require(run, "embeddings").digest != digest
    assert report.warnings == ()
    assert report.lines[1].startswith(
        "stale now, made from the earlier embeddings/: negatives, batches; their own commands"
    )

"""Artifacts: done, resumed, refused, replaced, stale; the lock; a kill in the middle."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Cli, cli_command, cli_environment

from stx_mine.errors import ArtifactError, LockedError
from stx_mine.stages.index.config import IndexConfig
from stx_mine.store.artifact import MANIFEST, PLAN, Artifact, Manifest, require
from stx_mine.store.files import StoredArray, atomic, checksum, read_json, write_array, write_json
from stx_mine.store.kinds import KINDS
from stx_mine.store.manifest import sealed
from stx_mine.store.run_dir import RunDir

FILES = ["one.txt", "two.txt", "three.txt"]
SEED_1: dict[str, Any] = {"seed": 1, "columns": ["a", "b"]}
SEED_2: dict[str, Any] = {"seed": 2, "columns": ["a", "b"]}


def write(folder: Path, name: str, text: str = "text") -> None:
    with atomic(folder / name) as path:
        path.write_text(text)


def make(
    run: RunDir,
    name: str,
    fields: dict[str, Any],
    inputs: dict[str, str],
    text: str,
    **options: Any,
) -> Manifest:
    artifact = Artifact(run, name, fields=fields, inputs=inputs, **options)
    artifact.begin(FILES)
    for file in artifact.pending(FILES):
        write(artifact.folder, file, text + file)
    return artifact.finish(FILES, counts={"in": 3})


def chain(run: RunDir, text: str = "v1") -> dict[str, Manifest]:
    """texts -> embeddings -> hits, finished."""
    texts = make(run, "texts", SEED_1, {}, text)
    embeddings = make(run, "embeddings", SEED_1, {"texts": texts.digest}, text)
    hits = make(run, "hits", SEED_1, {"texts": texts.digest, "embeddings": embeddings.digest}, text)
    return {"texts": texts, "embeddings": embeddings, "hits": hits}


def snapshot(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): checksum(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path / "run")


# --- done, resume ---


def test_a_finished_artifact_of_the_same_key_is_done(run: RunDir) -> None:
    made = make(run, "texts", SEED_1, {}, "v1")
    before = snapshot(run.path)
    again = Artifact(run, "texts", fields=SEED_1, inputs={})
    assert again.done
    assert again.result.digest == made.digest
    # Also where it could be replaced: there is nothing to replace.
    assert Artifact(run, "texts", fields=SEED_1, inputs={}, overwrite=True).done
    assert snapshot(run.path) == before


def test_the_order_of_fields_is_not_part_of_the_key(run: RunDir) -> None:
    make(run, "texts", {"a": 1, "b": (2, 3)}, {}, "v1")
    assert Artifact(run, "texts", fields={"b": [2, 3], "a": 1}, inputs={}).done


def test_an_unfinished_artifact_resumes_only_what_is_missing(run: RunDir) -> None:
    first = Artifact(run, "texts", fields=SEED_1, inputs={})
    assert not first.done
    first.begin(FILES, {"block": 7})
    write(first.folder, "two.txt", "made before the crash")

    second = Artifact(run, "texts", fields=SEED_1, inputs={})
    assert not second.done
    second.begin(FILES, {"block": 9})
    assert second.pending(FILES) == ["one.txt", "three.txt"]
    # The plan is that of the first start, with what was tuned then.
    assert read_json(second.folder / PLAN)["choices"] == {"block": 7}
    for name in second.pending(FILES):
        write(second.folder, name)
    second.finish(FILES, counts={})
    assert (second.folder / "two.txt").read_text() == "made before the crash"
    assert Artifact(run, "texts", fields=SEED_1, inputs={}).done


def test_overwrite_also_resumes_an_unfinished_artifact_of_the_same_key(run: RunDir) -> None:
    first = Artifact(run, "texts", fields=SEED_1, inputs={})
    first.begin(FILES)
    write(first.folder, "two.txt")
    second = Artifact(run, "texts", fields=SEED_1, inputs={}, overwrite=True)
    assert second.pending(FILES) == ["one.txt", "three.txt"]


def test_a_leftover_temporary_file_never_counts_as_made(run: RunDir) -> None:
    artifact = Artifact(run, "texts", fields=SEED_1, inputs={})
    artifact.begin(FILES)
    (artifact.folder / "one.txt.tmp").write_text("half")
    (artifact.folder / "manifest.json.tmp").write_text("{}")
    again = Artifact(run, "texts", fields=SEED_1, inputs={})
    assert not again.done
    assert again.pending(FILES) == FILES


def test_atomic_gives_the_final_name_only_to_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    with atomic(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [one.name for one in tmp_path.iterdir()] == ["file.txt"]


# --- other settings ---


def test_other_settings_are_refused_with_old_and_new_value(run: RunDir) -> None:
    make(run, "texts", SEED_1, {}, "v1")
    before = snapshot(run.path)
    with pytest.raises(ArtifactError, match=r"seed was 1 and is 2 now.*--overwrite") as caught:
        Artifact(run, "texts", fields=SEED_2, inputs={})
    assert "columns" not in str(caught.value)
    assert snapshot(run.path) == before


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({**SEED_1, "split": "dev"}, "split was None and is 'dev' now"),
        ({"seed": 1}, r"columns was \['a', 'b'\] and is None now"),
        ({"seed": 1, "columns": ["a"]}, r"columns was \['a', 'b'\] and is \['a'\] now"),
    ],
)
def test_an_added_or_removed_field_is_named(run: RunDir, fields: dict[str, Any], said: str) -> None:
    make(run, "texts", SEED_1, {}, "v1")
    with pytest.raises(ArtifactError, match=said):
        Artifact(run, "texts", fields=fields, inputs={})


def test_settings_of_an_unfinished_artifact_are_refused_too(run: RunDir) -> None:
    Artifact(run, "texts", fields=SEED_1, inputs={}).begin(FILES)
    with pytest.raises(ArtifactError, match="seed was 1 and is 2 now"):
        Artifact(run, "texts", fields=SEED_2, inputs={})


def test_a_changed_input_is_named(run: RunDir) -> None:
    make(run, "embeddings", SEED_1, {"texts": "digest 1"}, "v1")
    with pytest.raises(ArtifactError, match="texts/ has changed since"):
        Artifact(run, "embeddings", fields=SEED_1, inputs={"texts": "digest 2"})


def test_another_schema_is_named(run: RunDir) -> None:
    make(run, "texts", SEED_1, {}, "v1")
    path = run.folder("texts") / PLAN
    write_json(path, {**read_json(path), "schema": 0, "key": "another"})
    with pytest.raises(ArtifactError, match="schema was 0 and is 2 now"):
        Artifact(run, "texts", fields=SEED_1, inputs={})


def test_overwrite_replaces_only_its_own_folder(run: RunDir) -> None:
    chain(run)
    others = {name: snapshot(run.folder(name)) for name in ("texts", "embeddings")}
    leftover = run.folder("hits") / "of_the_old_plan.txt"
    leftover.write_text("old")
    inputs = read_json(run.folder("hits") / PLAN)["inputs"]
    made = make(run, "hits", SEED_2, inputs, "v2", overwrite=True)
    assert made.fields == SEED_2
    assert not leftover.exists()
    assert (run.folder("hits") / "one.txt").read_text() == "v2one.txt"
    assert {name: snapshot(run.folder(name)) for name in others} == others


# --- views ---


def test_a_view_is_swapped_without_overwrite(run: RunDir) -> None:
    make(run, "negatives", SEED_1, {}, "v1")
    before = snapshot(run.folder("negatives"))
    artifact = Artifact(run, "negatives", fields=SEED_2, inputs={})
    artifact.begin(FILES)
    for name in artifact.pending(FILES):
        write(artifact.folder, name, "v2")
    # The old one is whole until the very end.
    assert snapshot(run.folder("negatives")) == before
    manifest = artifact.finish(FILES, counts={})
    assert manifest.folder == run.folder("negatives")
    assert require(run, "negatives").fields == SEED_2
    assert [one.name for one in run.path.iterdir()] == ["negatives"]


def test_a_view_that_was_begun_and_left_is_made_anew(run: RunDir) -> None:
    make(run, "negatives", SEED_1, {}, "v1")
    left = Artifact(run, "negatives", fields=SEED_2, inputs={})
    left.begin(FILES)
    write(left.folder, "one.txt", "half of other rules")
    assert require(run, "negatives").fields == SEED_1
    again = Artifact(run, "negatives", fields=SEED_2, inputs={})
    assert again.pending(FILES) == FILES
    assert Artifact(run, "negatives", fields=SEED_1, inputs={}).done


# --- reading ---


def test_require_names_the_command_that_makes_what_is_missing(run: RunDir) -> None:
    for name, kind in KINDS.items():
        with pytest.raises(ArtifactError, match=rf"{name}/ is missing; run `{kind.maker}` first"):
            require(run, name)
    Artifact(run, "texts", fields=SEED_1, inputs={}).begin(FILES)
    with pytest.raises(ArtifactError, match="texts/ is unfinished; run `stx-mine embed PAIRS`"):
        require(run, "texts")


def test_a_plan_without_a_newer_option_counts_it_at_its_default(run: RunDir) -> None:
    made = Artifact(run, "index", IndexConfig(), inputs={})
    made.begin(FILES)
    for file in FILES:
        (made.folder / file).write_text(file)
    manifest = made.finish(FILES, counts={})
    for name in (PLAN, MANIFEST):
        content = read_json(made.folder / name)
        del content["fields"]["nprobe"]
        content["key"] = "of an earlier version"
        write_json(made.folder / name, sealed(content))
    again = Artifact(run, "index", IndexConfig(), inputs={})
    assert again.done
    assert again.key == "of an earlier version"
    assert again.result.digest == manifest.digest
    with pytest.raises(ArtifactError, match="nprobe was 16 and is 8 now"):
        Artifact(run, "index", IndexConfig(nprobe=8), inputs={})


def test_a_stale_artifact_is_refused_with_the_command_that_renews_it(run: RunDir) -> None:
    chain(run)
    inputs = read_json(run.folder("embeddings") / PLAN)["inputs"]
    make(run, "embeddings", SEED_2, inputs, "v2", overwrite=True)
    require(run, "embeddings")
    with pytest.raises(
        ArtifactError, match=r"hits/ is stale: embeddings/ has changed.*`stx-mine mine"
    ):
        require(run, "hits")


def test_staleness_goes_all_the_way_down(run: RunDir) -> None:
    made = chain(run)
    make(run, "negatives", SEED_1, {"hits": made["hits"].digest}, "v1")
    make(run, "texts", SEED_2, {}, "v2", overwrite=True)
    with pytest.raises(ArtifactError, match=r"texts/ has changed since"):
        require(run, "negatives")


def test_a_remade_input_with_the_same_bytes_leaves_nothing_stale(run: RunDir) -> None:
    chain(run)
    make(run, "texts", SEED_2, {}, "v1", overwrite=True)
    require(run, "hits")


def test_the_digest_depends_on_bytes_and_names_not_on_time(run: RunDir, tmp_path: Path) -> None:
    first = make(run, "texts", SEED_1, {}, "v1")
    path = first.folder / MANIFEST
    content = read_json(path)
    write_json(path, sealed({**content, "finished": "2001-01-01T00:00:00+00:00"}))
    assert require(run, "texts").digest == first.digest
    other = make(RunDir(tmp_path / "other"), "texts", SEED_2, {}, "v1")
    assert other.digest == first.digest
    assert make(RunDir(tmp_path / "third"), "texts", SEED_1, {}, "v3").digest != first.digest
    assert "finished" not in read_json(first.folder / PLAN)


def test_the_manifest_lists_size_and_checksum_of_every_file(run: RunDir) -> None:
    made = make(run, "texts", SEED_1, {}, "v1")
    for one in made.content["files"]:
        path = made.folder / one["file"]
        assert one["bytes"] == path.stat().st_size
        assert one["xxh3_128"] == checksum(path)
    assert [one["file"] for one in made.content["files"]] == FILES


@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b"\xff\xfe\x00"])
def test_a_broken_plan_is_an_error_that_names_the_file(run: RunDir, content: bytes) -> None:
    make(run, "texts", SEED_1, {}, "v1")
    (run.folder("texts") / PLAN).write_bytes(content)
    with pytest.raises(ArtifactError, match=r"texts/plan\.json") as caught:
        Artifact(run, "texts", fields=SEED_1, inputs={})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"{}"])
def test_a_broken_manifest_is_an_error_that_names_the_file(run: RunDir, content: bytes) -> None:
    make(run, "texts", SEED_1, {}, "v1")
    (run.folder("texts") / MANIFEST).write_bytes(content)
    with pytest.raises(ArtifactError, match=r"texts/manifest\.json"):
        require(run, "texts").digest  # noqa: B018


def test_a_round_reads_the_texts_of_its_run(run: RunDir) -> None:
    made = make(run, "texts", SEED_1, {}, "v1")
    second = run.round_dir(2)
    assert require(second, "texts").digest == made.digest
    assert second.folder("embeddings") == run.path / "rounds/2/embeddings"
    with pytest.raises(ArtifactError, match=r"rounds/2/embeddings/ is missing"):
        require(second, "embeddings")


# --- the lock ---

HOLDER = """
import sys, time
from stx_mine.store.run_dir import RunDir
sys.argv = ["/usr/bin/stx-mine", "mine", "--k", "4"]
with RunDir(sys.argv_dir).lock(begins=True):
    print("held", flush=True)
    time.sleep(120)
"""


@pytest.fixture
def holder(run: RunDir) -> Any:
    """Another process that holds the lock of the run."""
    code = HOLDER.replace("sys.argv_dir", repr(str(run.path)))
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=cli_environment()
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_run_that_another_process_holds_is_refused_by_name(
    run: RunDir, holder: subprocess.Popen[str]
) -> None:
    said = rf"in use by process {holder.pid} on .*\(stx-mine mine\).*--run-dir"
    with pytest.raises(LockedError, match=said), run.lock():
        pass


def test_a_lock_left_by_a_killed_process_does_not_block(
    run: RunDir, holder: subprocess.Popen[str]
) -> None:
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert (run.path / ".lock-stx-mine.json").exists()
    with run.lock():
        assert json.loads((run.path / ".lock-stx-mine.json").read_text())["pid"] == os.getpid()


def test_the_command_line_says_who_holds_the_run(
    run: RunDir, holder: subprocess.Popen[str], cli_here: Cli
) -> None:
    error = cli_here("mine", run_dir=run.path).error
    assert f"process {holder.pid}" in error
    assert str(run.path) in error


def test_the_lock_is_free_after_an_error(run: RunDir) -> None:
    with pytest.raises(ZeroDivisionError), run.lock(begins=True):
        raise ZeroDivisionError
    assert not (run.path / ".lock-stx-mine.json").exists()
    with run.lock():
        pass


def test_two_runs_do_not_lock_each_other(run: RunDir, tmp_path: Path) -> None:
    with run.lock(begins=True), RunDir(tmp_path / "other").lock(begins=True):
        pass


def test_only_a_command_that_begins_a_run_makes_its_directory(run: RunDir) -> None:
    said = r"expected a run directory at .*/run, found nothing; check the path, or begin a run with"
    with pytest.raises(ArtifactError, match=said):
        run.lock()
    second = run.round_dir(2)
    # A round begins within a run, which is looked for where a mistyped path has none.
    for round_of_none in (False, True):
        with pytest.raises(ArtifactError, match=r"expected a run directory at .*found nothing"):
            second.lock(begins=round_of_none)
    assert not run.path.exists()
    with run.lock(begins=True):
        pass
    with pytest.raises(ArtifactError, match=r"at .*rounds/2, found nothing"):
        second.lock()
    with run.lock(), second.lock(begins=True):
        assert second.path.is_dir()
    run.folder("texts").write_text("")
    with pytest.raises(ArtifactError, match=r"texts, found a file"):
        RunDir(run.folder("texts")).lock()


# --- the real stages ---


def checksums(folder: Path) -> list[tuple[str, str]]:
    return [(one["file"], one["xxh3_128"]) for one in read_json(folder / MANIFEST)["files"]]


@pytest.mark.slow
def test_a_killed_embed_goes_on_and_ends_in_the_same_bytes(
    small_input: Path, tmp_path: Path, cli_here: Cli
) -> None:
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    command = ["embed", small_input / "pairs.parquet", "--shard-size", "5", "--device", "cpu"]
    assert cli_here(*command, run_dir=undisturbed).code == 0

    process = subprocess.Popen(
        cli_command(*command, "--run-dir", killed),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=cli_environment(),
    )
    deadline = time.monotonic() + 120
    while not any((killed / "embeddings").glob("*.npy")) and time.monotonic() < deadline:
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    made = {path.name: path.stat().st_mtime_ns for path in (killed / "embeddings").glob("*.npy")}
    expected = checksums(undisturbed / "embeddings")
    assert 0 < len(made) < len(expected), "the kill came too early or too late"
    assert not (killed / "embeddings" / MANIFEST).exists()
    (killed / "embeddings" / f"{expected[-1][0]}.tmp").write_bytes(b"half a shard")

    assert "embeddings/ is unfinished" in cli_here("mine", run_dir=killed).error
    again = cli_here(*command, run_dir=killed)
    assert again.code == 0, again
    assert "texts: done before, skipped" in again.stdout
    assert checksums(killed / "embeddings") == expected
    assert (
        require(RunDir(killed), "embeddings").digest
        == require(RunDir(undisturbed), "embeddings").digest
    )
    for name, made_at in made.items():
        assert (killed / "embeddings" / name).stat().st_mtime_ns == made_at


def test_other_settings_of_a_stage_are_refused_and_overwrite_makes_the_rest_stale(
    small_run: Path, tmp_path: Path, cli_here: Cli
) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(small_run, run_dir)
    before = snapshot(run_dir / "embeddings")
    error = cli_here("embed", "--dtype", "float16", run_dir=run_dir).error
    assert "dtype was 'float32' and is 'float16' now" in error
    assert snapshot(run_dir / "embeddings") == before

    texts = snapshot(run_dir / "texts")
    done = cli_here("embed", "--dtype", "float16", "--overwrite", run_dir=run_dir)
    assert done.code == 0, done
    assert snapshot(run_dir / "texts") == texts
    error = cli_here("pack", "--batch-size", "64", run_dir=run_dir).error
    assert "is stale" in error
    assert "stx-mine mine --overwrite" in error
    assert cli_here("mine", "--k", "4", "--overwrite", run_dir=run_dir).code == 0
    assert cli_here("pack", "--batch-size", "64", run_dir=run_dir).code == 0


def test_execution_fields_do_not_remake_anything(
    small_run: Path, tmp_path: Path, cli_here: Cli
) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(small_run, run_dir)
    before = snapshot(run_dir)
    assert "skipped" in cli_here("embed", "--embedding-cache", tmp_path, run_dir=run_dir).stdout
    mined = cli_here("mine", "--k", "4", "--passage-block", "99", run_dir=run_dir)
    assert "negatives: done before, skipped" in mined.stdout
    assert snapshot(run_dir) == before


def test_another_selection_reuses_the_hits(small_run: Path, tmp_path: Path, cli_here: Cli) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(small_run, run_dir)
    hits = snapshot(run_dir / "hits")
    done = cli_here("mine", "--k", "4", "--relative-margin", "0.2", run_dir=run_dir)
    assert done.code == 0, done
    assert "hits reused" in done.stdout
    assert snapshot(run_dir / "hits") == hits
    assert require(RunDir(run_dir), "negatives").fields["relative_margin"] == 0.2


def test_a_stored_array_gives_its_rows(tmp_path):
    array = np.arange(24, dtype=np.float32).reshape(6, 4)
    write_array(tmp_path / "rows.npy", array)
    stored = StoredArray.open(tmp_path / "rows.npy")
    assert len(stored) == 6 and stored.shape == (6, 4)
    for rows in (slice(2, 5), slice(4, 99), np.array([5, 0, 5]), np.empty(0, np.int64)):
        np.testing.assert_array_equal(stored[rows], array[rows])
    with pytest.raises(ValueError, match="read-only"):
        stored[0:2][:] = -1

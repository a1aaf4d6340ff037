"""Damage of every kind to every artifact: the next command that reads it names the file.

The short form, of a run that other tests share, takes seconds; the whole table is slow.
"""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import Cli, Finished, reseal
from damage import (
    DAMAGES,
    MANIFEST_DAMAGE,
    READ_BY_MAKER,
    REMADE,
    Case,
    advice,
    cases,
    digests,
    reader_of,
)
from whole_run import STEPS, arguments, write_input

from stx_mine.errors import DamagedError
from stx_mine.models.load import load_model
from stx_mine.stages.train.checkpoints import (
    last_checkpoint,
    list_files,
    remove_incomplete,
    seal_state,
)
from stx_mine.store import intact
from stx_mine.store.artifact import MANIFEST, Artifact, read_manifest, require
from stx_mine.store.checked import CheckedFiles
from stx_mine.store.files import (
    read_array,
    read_table,
    write_array,
    write_table,
)
from stx_mine.store.hits import HitBlock, HitSource
from stx_mine.store.intact import file_entry
from stx_mine.store.run_dir import RunDir

PACK = ("pack", "--batch-size", "64", "--packings", "2")
SHORT = {
    "texts": "pairs.arrow",
    "groups": "query_groups.npy",
    "embeddings": "passages-00000-of-00001.npy",
    "hits/dense": "layer-000-00000-of-00001.arrow",
    "negatives": "negatives-00000-of-00001.arrow",
}


@pytest.fixture(scope="module")
def run(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the small run that every test leaves as it found it."""
    copy = tmp_path_factory.mktemp("damaged") / "run"
    shutil.copytree(small_run, copy)
    return copy


@pytest.fixture
def batches(run: Path, cli_here: Cli) -> Path:
    """The run, with batches."""
    assert cli_here(*PACK, run_dir=run).code == 0
    return run


@pytest.fixture
def mended(run: Path) -> Iterator[None]:
    """Puts back what a test damages."""
    paths = [path for path in run.rglob("*") if path.is_file() and ".new" not in str(path)]
    files = {path: path.read_bytes() for path in paths}
    yield
    for path, content in files.items():
        if not path.exists() or path.read_bytes() != content:
            path.write_bytes(content)


@pytest.mark.parametrize("how", [*DAMAGES, *MANIFEST_DAMAGE])
@pytest.mark.parametrize("artifact", SHORT)
def test_damage_is_named_with_the_way_out(
    run: Path, cli_here: Cli, mended: None, artifact: str, how: str
) -> None:
    file = MANIFEST if how in MANIFEST_DAMAGE else SHORT[artifact]
    Case(artifact, file, how).do(run)
    error = cli_here(*PACK, run_dir=run).error
    if how != "swapped":
        assert (file if how != "manifest deleted" else artifact) in error
    assert "expected" in error or "unfinished" in error
    command = advice(error)
    assert command[0] == ("embed" if artifact in ("texts", "groups", "embeddings") else "mine")
    assert command[command.index("--run-dir") + 1] == str(run)
    whole = cli_here("verify", run)
    assert whole.code == 1
    assert f"{run / artifact}" in whole.stderr
    assert "Traceback" not in whole.stderr


def test_the_advice_mends(batches: Path, cli_here: Cli) -> None:
    """What the error names makes the same bytes again, and nothing else stale."""
    before = read_manifest(batches / "batches").digest
    for how in ("flipped", "deleted"):
        Case("batches", "epoch-001/train-00000-of-00001.parquet", how).do(batches)
        assert "epoch-001/train-00000" in cli_here(*PACK, run_dir=batches).error
        error = cli_here("train", "--device", "cpu", run_dir=batches).error
        assert "epoch-001/train-00000-of-00001.parquet is damaged" in error
        assert cli_here(*advice(error)).code == 0
        assert read_manifest(batches / "batches").digest == before
        assert cli_here("verify", batches).code == 0


def test_a_checksum_is_computed_once_on_a_machine(
    run: Path, mended: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed = []

    def checksum(path: Path) -> str:
        computed.append(path.name)
        return original(path)

    original = intact.checksum
    monkeypatch.setattr(intact, "checksum", checksum)
    files = sorted(read_manifest(run / "texts").names())
    require(RunDir(run), "texts")
    computed.clear()
    require(RunDir(run), "texts")
    assert computed == []
    require(RunDir(run, "full"), "texts")
    assert sorted(computed) == files
    computed.clear()
    # Of another time, it is another file until it has the same bytes.
    os.utime(run / "texts" / files[0], (1, 1))
    require(RunDir(run), "texts")
    assert computed == [files[0]]


def test_what_was_checked_is_never_a_part_of_the_run(run: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    require(RunDir(run, "full"), "texts")
    assert before == {path: path.stat().st_mtime_ns for path in run.rglob("*")}


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"folder": 1}', b"\xff", b"[" * 99_999])
def test_a_damaged_memory_only_means_to_check_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setenv("STX_MINE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / "one"
    path.write_bytes(b"bytes")
    os.utime(path, (1, 1))
    entry = file_entry(path.parent, "one")
    known = CheckedFiles(path.parent)
    monkeypatch.setattr("stx_mine.store.checked._YOUNG_NS", 0)
    known.add("one", path.stat(), entry["xxh3_128"])
    known.write()
    (remembered,) = (tmp_path / "cache" / "checked").iterdir()
    assert CheckedFiles(path.parent).holds("one", path.stat(), entry["xxh3_128"])
    remembered.write_bytes(content)
    assert not CheckedFiles(path.parent).holds("one", path.stat(), entry["xxh3_128"])


def test_full_finds_what_has_the_times_of_before(run: Path, cli_here: Cli, mended: None) -> None:
    """A disk that changes bits says nothing; only reading all of it tells."""
    path = run / "texts/pairs.arrow"
    require(RunDir(run), "texts")
    entry = read_manifest(run / "texts").entries["pairs.arrow"]
    Case("texts", "pairs.arrow", "flipped").do(run)
    known = CheckedFiles(run / "texts")
    known._known["pairs.arrow"] = [
        path.stat().st_size,
        path.stat().st_mtime_ns,
        path.stat().st_ctime_ns,
        entry["xxh3_128"],
    ]
    known._is_new = True
    known.write()
    require(RunDir(run), "texts")
    error = cli_here(*PACK, "--check", "full", run_dir=run).error
    assert "texts/pairs.arrow is damaged: expected the checksum" in error


def _strange_hits(run: Path) -> None:
    path = run / "hits/dense/layer-000-00000-of-00001.arrow"
    table = HitBlock.load(path, HitSource.DENSE)
    table.hits.values[-1] = 2_000_000_000
    temporary = table.table()
    write_table(path, temporary)
    reseal(run / "hits/dense")


def _strange_groups(run: Path) -> None:
    path = run / "groups/passage_groups.npy"
    groups = np.array(read_array(path))
    groups[3] = 2_000_000_000
    write_array(path, groups)
    reseal(run / "groups")


def _strange_pairs(run: Path) -> None:
    path = run / "texts/pairs.arrow"
    content = path.read_bytes()
    first = read_table(path).column("passage_id").to_numpy()[-16:].tobytes()
    path.write_bytes(content.replace(first, b"\x7f" * len(first)))
    reseal(run / "texts")


def _strange_offsets(run: Path) -> None:
    path = run / "texts/passages.arrow"
    content = path.read_bytes()
    buffer = read_table(path).column("text").chunk(0).buffers()[1]
    offsets = np.frombuffer(buffer, np.int64)[5:25]
    path.write_bytes(content.replace(offsets.tobytes(), (offsets << 30).tobytes()))
    reseal(run / "texts")


STRANGE = [_strange_hits, _strange_groups, _strange_pairs, _strange_offsets]


@pytest.mark.parametrize("change", STRANGE)
def test_numbers_that_stand_for_nothing_are_refused_where_all_checksums_fit(
    run: Path, cli_here: Cli, mended: None, change: object
) -> None:
    """Compiled code would follow them anywhere: a run from elsewhere was a segmentation fault."""
    change(run)  # type: ignore[operator]
    error = cli_here("mine", "--k", "3", "--device", "cpu", run_dir=run).error
    assert "expected" in error
    assert "mine" in error or "embed" in error


def test_a_damaged_model_is_named_before_it_is_loaded(
    tiny_transformer: Path, tmp_path: Path
) -> None:
    run = RunDir(tmp_path / "run")
    names = [
        path.relative_to(tiny_transformer).as_posix()
        for path in tiny_transformer.rglob("*")
        if path.is_file()
    ]
    artifact = Artifact(run, "model", inputs={}, fields={})
    artifact.begin(["modules.json"])
    shutil.copytree(tiny_transformer, artifact.folder, dirs_exist_ok=True)
    artifact.finish(names, counts={})
    folder = run.folder("model")
    load_model(str(folder), "cpu")
    for name in ("model.safetensors", "tokenizer.json", "1_Pooling/config.json"):
        content = (folder / name).read_bytes()
        for how in DAMAGES:
            Case("model", name, how).do(run.path)
            with pytest.raises(DamagedError, match=r"is damaged: expected .*`stx-mine train"):
                load_model(str(folder), "cpu")
            if how == "swapped":
                shutil.copytree(tiny_transformer, folder, dirs_exist_ok=True)
            (folder / name).write_bytes(content)
    load_model(str(folder), "cpu")


@pytest.mark.parametrize("name", ["model.safetensors", "trainer_state.json", "files.json"])
@pytest.mark.parametrize("how", ["flipped", "truncated", "emptied", "deleted"])
def test_training_continues_from_no_damaged_checkpoint(tmp_path: Path, name: str, how: str) -> None:
    for step in (3, 6):
        checkpoint = tmp_path / f"checkpoint-{step}"
        checkpoint.mkdir()
        (checkpoint / "model.safetensors").write_bytes(b"weights" * step)
        (checkpoint / "optimizer.pt").write_bytes(b"moments" * step)
        list_files(checkpoint, 1)
        state = {"global_step": step, "log_history": [1.0] * 99}
        (checkpoint / "trainer_state.json").write_text(json.dumps(state))
        seal_state(checkpoint)
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-6")
    DAMAGES[how](tmp_path / "checkpoint-6" / name, None)
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-3")
    assert remove_incomplete(tmp_path) == ["checkpoint-6"]


def test_verify_says_what_holds_and_what_is_left_over(batches: Path, cli_here: Cli) -> None:
    done = cli_here("verify", batches)
    assert done.code == 0, done
    for artifact in (*SHORT, "batches"):
        assert f"{artifact}: " in done.stdout
    (batches / "texts" / "notes.txt").write_text("mine")
    shutil.copytree(batches / "negatives", batches / "negatives.old")
    done = cli_here("verify", batches)
    shutil.rmtree(batches / "negatives.old")
    (batches / "texts" / "notes.txt").unlink()
    assert done.code == 0, done
    assert "texts/notes.txt: left over" in done.stderr
    assert "negatives.old: left over" in done.stderr.replace("/:", ":")
    one = cli_here("verify", batches / "texts")
    assert one.code == 0
    assert one.stdout.count("as they were written") == 1


def test_verify_names_what_is_stale(batches: Path, cli_here: Cli, mended: None) -> None:
    assert cli_here("mine", "--k", "4", "--relative-margin", "0.2", run_dir=batches).code == 0
    done = cli_here("verify", batches)
    assert done.code == 1
    assert "batches/ is stale: negatives/ has changed since; rebuild it with `stx-mine pack" in (
        done.stderr
    )


# --- the whole table ---


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the input and a run with every artifact."""
    return tmp_path_factory.mktemp("whole")


@pytest.mark.slow
@pytest.mark.timeout(3_600)
def test_every_damage_of_every_artifact(whole: Path, cli_here: Cli) -> None:
    """Named with the way out, which mends; or made anew. The table is printed (pytest -s)."""
    inputs, run = write_input(whole / "input"), whole / "run"
    for step in STEPS:
        assert cli_here(*arguments(step, inputs, run)).code == 0, step
    shutil.copytree(run, whole / "sound")
    before, table, wrong = digests(run), [], []
    for case in cases(run):
        shutil.rmtree(run)
        shutil.rmtree(whole / "other", ignore_errors=True)
        shutil.copytree(whole / "sound", run)
        case.do(run)
        checked = cli_here("verify", run)
        said = cli_here(*reader_of(case.artifact, run, inputs))
        verdict = _verdict(case, checked, said)
        if said.code == 2 and verdict == "named":
            followed = cli_here(*advice(said.error))
            mended = followed.code == 0 and digests(run) == before
            verdict = "named, and the advice mends" if mended else f"not mended: {followed}"
        if cli_here("verify", run).code or "not" in verdict:
            wrong.append((case, verdict))
        table.append((*case, verdict, (said.stderr.splitlines() or ["made anew"])[-1]))
    for row in table:
        print(" | ".join(row))
    assert wrong == []


def _verdict(case: Case, checked: Finished, said: Finished) -> str:
    names = (case.artifact,) if case.how in ("swapped", "manifest deleted") else (case.file,)
    if checked.code != 1 or not all(name in checked.stderr for name in names):
        return f"not found by verify: {checked}"
    finished = case.how == "manifest deleted" and case.artifact in READ_BY_MAKER
    if said.code == 0 and (case.artifact in REMADE or finished):
        return "made anew"
    if said.code == 2 and all(name in said.error for name in names):
        return "named"
    return f"not named: {said}"

"""Sharing on a hub: the client of huggingface_hub against a server of this machine."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import Cli, Finished, cli_command, cli_environment
from hub_server import READER, WRITER, Hub, Repository, serve_hub
from sentence_transformers import SentenceTransformer

from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.stage import run_pack
from stx_mine.store.artifact import MANIFEST, PLAN

DATA, MODEL = "hf://datasets/me/x", "hf://me/model"
MARKS = {f".stx-mine/{name}" for name in (MANIFEST, PLAN, "README.md", "share.json")}
Asked = Callable[..., Finished]


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve_hub() as served:
        yield served


@pytest.fixture
def asked(hub: Hub, cli: Cli, tmp_path: Path) -> Asked:
    """`asked("publish", URL, ..., run_dir=...)`: a command in a process that knows the hub."""

    def run(*words: str | Path, run_dir: Path, token: str | None = WRITER, **more: str) -> Finished:
        known = hub.environment(token, HF_HOME=str(tmp_path / "home"))
        return cli(*words, run_dir=run_dir, **{**known, **more})

    return run


def listed(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def publish(asked: Asked, run: Path, url: str = DATA, *words: str, **options) -> Finished:
    return asked("publish", url, "--license", "mit", *words, run_dir=run, **options)


def test_a_data_set_goes_there_and_back(trained_run, hub, asked, tmp_path) -> None:
    done = publish(asked, trained_run)
    assert done.code == 0, done
    assert "batches: 9 of 9 files moved" in done.stdout
    assert "license mit, private" in done.stdout
    assert done.stderr == ""
    repository = hub.repositories["datasets/me/x"]
    assert repository.private
    # One commit, that of the hub aside: nobody ever sees half of it.
    assert len(repository.commits) == 2
    own = {k: v for k, v in listed(trained_run / "batches").items() if k not in (MANIFEST, PLAN)}
    assert repository.files.keys() == {*own, *MARKS, ".gitattributes"}
    for name, content in own.items():
        place = ".stx-mine/README.md" if name == "README.md" else name
        assert repository.files[place] == content, name
    assert repository.files["README.md"].startswith(b"---\nlicense: mit\n")
    # It is the same tree as that of a folder.
    publish(asked, trained_run, DATA, "--to", str(tmp_path / "x"))
    assert listed(tmp_path / "x") == {
        name: content for name, content in repository.files.items() if name != ".gitattributes"
    }
    fetched = asked("fetch", DATA, run_dir=tmp_path / "other")
    assert "batches: 5 of 5 files moved" in fetched.stdout, fetched
    back = listed(tmp_path / "other" / "batches")
    assert {k: v for k, v in back.items() if k not in (MANIFEST, PLAN)} == own
    assert "skipped" in asked("fetch", DATA, run_dir=tmp_path / "other").stdout
    # An older commit can be named.
    old = asked("fetch", f"{DATA}@{repository.sha}", run_dir=tmp_path / "third")
    assert old.code == 0 and listed(tmp_path / "third" / "batches").keys() == back.keys()


def test_a_model_goes_there_and_back(trained_run, hub, asked, tmp_path) -> None:
    assert publish(asked, trained_run, MODEL, "--public").code == 0
    repository = hub.repositories["models/me/model"]
    assert not repository.private
    assert b'SentenceTransformer("me/model")' in repository.files["README.md"]
    # Everybody may read it.
    assert asked("fetch", MODEL, run_dir=tmp_path / "other", token=None).code == 0
    runs = (trained_run, tmp_path / "other")
    own, back = (SentenceTransformer(str(run / "model")) for run in runs)
    assert np.array_equal(own.encode(["a dog"]), back.encode(["a dog"]))
    card = (trained_run / "model" / "README.md").read_bytes()
    assert (tmp_path / "other/model/README.md").read_bytes() == card


def test_only_what_changed_is_sent(trained_copy, hub, asked) -> None:
    publish(asked, trained_copy)
    hub.sent.clear()
    done = publish(asked, trained_copy)
    assert "skipped" in done.stdout and "all 9 files were there" in done.stdout
    assert hub.sent == []
    done = asked("publish", DATA, "--license", "cc0-1.0", run_dir=trained_copy)
    assert "2 of 9 files moved" in done.stdout, done
    assert hub.sent == ["file .stx-mine/share.json", "file README.md"]
    # Another artifact: refused, then its files replace those that were ours, and no other one.
    hub.repositories["datasets/me/x"].files["LICENSE"] = b"theirs"
    packed = PackConfig(run_dir=str(trained_copy), batch_size=64, packings=1, overwrite=True)
    run_pack(packed)
    assert "holds another batches" in publish(asked, trained_copy).error
    hub.sent.clear()
    assert publish(asked, trained_copy, DATA, "--overwrite").code == 0
    files = hub.repositories["datasets/me/x"].files
    assert "deletedFile epoch-001/train-00000-of-00001.parquet" in hub.sent
    assert files["LICENSE"] == b"theirs"
    assert {name for name in files if name.startswith("epoch")} == {
        "epoch-000/train-00000-of-00001.parquet"
    }


def test_what_was_cut_short_goes_on(trained_run, hub, asked) -> None:
    hub.most_sent = 2
    broken = publish(asked, trained_run)
    assert "the line is dead" in broken.error and "run the same command again" in broken.error
    repository = hub.repositories["datasets/me/x"]
    assert repository.files.keys() == {".gitattributes"}
    sent, hub.most_sent = set(hub.sent), None
    assert len(sent) == 2
    hub.sent.clear()
    assert publish(asked, trained_run).code == 0
    large = [one for one in hub.sent if " " not in one]
    assert len(large) == 2 and not sent & set(large)
    assert MARKS <= repository.files.keys()


def test_a_call_that_was_killed_goes_on(trained_run, hub, asked, tmp_path) -> None:
    words = cli_command("publish", DATA, "--license", "mit", "--run-dir", trained_run)
    known = hub.environment(HF_HOME=str(tmp_path / "home"))
    # It sends all the rest only once the first file is there, which is when it dies.
    hub.stops = True
    with subprocess.Popen(words, env=cli_environment(**known), stderr=subprocess.DEVNULL) as call:
        assert hub.took.wait(60)
        call.kill()
    hub.stops = False
    sent = set(hub.sent)
    assert sent and hub.repositories["datasets/me/x"].files.keys() == {".gitattributes"}
    hub.sent.clear()
    assert publish(asked, trained_run).code == 0
    assert not sent & set(hub.sent)
    assert asked("fetch", DATA, run_dir=tmp_path / "other").code == 0


def test_what_somebody_commits_meanwhile_is_not_overwritten(trained_run, hub, asked) -> None:
    publish(asked, trained_run)
    hub.meanwhile = {"README.md": b"theirs"}
    done = asked("publish", DATA, "--license", "cc0-1.0", run_dir=trained_run)
    assert "somebody has committed since" in done.error
    assert "run the same command again" in done.error
    assert hub.repositories["datasets/me/x"].files["README.md"] == b"theirs"


def test_a_repository_of_others_is_left_alone(trained_run, hub, asked, tmp_path) -> None:
    theirs = {"README.md": b"mine", "data.csv": b"a,b"}
    hub.repositories["datasets/me/x"] = Repository(True, [theirs])
    for words in ((), ("--overwrite",)):
        error = publish(asked, trained_run, DATA, *words).error
        assert "did not publish (README.md, data.csv); it is left alone" in error
    assert hub.sent == [] and hub.repositories["datasets/me/x"].commits == [theirs]
    error = asked("fetch", DATA, run_dir=tmp_path / "other").error
    assert "holds nothing that `stx-mine publish` sent there" in error
    assert f"`stx-mine embed {DATA}`" in error


def test_nothing_private_is_sent_to_everybody(trained_run, hub, asked) -> None:
    hub.repositories["datasets/me/x"] = Repository(private=False)
    assert "is public, expected a private one; give --public" in publish(asked, trained_run).error
    assert hub.sent == []
    assert "license mit, public" in publish(asked, trained_run, DATA, "--public").stdout


def test_a_card_that_was_edited_there_is_kept(trained_run, hub, asked) -> None:
    publish(asked, trained_run)
    files = hub.repositories["datasets/me/x"].files
    files["README.md"] += b"\nMy own words.\n"
    assert "README.md of hf://datasets/me/x was edited there" in publish(asked, trained_run).error
    assert files["README.md"].endswith(b"My own words.\n")
    # Who fetches gets the card that the artifact had.
    assert publish(asked, trained_run, DATA, "--overwrite").code == 0
    assert b"My own words" not in hub.repositories["datasets/me/x"].files["README.md"]


def test_a_hub_that_does_not_take_it_is_told_in_one_line(trained_run, hub, asked, tmp_path) -> None:
    secret = "hf_secretsecretsecretsecret"
    for token, said in (
        (None, "needs a token that may write, found none; set HF_TOKEN"),
        (secret, "the hub rejects the token (401)"),
        (READER, "the hub does not allow that at hf://datasets/me/x with this token (403)"),
    ):
        error = publish(asked, trained_run, token=token).error
        assert said in error and "--to DIR" in error
        assert secret not in error
    assert hub.repositories == {}
    error = publish(asked, trained_run, "hf://datasets/you/x").error
    assert "does not allow that at hf://datasets/you/x" in error
    error = publish(asked, trained_run, HF_ENDPOINT="http://127.0.0.1:9").error
    assert "cannot be reached: http://127.0.0.1:9 does not answer" in error and "--to DIR" in error
    assert (
        "the hub knows no hf://datasets/me/none"
        in asked("fetch", "hf://datasets/me/none", run_dir=tmp_path / "other").error
    )


def test_a_hub_that_is_damaged_gives_nothing(trained_run, hub, asked, tmp_path) -> None:
    publish(asked, trained_run)
    files = hub.repositories["datasets/me/x"].files
    path = "epoch-000/train-00000-of-00001.parquet"
    whole = files[path]
    files[path] = bytes([whole[0] ^ 1]) + whole[1:]
    assert f"{path} is damaged" in asked("fetch", DATA, run_dir=tmp_path / "other").error
    assert not (tmp_path / "other/batches").exists()
    files[path] = whole
    assert asked("fetch", DATA, run_dir=tmp_path / "other").code == 0
    said = json.loads(files[f".stx-mine/{MANIFEST}"])
    said["files"][0]["file"] = "../../evil"
    files[f".stx-mine/{MANIFEST}"] = json.dumps(said).encode()
    shutil.rmtree(tmp_path / "other")
    assert "it leaves the folder" in asked("fetch", DATA, run_dir=tmp_path / "other").error
    assert not (tmp_path / "evil").exists()

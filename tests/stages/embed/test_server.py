"""`embed --model http://...`: vectors of a server that runs already."""

import json
from pathlib import Path

import numpy as np
import pytest
from model_server import Served, embeddings_answer, serve

from stx_mine.errors import ArtifactError, ConfigError, ModelError
from stx_mine.models import server as server_module
from stx_mine.models.load import open_model
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.embed.stage import run_embed
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.stage import run_mine
from stx_mine.store.artifact import require
from stx_mine.store.files import read_array
from stx_mine.store.run_dir import RunDir


@pytest.fixture(scope="module")
def model():
    return open_model("package:wordllama", "cpu").model


@pytest.fixture
def server(model):
    def answer(path, body):
        assert path == "embeddings"
        return 200, embeddings_answer(model.encode(body["input"]))

    with serve(answer) as served:
        yield served


@pytest.fixture
def data(small_input: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(server_module, "_BACKOFF", 0.01)
    return small_input


def embed(data: Path, served: Served | str, run: str = "run", **options):
    return run_embed(
        EmbedConfig(
            pairs=str(data / "pairs.parquet"),
            corpus=str(data / "corpus.parquet"),
            model=served if isinstance(served, str) else served.url,
            run_dir=run,
            **options,
        )
    )


def vectors_of(run: str) -> np.ndarray:
    manifest = require(RunDir(run), "embeddings")
    return np.concatenate([read_array(one) for one in sorted(manifest.folder.glob("*.npy"))])


def test_vectors_are_those_of_the_model_that_is_served(data, server, small_run):
    report = embed(data, server, query_prompt="query: ", passage_prompt="")
    assert f"embedded with {server.url}" in report.lines[0]
    prompted = {
        text.startswith("query: ") for one in server.asked("embeddings") for text in one["input"]
    }
    assert prompted == {True, False}
    embed(data, server, "plain")
    np.testing.assert_allclose(vectors_of("plain"), vectors_of(str(small_run)), atol=1e-6)
    assert run_mine(MineConfig(run_dir="plain", k=4, device="cpu")).counts
    assert all(body["model"] == "one" for body in server.asked("embeddings"))
    assert max(len(body["input"]) for body in server.asked("embeddings")) == 64


def test_another_model_behind_the_same_name_is_another_model(data, server, model):
    embed(data, server)
    asked = len(server.requests)
    assert embed(data, server).skipped
    assert len(server.requests) - asked < 10
    # Sums in another order are the same model, other weights are not.
    noise = np.random.default_rng(0)

    def moved(by):
        def answer(path, body):
            found = model.encode(body["input"])
            return 200, embeddings_answer(found + by * noise.normal(size=found.shape))

        return answer

    server.answer = moved(1e-4)
    assert embed(data, server).skipped
    server.answer = moved(0.5)
    with pytest.raises(ArtifactError, match="--overwrite"):
        embed(data, server)


def test_a_cache_serves_runs_that_ask_the_same_model(data, server, model):
    embed(data, server, "one", embedding_cache="cache")
    asked = len(server.requests)

    def answer(path, body):
        return 200, embeddings_answer(model.encode(body["input"]) * 1.0001)

    server.answer = answer
    report = embed(data, server, "two", embedding_cache="cache")
    assert len(server.requests) - asked < 10
    assert any("from the cache: " in line and "100.0%" in line for line in report.lines)


def test_what_passes_is_waited_for(data, server):
    whole, failures = server.answer, iter([429, 503, 500, 408])

    def answer(path, body):
        status = next(failures, 200)
        return whole(path, body) if status == 200 else (status, {"error": "busy"})

    server.answer = answer
    embed(data, server)
    assert next(failures, None) is None


@pytest.mark.parametrize(
    ("status", "content", "words"),
    [
        (200, b"<html>hello</html>", "expected JSON from --model"),
        (200, [1, 2], "expected an object from --model"),
        (200, {"data": "no"}, "expected `data` with an index and an embedding"),
        (200, {"data": [{"index": 0, "embedding": ["a"]}]}, "expected `data` with an index"),
        (200, {"data": [{"index": 3, "embedding": [1.0]}]}, "expected `data` with an index"),
        (200, {"data": [{"index": 0, "embedding": []}]}, "expected vectors with dimensions"),
        (401, {"error": "who?"}, "answers 401 .*STX_API_KEY"),
        (404, {"error": "nothing\nhere"}, "answers 404 .*check the address"),
        (307, b"", "answers 307"),
        (400, {"error": "too long"}, "answers 400 .*too long.*see the log"),
        (503, {"error": "ill"}, "answers 503 .*--requests-per-minute"),
    ],
)
def test_answers_that_are_no_vectors_are_one_line(data, server, status, content, words):
    server.answer = lambda path, body: (status, content)
    with pytest.raises(ModelError, match=words) as error:
        embed(data, server)
    assert "\n" not in str(error.value)
    assert not Path("run/embeddings").exists()


def test_a_server_that_is_not_there_is_one_line_and_what_is_finished_stays(data, server):
    whole = server.answer
    calls = []

    def answer(path, body):
        calls.append(body)
        return (500, {}) if len(calls) > 12 else whole(path, body)

    server.answer = answer
    with pytest.raises(ModelError, match="answers 500"):
        embed(data, server, shard_size=200)
    server.answer = whole
    finished = len(list(Path("run").glob("embeddings*/*.npy")))
    assert finished
    embed(data, server, shard_size=200)
    with pytest.raises(ModelError, match=r"does not answer \(.*refused"):
        embed(data, "http://127.0.0.1:1/v1", "other")


def test_vectors_that_change_their_length_are_refused(data, server, model):
    def answer(path, body):
        found = model.encode(body["input"])
        return 200, embeddings_answer(found[:, : 8 * len(found)])

    server.answer = answer
    with pytest.raises(ModelError, match=r"dimensions|one length"):
        embed(data, server)


def test_keys_come_from_the_environment_and_go_nowhere(data, server, monkeypatch):
    monkeypatch.setenv("STX_API_KEY", "nobody-knows-it")
    Path(".netrc").write_text("machine 127.0.0.1 login me password mine\n")
    monkeypatch.setenv("NETRC", str(Path(".netrc").absolute()))
    embed(data, server)
    assert server.keys == {"Bearer nobody-knows-it"}
    held = [path for path in Path("run").rglob("*") if path.is_file()]
    assert not any(b"nobody-knows-it" in path.read_bytes() for path in held)


def test_models_of_a_server_are_named_where_there_are_several(data, server):
    server.models = ["one", "two"]
    with pytest.raises(ConfigError, match="found one, two; name it with --server-model"):
        embed(data, server)
    embed(data, server, server_model="two")
    assert {body["model"] for body in server.asked("embeddings")} == {"two"}
    contract = json.loads(Path("run/embeddings/manifest.json").read_text())["extra"]["contract"]
    assert contract["server_model"] == "two"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model": "http://me:secret@host/v1"}, "must be the base address"),
        ({"model": "http:///v1"}, "must be the base address"),
        ({"model": "https://host/v1?key=1"}, "must be the base address"),
        ({"precision": "bfloat16"}, "--precision bfloat16 is for a model that runs here"),
        ({"device": "cpu"}, "--device cpu is for a model that runs here"),
        ({"truncate_dim": 3}, "--truncate-dim 3 is for a model that runs here"),
        ({"revision": "main"}, "--revision main is for a model that runs here"),
        ({"chunk": (10, 2)}, "--chunk 10,2 counts tokens of a model, found none"),
    ],
)
def test_what_a_server_does_not_heed_is_refused(tmp_path, options, words):
    own = {"pairs": "p.csv", "model": "http://localhost:1/v1", "run_dir": str(tmp_path / "run")}
    with pytest.raises(ConfigError, match=words):
        run_embed(EmbedConfig(**{**own, **options}))


def test_a_model_here_has_no_name_at_a_server():
    with pytest.raises(ConfigError, match="--server-model one needs a server as --model"):
        EmbedConfig(pairs="p.csv", server_model="one")

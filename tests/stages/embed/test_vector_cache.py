"""The embedding cache, vectors that a person brings, functions that embed, several devices."""

import fcntl
import subprocess
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import cli_command, cli_environment
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stx_mine.errors import ConfigError, InputError, ModelError
from stx_mine.stages.embed import cache as cache_module
from stx_mine.stages.embed.cache import VectorCache, text_keys
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.embed.fast_encoder import FastEncoder
from stx_mine.stages.embed.stage import run_embed
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.stage import run_mine
from stx_mine.store.artifact import read_manifest
from stx_mine.store.files import read_array
from stx_mine.store.texts import TextStore

SPACE = {"model": "one"}


def arrow(texts):
    return pa.chunked_array([pa.array(texts, pa.large_string())])


def vector_of(text, dim=3):
    """A vector that tells its text apart."""
    return np.frombuffer(text.encode().ljust(dim, b"\1")[:dim], np.uint8).astype(np.float32)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rounds=st.lists(st.lists(st.integers(0, 60), unique=True), max_size=6))
def test_a_cache_knows_what_was_added_and_nothing_else(tmp_path_factory, rounds):
    folder, known = tmp_path_factory.mktemp("cache"), set()
    for numbers in rounds:
        texts = [f"t{n:02d}" for n in numbers]
        cache = VectorCache.open(folder, SPACE)
        keys = text_keys(arrow(texts), "query", None)
        there, vectors = cache.find(keys, 3)
        assert there.tolist() == [text in known for text in texts]
        expected = [vector_of(text) for text in texts if text in known]
        np.testing.assert_array_equal(vectors, np.array(expected).reshape(-1, 3))
        new = [text for text in texts if text not in known]
        cache.add(keys[~there], np.array([vector_of(text) for text in new]).reshape(-1, 3))
        known.update(new)
    assert len(VectorCache.open(folder, SPACE)) == len(known)
    assert len(VectorCache.open(folder, {"model": "other"})) == 0


def test_what_killed_runs_left_is_cleared_and_what_lives_is_not(tmp_path, monkeypatch):
    cache = VectorCache.open(tmp_path, SPACE)
    dead, living = (cache.folder / f"adding-{name}" for name in ("dead", "living"))
    for folder in (dead, living):
        folder.mkdir()
        (folder / "keys.npy.tmp").write_bytes(b"half")
    with cache_module._held(living, fcntl.LOCK_EX):
        VectorCache.open(tmp_path, SPACE)
        assert living.exists() and not dead.exists()
    # One that clears while another writes does not disturb it.
    whole = cache_module.write_array

    def write(path, array):
        VectorCache.open(tmp_path, SPACE)
        whole(path, array)

    monkeypatch.setattr(cache_module, "write_array", write)
    cache.add(text_keys(arrow(["a"]), "query", None), np.ones((1, 3), np.float32))
    assert len(VectorCache.open(tmp_path, SPACE)) == 1
    assert sorted(path.name[:8] for path in cache.folder.iterdir()) == ["segment-", "space.js"]


def test_a_key_holds_role_prompt_and_text():
    made = {
        text_keys(arrow([text]), role, prompt).tobytes()
        for text in ("a", "b")
        for role in ("query", "passage")
        for prompt in (None, "", "a")
    }
    assert len(made) == 12
    assert len(text_keys(arrow([]), "query", None)) == 0


def test_keys_that_share_their_first_half_are_told_apart(tmp_path):
    keys = np.array([[7, 1], [7, 2], [8, 1]], np.uint64)
    cache = VectorCache.open(tmp_path, SPACE)
    cache.add(keys[:1], np.ones((1, 2), np.float32))
    there, vectors = VectorCache.open(tmp_path, SPACE).find(keys, 2)
    assert there.tolist() == [True, False, False]
    assert vectors.tolist() == [[1, 1]]


def test_two_runs_may_add_the_same_at_once(tmp_path):
    texts = [f"t{n:02d}" for n in range(50)]
    keys = text_keys(arrow(texts), "query", None)
    vectors = np.array([vector_of(text) for text in texts])
    caches = [VectorCache.open(tmp_path, SPACE) for _ in range(8)]
    threads = [threading.Thread(target=one.add, args=(keys, vectors)) for one in caches]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    there, found = VectorCache.open(tmp_path, SPACE).find(keys, 3)
    assert there.all()
    np.testing.assert_array_equal(found, vectors)


def flip(content):
    return content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]


@pytest.mark.parametrize("name", ["vectors.npy", "keys.npy", "files.json"])
@pytest.mark.parametrize("change", [flip, lambda content: content[:-7], lambda _: b"", None])
def test_a_damaged_segment_is_dropped_and_counted(tmp_path, name, change):
    cache = VectorCache.open(tmp_path, SPACE)
    for number in range(3):
        cache.add(np.array([[number, 7]], np.uint64), np.full((1, 2), number, np.float32))
    damaged = sorted(cache.folder.glob("segment-*"))[1]
    content = (damaged / name).read_bytes()
    (damaged / name).unlink()
    if change is not None:
        (damaged / name).write_bytes(change(content))
    opened = VectorCache.open(tmp_path, SPACE)
    assert (len(opened), opened.num_damaged) == (2, 1)
    keys = np.array([[0, 7], [1, 7], [2, 7]], np.uint64)
    there, vectors = opened.find(keys, 2)
    assert sorted(vectors[:, 0]) == np.flatnonzero(there).tolist()
    # What was dropped is embedded anew, and comes back whole.
    lost = int(np.flatnonzero(~there)[0])
    opened.add(keys[[lost]], np.full((1, 2), lost, np.float32))
    again = VectorCache.open(tmp_path, SPACE)
    assert (len(again), again.num_damaged) == (3, 0)
    np.testing.assert_array_equal(again.find(keys, 2)[1][:, 0], [0, 1, 2])


# --- the stage ---

QUERIES = [f"question {n} on foxes" for n in range(30)]
PASSAGES = [f"answer {n} about dogs and foxes" for n in range(30)]
CORPUS = [f"more {n} on cats" for n in range(11)]


@pytest.fixture
def data(tmp_path):
    pq.write_table(pa.table({"q": QUERIES, "p": PASSAGES}), tmp_path / "pairs.parquet")
    pq.write_table(pa.table({"text": [*CORPUS, *PASSAGES]}), tmp_path / "whole.parquet")
    pq.write_table(pa.table({"text": CORPUS}), tmp_path / "part.parquet")
    return tmp_path


def vectors_of(run, role):
    return np.concatenate(
        [read_array(path) for path in sorted((Path(run) / "embeddings").glob(f"{role}-*.npy"))]
    )


def embed(data, run, **options):
    given = {"pairs": str(data / "pairs.parquet"), "run_dir": str(data / run), **options}
    return run_embed(EmbedConfig(**given))


def test_only_new_texts_are_embedded(data, tiny_transformer, monkeypatch):
    seen = []
    plain = FastEncoder.embed

    def counted(self, texts, role, prompt=None):
        seen.append(len(texts))
        return plain(self, texts, role, prompt)

    monkeypatch.setattr(FastEncoder, "embed", counted)
    options = {
        "model": str(tiny_transformer),
        "device": "cpu",
        "shard_size": 8,
        "embedding_cache": str(data / "cache"),
    }
    embed(data, "one", **options)
    assert sum(seen) == 60
    seen.clear()
    rows = {"q": ["a new question", *QUERIES], "p": ["a new answer", *PASSAGES]}
    pq.write_table(pa.table(rows), data / "pairs.parquet")
    report = embed(data, "two", **options)
    assert sum(seen) == 2
    assert report.counts["cached"] == 60
    assert "from the cache: 60 (96.8%) of the texts" in " ".join(report.lines)
    for role in ("queries", "passages"):
        np.testing.assert_array_equal(
            vectors_of(data / "two", role)[1:], vectors_of(data / "one", role)
        )
    seen.clear()
    embed(data, "three", **options, query_prompt="ask: ")
    assert sum(seen) == 31
    seen.clear()
    embed(data, "four", **options, max_length=5)
    embed(data, "five", **options, dtype="float16")
    embed(data, "six", **options, normalize=True)
    assert sum(seen) == 3 * 62


def test_the_cache_gives_the_bytes_of_a_run_without_it(data, tiny_transformer):
    options = {"model": str(tiny_transformer), "device": "cpu", "dtype": "float16"}
    embed(data, "without", **options)
    for run in ("first", "second"):
        embed(data, run, **options, embedding_cache=str(data / "cache"))
        for role in ("queries", "passages"):
            np.testing.assert_array_equal(
                vectors_of(data / run, role), vectors_of(data / "without", role)
            )


def saved(path, texts, dim=4):
    np.save(path, np.array([vector_of(text[::-1], dim) for text in texts], np.float32))
    return str(path)


def test_vectors_in_the_order_of_rows_corpus_or_texts_are_matched(data):
    # A repeated row, which is one text.
    pq.write_table(
        pa.table({"q": [*QUERIES, QUERIES[3]], "p": [*PASSAGES, PASSAGES[5]]}),
        data / "pairs.parquet",
    )
    by_row = saved(data / "q.npy", [*QUERIES, QUERIES[3]])
    by_text = saved(data / "qt.npy", QUERIES)
    whole = str(data / "whole.parquet")
    rows = [*CORPUS, *PASSAGES, *PASSAGES, PASSAGES[5]]
    cases = {
        "stream": saved(data / "ps.npy", rows),
        "corpus": saved(data / "pc.npy", [*CORPUS, *PASSAGES]),
    }
    expected = np.array([vector_of(text[::-1], 4) for text in [*CORPUS, *PASSAGES]])
    for name, passages in cases.items():
        for queries in (by_row, by_text):
            run = f"{name}-{Path(queries).stem}"
            embed(data, run, corpus=whole, query_vectors=queries, passage_vectors=passages)
            np.testing.assert_array_equal(vectors_of(data / run, "passages"), expected)
            np.testing.assert_array_equal(
                vectors_of(data / run, "queries"),
                [vector_of(text[::-1], 4) for text in QUERIES],
            )
    contract = read_manifest(data / "stream-q/embeddings").extra["contract"]
    assert (contract["similarity"], contract["dim"]) == ("cosine", 4)
    run_mine(MineConfig(run_dir=str(data / "stream-q"), k=2, relative_margin=None, device="cpu"))
    with pytest.raises(ModelError, match="give --model"):
        load_without_name()


def load_without_name():
    from stx_mine.models.load import load_model

    load_model(None)


def test_vectors_that_do_not_fit_say_what_was_expected(data):
    queries = saved(data / "q.npy", QUERIES)
    passages = saved(data / "p.npy", PASSAGES[:-1])
    part = str(data / "part.parquet")
    with pytest.raises(InputError, match=r"41 \(distinct passages.*11 \(rows of the corpus, which"):
        embed(data, "run", corpus=part, query_vectors=queries, passage_vectors=passages)
    assert not (data / "run/embeddings").exists()
    with pytest.raises(InputError, match="name PAIRS too"):
        embed(data, "run", pairs=None, query_vectors=queries, passage_vectors=passages)
    wide = saved(data / "w.npy", PASSAGES, 5)
    with pytest.raises(InputError, match="found 4 and 5"):
        embed(data, "other", query_vectors=queries, passage_vectors=wide)
    np.save(data / "i.npy", np.arange(30))
    with pytest.raises(InputError, match="expected floats of shape"):
        embed(data, "other", query_vectors=str(data / "i.npy"), passage_vectors=wide)
    np.save(data / "n.npy", np.full((30, 5), np.nan, np.float32))
    with pytest.raises(InputError, match=r"row 0 of .* is not finite"):
        embed(data, "other", query_vectors=str(data / "n.npy"), passage_vectors=wide)
    (data / "text.npy").write_text("no array")
    with pytest.raises(InputError, match="expected one NumPy array"):
        embed(data, "other", query_vectors=str(data / "text.npy"), passage_vectors=wide)


def test_vectors_of_chunks_come_in_the_order_of_texts_only(data):
    cut = {"chunk": (14, 0), "tokenizer": "package:wordllama"}
    rows = [f"{one}, and a word or two on what cats do in the night" for one in PASSAGES]
    pq.write_table(pa.table({"q": QUERIES, "p": rows}), data / "pairs.parquet")
    by_row = {
        "query_vectors": saved(data / "q.npy", QUERIES),
        "passage_vectors": saved(data / "p.npy", rows),
    }
    with pytest.raises(InputError, match="which are chunks, so that rows of the input say nothing"):
        embed(data, "run", **cut, **by_row)
    store = TextStore.open(read_manifest(data / "run/texts"))
    chunks = store.passages.column("text").to_pylist()
    assert len(chunks) > len(PASSAGES)
    by_text = {**by_row, "passage_vectors": saved(data / "c.npy", chunks)}
    embed(data, "run", pairs=None, **by_text)
    expected = np.array([vector_of(text[::-1], 4) for text in chunks])
    np.testing.assert_array_equal(vectors_of(data / "run", "passages"), expected)


def test_options_that_vectors_or_functions_do_not_heed_are_refused(data):
    with pytest.raises(ConfigError, match=r"--query-vectors q\.npy needs --passage-vectors"):
        embed(data, "run", query_vectors="q.npy")
    for options in ({"model": "some"}, {"max_length": 3}, {"embedding_cache": "c"}):
        with pytest.raises(ConfigError, match="does not fit --query-vectors"):
            embed(data, "run", query_vectors="q.npy", passage_vectors="p.npy", **options)
    with pytest.raises(ConfigError, match="--precision float16 does not fit --encoder"):
        embed(data, "run", encoder="a:b", precision="float16")
    with pytest.raises(ConfigError, match="--similarity dot needs --encoder or --query-vectors"):
        embed(data, "run", similarity="dot")


ENCODER = """
import numpy as np
most, calls = 1_000, []
def embed(texts):
    calls.append(len(texts))
    if len(texts) > most:
        raise MemoryError("no more")
    return np.array([[len(text), text.count("a"), 1.0] for text in texts])
def flat(texts):
    return np.zeros(len(texts))
broken = 3
"""


@pytest.fixture
def encoder_module(tmp_path, monkeypatch):
    name = f"encoder_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(ENCODER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def test_any_function_may_embed(data, encoder_module):
    report = embed(
        data,
        "run",
        encoder=f"{encoder_module}:embed",
        query_prompt="aa ",
        similarity="euclidean",
        shard_size=7,
        embedding_cache=str(data / "cache"),
    )
    expected = [[len(t) + 3, t.count("a") + 2, 1] for t in QUERIES]
    np.testing.assert_array_equal(vectors_of(data / "run", "queries"), expected)
    extra = read_manifest(data / "run/embeddings").extra
    assert extra["contract"]["similarity"] == "euclidean"
    assert extra["model"] is None
    assert f"{encoder_module}:embed (3 dimensions" in report.lines[0]
    run_mine(MineConfig(run_dir=str(data / "run"), k=2, relative_margin=None, device="cpu"))


def test_a_function_that_runs_out_of_memory_gets_fewer_texts(data, encoder_module):
    module = __import__(encoder_module)
    module.most = 4
    report = embed(data, "run", encoder=f"{encoder_module}:embed")
    assert max(module.calls[-10:]) <= 4
    assert report.counts["halvings"] == 3
    assert "halved 3 times" in " ".join(report.warnings)
    module.most = 0
    with pytest.raises(ModelError, match="out of memory"):
        embed(data, "other", encoder=f"{encoder_module}:embed")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no_such_module:embed", "cannot import"),
        ("MODULE:nothing", "expected a function 'nothing'"),
        ("MODULE:broken", "found int"),
        ("MODULE", "expected a function"),
        ("MODULE:flat", "found float64 of shape"),
    ],
)
def test_a_function_that_cannot_embed_is_named(data, encoder_module, name, words):
    with pytest.raises(ModelError, match=words):
        embed(data, "run", encoder=name.replace("MODULE", encoder_module))


@pytest.mark.slow
def test_two_devices_give_the_bytes_of_one(data, tiny_transformer):
    command = ["embed", data / "pairs.parquet", "--model", tiny_transformer, "--shard-size", "4"]
    command += ["--batches-at-once", "1", "--embedding-cache"]
    for run, device in (("one", "cpu"), ("two", "cpu,cpu")):
        options = [data / f"cache-{run}", "--run-dir", data / run, "--device", device]
        subprocess.run(cli_command(*command, *options), check=True, env=cli_environment())
    one, two = (read_manifest(data / run / "embeddings") for run in ("one", "two"))
    assert one.digest == two.digest
    assert one.counts == two.counts


def test_a_device_that_torch_does_not_know_is_refused(data, tiny_transformer):
    with pytest.raises(ConfigError, match="found 'nowhere'"):
        embed(data, "run", model=str(tiny_transformer), device="cpu,nowhere")


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="mps works here")
def test_a_device_that_fails_says_so_in_one_line(data, tiny_transformer, cli_here):
    options = ["--model", tiny_transformer, "--device", "mps,mps", "--shard-size", "4"]
    done = cli_here("embed", data / "pairs.parquet", *options, run_dir=data / "run")
    assert done.code == 2
    assert "mps" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1

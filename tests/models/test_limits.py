"""The limit of tokens is heeded by every model or refused; a dimension is found if not reported."""

import json
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Router
from sentence_transformers.sentence_transformer.modules import BoW, Pooling, StaticEmbedding
from tokenizers import Tokenizer

from stx_mine.errors import ConfigError, ModelError
from stx_mine.models.encoder import token_limit
from stx_mine.models.limits import embedding_dim, limit_tokens
from stx_mine.models.load import load_model
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.embed.stage import run_embed
from stx_mine.stages.evaluate.config import EvaluateConfig
from stx_mine.stages.evaluate.stage import run_evaluate
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.stage import run_mine
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.stage import run_pack
from stx_mine.stages.train.config import TrainConfig
from stx_mine.stages.train.stage import run_train
from stx_mine.store.artifact import read_manifest, require
from stx_mine.store.files import read_array
from stx_mine.store.run_dir import RunDir
from stx_mine.store.texts import TextStore

LIMIT = 5
STATIC = "package:wordllama"


def of_first_tokens(model: SentenceTransformer, texts: list[str], limit: int) -> np.ndarray:
    """The mean of the rows of the first tokens of each text: what a static model is."""
    tokenizer = Tokenizer.from_str(model[0].tokenizer.to_str())
    tokenizer.no_truncation()
    table = model[0].embedding.weight.detach().numpy()
    found = tokenizer.encode_batch(texts, add_special_tokens=False)
    return np.stack([table[one.ids[:limit]].mean(0) for one in found])


@pytest.fixture(scope="module")
def limited_run(small_input: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small run, embedded by a static model that reads five tokens."""
    run = tmp_path_factory.mktemp("limited") / "run"
    pairs, corpus = str(small_input / "pairs.parquet"), str(small_input / "corpus.parquet")
    run_embed(
        EmbedConfig(
            pairs=pairs,
            corpus=corpus,
            model=STATIC,
            max_length=LIMIT,
            device="cpu",
            run_dir=str(run),
        )
    )
    run_mine(MineConfig(k=2, device="cpu", run_dir=str(run)))
    run_pack(PackConfig(batch_size=100, packings=1, run_dir=str(run)))
    return run


def test_a_static_model_reads_as_many_tokens_as_it_may(limited_run: Path) -> None:
    model = load_model(STATIC, "cpu", LIMIT)
    texts = TextStore.open(require(RunDir(limited_run), "texts")).passages["text"].to_pylist()
    found = np.concatenate(
        [read_array(one) for one in sorted((limited_run / "embeddings").glob("passages-*.npy"))]
    )
    np.testing.assert_array_equal(found, model.encode_document(texts, batch_size=1_024))
    np.testing.assert_allclose(found, of_first_tokens(model, texts, LIMIT), atol=1e-6)
    whole = load_model(STATIC, "cpu").encode_document(texts)
    assert not np.allclose(found, whole, atol=1e-3)


def test_what_a_static_model_does_not_read_is_counted(limited_run: Path) -> None:
    manifest = read_manifest(limited_run / "embeddings")
    assert manifest.extra["contract"]["max_length"] == LIMIT
    assert manifest.counts["truncated"] > 100
    assert manifest.counts["tokens_lost"] > manifest.counts["truncated"]


def test_a_static_model_trains_and_is_evaluated_with_the_same_limit(
    limited_run: Path, small_input: Path
) -> None:
    run_train(TrainConfig(run_dir=str(limited_run), device="cpu"))
    model = limited_run / "model"
    assert read_manifest(model).fields["model"]["max_length"] == LIMIT
    assert f"reads {LIMIT} tokens" in (model / "README.md").read_text()
    trained = SentenceTransformer(str(model), device="cpu")
    assert token_limit(trained) == LIMIT
    text = "the first five tokens of a text that goes on for much longer"
    expected = of_first_tokens(trained, [text], LIMIT)
    np.testing.assert_allclose(trained.encode([text]), expected, atol=1e-6)
    config = EvaluateConfig(
        data=(str(small_input / "pairs.parquet"),),
        models=(str(model),),
        run_dir=str(limited_run),
        device="cpu",
    )
    run_evaluate(config)
    [[_, contract]] = read_manifest(limited_run / "evaluations/pairs").extra["models"]
    assert contract["max_length"] == LIMIT


def test_another_limit_for_training_is_heeded(limited_run: Path) -> None:
    run_train(TrainConfig(run_dir=str(limited_run), max_length=7, device="cpu", overwrite=True))
    assert token_limit(SentenceTransformer(str(limited_run / "model"), device="cpu")) == 7


def test_texts_lose_the_side_that_the_tokenizer_cuts() -> None:
    model = load_model(STATIC, "cpu")
    model[0].tokenizer.enable_truncation(100, direction="left")
    limit_tokens(model, STATIC, 3)
    assert model[0].tokenizer.encode("a b c d e", add_special_tokens=False).tokens[-1].endswith("e")
    assert token_limit(model) == 3


@pytest.mark.parametrize("limit", [1, 2, 50])
def test_every_route_of_a_router_is_limited(tiny_transformer: Path, limit: int) -> None:
    transformer = SentenceTransformer(str(tiny_transformer), device="cpu")
    static = load_model(STATIC, "cpu")[0]
    routes = {"query": [static], "document": [transformer[0], Pooling(32)]}
    router = Router.for_query_document(routes["query"], routes["document"])
    model = SentenceTransformer(modules=[router], device="cpu")
    limit_tokens(model, "a router", limit + 2)
    words = " ".join("abcdefgh" * 20)
    assert len(model.preprocess([words], task="query")["input_ids"]) == limit + 2
    assert model.preprocess([words], task="document")["input_ids"].shape == (1, limit + 2)
    assert token_limit(model) == limit + 2
    assert isinstance(static, StaticEmbedding)


def test_a_limit_that_a_model_cannot_heed_is_refused(tmp_path: Path) -> None:
    SentenceTransformer(modules=[BoW(["fox", "dog", "lazy"])]).save_pretrained(
        str(tmp_path / "bow")
    )
    assert token_limit(load_model(str(tmp_path / "bow"), "cpu")) is None
    with pytest.raises(ModelError, match=r"--max-length 8 is no option .* by BoW, .* leave it out"):
        load_model(str(tmp_path / "bow"), "cpu", 8)


# --- dimensions ---


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models do not report their dimension, as where their last module knows none."""
    monkeypatch.setattr(SentenceTransformer, "get_embedding_dimension", lambda self: None)


@pytest.mark.parametrize("model", [STATIC, "tiny"])
def test_a_dimension_that_is_not_reported_is_found(
    model: str, tiny_transformer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_model(str(tiny_transformer) if model == "tiny" else model, "cpu")
    reported = loaded.get_embedding_dimension()
    assert embedding_dim(loaded) == reported
    for answer in (None, ValueError("no hidden_size in the config")):

        def report(_: SentenceTransformer, answer: object = answer) -> None:
            if isinstance(answer, Exception):
                raise answer

        monkeypatch.setattr(SentenceTransformer, "get_embedding_dimension", report)
        assert embedding_dim(loaded) == reported


@pytest.mark.usefixtures("silent")
def test_everything_works_with_a_model_that_does_not_report_its_dimension(
    small_input: Path, tiny_transformer: Path, tmp_path: Path
) -> None:
    run, pairs = str(tmp_path / "run"), str(small_input / "pairs.parquet")
    embed = {"pairs": pairs, "model": str(tiny_transformer), "device": "cpu", "run_dir": run}
    with pytest.raises(ConfigError, match="at most the 32 dimensions"):
        run_embed(EmbedConfig(**embed, truncate_dim=33))
    run_embed(EmbedConfig(**embed))
    assert read_manifest(tmp_path / "run/embeddings").extra["contract"]["dim"] == 32
    run_mine(MineConfig(k=2, relative_margin=None, device="cpu", run_dir=run))
    run_pack(PackConfig(batch_size=200, packings=1, run_dir=run))
    with pytest.raises(ConfigError, match="--matryoshka-dims must be at most the 32 dimensions"):
        run_train(TrainConfig(run_dir=run, device="cpu", matryoshka_dims=(16, 64)))
    run_train(TrainConfig(run_dir=run, device="cpu", matryoshka_dims=(16, 32)))
    evaluate = {"data": (pairs,), "models": (run + "/model",), "run_dir": run, "device": "cpu"}
    with pytest.raises(ConfigError, match="--dims must be at most the 32 dimensions"):
        run_evaluate(EvaluateConfig(**evaluate, dims=(16, 64)))
    run_evaluate(EvaluateConfig(**evaluate, dims=(16,)))
    results = json.loads((tmp_path / "run/evaluations/pairs/results.json").read_text())
    assert results["models"]

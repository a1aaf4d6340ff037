"""Stored embeddings of every kind of checkpoint are those of the library's own `encode`."""

from collections.abc import Callable
from pathlib import Path

import checkpoints as zoo
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from conftest import Cli
from sentence_transformers import SentenceTransformer

from stx_mine.models.load import open_model
from stx_mine.stages.embed import token_encoder
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.embed.stage import run_embed
from stx_mine.store.artifact import read_manifest
from stx_mine.store.texts import TextStore
from stx_mine.store.vectors import Vectors

KINDS: dict[str, Callable[[Path, Path], Path]] = {
    "mean": lambda tiny, _: tiny,
    "last token, padded on the left": lambda _, to: zoo.decoder(to, "left", pad="[PAD]"),
    "last token, padded on the right": lambda _, to: zoo.decoder(to, "right", pad="[PAD]"),
    "last token in bfloat16": lambda _, to: zoo.cast(
        zoo.decoder(to / "whole", pad="[PAD]"), to / "half", torch.bfloat16
    ),
    "float16": lambda tiny, to: zoo.cast(tiny, to, torch.float16),
    "static in float16": lambda _, to: zoo.static(to, torch.float16),
    "prompts left out of the mean": zoo.without_prompt_tokens,
    "dense and dot": zoo.dense_with_dot,
    "two towers": zoo.two_towers,
    "truncated": zoo.truncated,
    "adapter": zoo.adapter,
    "adapter over a decoder": lambda _, to: zoo.adapter(
        zoo.decoder(to / "base", pad="[PAD]"), to / "adapter"
    ),
    "plain": lambda tiny, to: zoo.bert_of(tiny, to),
    "positions behind a pad id": lambda _, to: zoo.roberta(to),
}


@pytest.fixture(scope="module")
def few_pairs(small_input: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two dozen pairs, some longer than a model reads."""
    path = tmp_path_factory.mktemp("few") / "pairs.parquet"
    pq.write_table(pq.read_table(small_input / "pairs.parquet").slice(0, 24), path)
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_embeddings_are_those_of_encode(few_pairs, tiny_transformer, tmp_path, kind):
    if "adapter" in kind:
        pytest.importorskip("peft")
    folder = KINDS[kind](tiny_transformer, tmp_path / "made")
    run = tmp_path / "run"
    run_embed(EmbedConfig(pairs=str(few_pairs), model=str(folder), device="cpu", run_dir=str(run)))
    model = SentenceTransformer(str(folder), device="cpu").float()
    if kind == "positions behind a pad id":
        model.max_seq_length = 62
    manifest, store = (
        read_manifest(run / "embeddings"),
        TextStore.open(read_manifest(run / "texts")),
    )
    assert manifest.extra["contract"]["similarity"] == model.similarity_fn_name
    for role, texts, encode in (
        ("queries", store.queries, model.encode_query),
        ("passages", store.passages, model.encode_document),
    ):
        words = texts.column("text").to_pylist()
        found = Vectors.open(manifest, role).take(np.arange(len(words)))
        assert found.dtype == np.float32
        # Read for a cosine they are of unit length.
        is_cosine = model.similarity_fn_name == "cosine"
        wanted = encode(words, normalize_embeddings=is_cosine)
        np.testing.assert_allclose(found, wanted, atol=2e-6)


def test_half_precision_asked_for_keeps_one_copy_of_a_file_in_half(tiny_transformer, tmp_path):
    """The network of a file in bfloat16 runs as it is; float32 would be twice the memory."""
    folder = zoo.cast(tiny_transformer, tmp_path / "half", torch.bfloat16)
    model = open_model(str(folder), "cpu", as_stored=True).model
    encoder = token_encoder.TokenEncoder(model, token_encoder.Tuning("bfloat16", 64, 1))
    assert encoder._first is model[0]


def test_a_length_beyond_the_positions_is_refused_before_any_task(
    cli_here: Cli, few_pairs, tiny_transformer, tmp_path
):
    run = tmp_path / "run"
    done = cli_here(
        "embed", few_pairs, "--model", tiny_transformer, "--max-length", "129", run_dir=run
    )
    assert done.code == 2
    assert "error: --max-length 129 is more than the 128 positions of" in done.stderr
    assert not (run / "embeddings").exists()


def test_guesses_are_printed(cli_here: Cli, few_pairs, tmp_path):
    """A decoder as users have it: no pooling, no pad token."""
    plain = zoo.plain_decoder(tmp_path / "plain")
    done = cli_here("embed", few_pairs, "--model", plain, run_dir=tmp_path / "run")
    assert done.code == 0, done
    assert "lasttoken is a guess; give --pooling mean, cls or lasttoken" in done.stderr
    assert "its end-of-text token </s> pads" in done.stderr
    again = cli_here("embed", few_pairs, "--model", plain, run_dir=tmp_path / "run")
    assert "done before, skipped" in again.stdout
    assert "lasttoken is a guess" in again.stderr

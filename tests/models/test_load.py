"""The kinds of checkpoint that people bring: read as they mean it, or refused with the way out."""

import json
import shutil
from pathlib import Path

import checkpoints as zoo
import numpy as np
import pytest
import torch
from conftest import Cli
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer

from stx_mine.errors import ConfigError, ModelError
from stx_mine.models.config import Reading
from stx_mine.models.encoder import model_contract, weights_digest
from stx_mine.models.load import OpenedModel, load_model, open_model

TEXTS = ["a small text", "another one, which is longer than the first (by some words)"]
TRUSTED = Reading(trust_remote_code=True)


def opened(folder: Path | str, reading: Reading | None = None, **others: object) -> OpenedModel:
    return open_model(str(folder), "cpu", reading=reading or Reading(), **others)


def refusal(folder: Path | str, reading: Reading | None = None) -> str:
    with pytest.raises((ModelError, ConfigError)) as found:
        opened(folder, reading)
    words = str(found.value)
    assert "\n" not in words
    assert len(words) < 400
    return words


# --- number formats ---


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("kind", ["transformer", "static"])
def test_weights_are_float32_whatever_the_file_holds(tiny_transformer, tmp_path, dtype, kind):
    """And the values are those of the file."""
    stored = getattr(torch, dtype)
    folder = tmp_path / "half"
    if kind == "static":
        zoo.static(folder, stored)
    else:
        zoo.cast(tiny_transformer, folder, stored)
    model = opened(folder)
    assert model.stored == dtype
    assert {one.dtype for one in model.model.parameters()} == {torch.float32}
    with_library = SentenceTransformer(str(folder), device="cpu").state_dict()
    for name, weight in model.model.state_dict().items():
        assert torch.equal(weight, with_library[name].float()), name


def test_a_digest_is_that_of_the_values_not_of_how_they_were_read(tiny_transformer, tmp_path):
    folder = zoo.cast(tiny_transformer, tmp_path / "half", torch.float16)
    exact, stored = opened(folder), opened(folder, as_stored=True)
    assert {one.dtype for one in stored.model.parameters()} == {torch.float16}
    assert weights_digest(exact.model) == weights_digest(stored.model)
    assert weights_digest(exact.model) != weights_digest(opened(tiny_transformer).model)


# --- plain folders ---


@pytest.mark.parametrize(("mode", "kind"), [("mean", "bert"), ("lasttoken", "decoder")])
def test_a_guess_of_the_pooling_is_said(tiny_transformer, tmp_path, mode, kind):
    folder = tmp_path / "plain"
    plain = (
        zoo.plain_decoder(folder) if kind == "decoder" else zoo.bert_of(tiny_transformer, folder)
    )
    model = opened(plain)
    assert f"does not say how it pools: {mode} is a guess; give --pooling" in model.notes[0]
    asked = opened(plain, Reading(pooling=mode))
    assert not any("is a guess" in note for note in asked.notes)
    assert np.array_equal(model.model.encode(TEXTS), asked.model.encode(TEXTS))


@pytest.mark.parametrize("mode", ["mean", "cls", "lasttoken"])
def test_a_plain_folder_is_pooled_as_asked(tiny_transformer, tmp_path, mode):
    plain = zoo.bert_of(tiny_transformer, tmp_path / "plain")
    model = opened(plain, Reading(pooling=mode)).model
    inputs = model.tokenizer(TEXTS[1], return_tensors="pt")
    with torch.no_grad():
        tokens = zoo.bert(tiny_transformer)(**inputs).last_hidden_state[0]
    wanted = {"mean": tokens.mean(0), "cls": tokens[0], "lasttoken": tokens[-1]}[mode]
    np.testing.assert_allclose(model.encode(TEXTS[1]), wanted.numpy(), atol=1e-5)


def test_poolings_and_settings_tell_contracts_apart(tiny_transformer, tmp_path):
    """They change vectors, and no weight."""
    plain = zoo.bert_of(tiny_transformer, tmp_path / "plain")
    modes = ("mean", "cls", "lasttoken")
    found = [model_contract(opened(plain, Reading(pooling=mode)).model, "x") for mode in modes]
    assert len({one["weights"] for one in found}) == 1
    assert len({one["modules"] for one in found}) == 3
    zoo.edit(plain / "config.json", layer_norm_eps=1e-3)
    changed = model_contract(opened(plain, Reading(pooling="mean")).model, "x")
    assert changed["weights"] == found[0]["weights"]
    assert changed["modules"] not in {one["modules"] for one in found}
    again = opened(zoo.saved(opened(tiny_transformer).model, tmp_path / "again")).model
    first = model_contract(opened(tiny_transformer).model, "x")
    assert model_contract(again, "x") == first


def test_a_pooler_that_the_files_lack_is_left_out(tiny_transformer, tmp_path):
    """The library fills it with random numbers, so that no two loads would have one digest."""
    plain = zoo.bert_of(tiny_transformer, tmp_path / "plain")
    weights = load_file(plain / "model.safetensors")
    kept = {name: one for name, one in weights.items() if not name.startswith("pooler.")}
    assert len(kept) == len(weights) - 2
    save_file(kept, plain / "model.safetensors", {"format": "pt"})
    models = [opened(plain).model for _ in range(2)]
    assert weights_digest(models[0]) == weights_digest(models[1])
    np.testing.assert_array_equal(
        models[0].encode(TEXTS), opened(tiny_transformer).model.encode(TEXTS)
    )


def test_a_network_whose_weights_are_not_in_the_file_is_refused(tiny_transformer, tmp_path):
    folder = tmp_path / "renamed"
    shutil.copytree(tiny_transformer, folder)
    weights = load_file(folder / "model.safetensors")
    renamed = {f"wrapped.inside.{name}": one for name, one in weights.items()}
    save_file(renamed, folder / "model.safetensors", {"format": "pt"})
    assert "weights of the network are not in the files" in refusal(folder)


# --- what is no embedding model ---


def test_other_kinds_of_models_are_refused(tiny_transformer, tmp_path):
    made = {
        "a cross-encoder (reranker)": [
            zoo.reranker(tiny_transformer, tmp_path / "reranker"),
            zoo.old_reranker(tiny_transformer, tmp_path / "old-reranker"),
        ],
        "a sparse encoder (SPLADE)": [zoo.splade(tiny_transformer, tmp_path / "splade")],
        "a multi-vector model (ColBERT)": [zoo.pylate(tiny_transformer, tmp_path / "pylate")],
    }
    for kind, folders in made.items():
        for folder in folders:
            assert f"{folder} is {kind}" in refusal(folder)
            assert "name an embedding model" in refusal(folder)
            assert f"is {kind}" in refusal(folder, TRUSTED)
    old = made["a cross-encoder (reranker)"][1]
    assert opened(old, Reading(pooling="cls")).model.encode(TEXTS).shape == (2, 32)


def test_other_kinds_are_known_by_their_modules_alone(tiny_transformer, tmp_path):
    """Folders of earlier versions have no model_type."""
    for number, (kind, words) in enumerate(
        {
            "sentence_transformers.sparse_encoder.models.SpladePooling": "sparse encoder",
            "sentence_transformers.cross_encoder.modules.LogitScore": "cross-encoder",
            "sentence_transformers.multi_vector_encoder.modules.MultiVectorMask": "multi-vector",
            "pylate.models.Dense.Dense": "multi-vector",
        }.items()
    ):
        folder = tmp_path / str(number)
        shutil.copytree(tiny_transformer, folder)
        modules = json.loads((folder / "modules.json").read_text())
        modules[1]["type"] = kind
        (folder / "modules.json").write_text(json.dumps(modules))
        (folder / "config_sentence_transformers.json").unlink()
        assert words in refusal(folder)


# --- damaged and incomplete folders ---


def test_a_pickle_is_read_as_numbers_or_not_at_all(tiny_transformer, tmp_path):
    weights = opened(zoo.pickled(tiny_transformer, tmp_path / "pickled")).model.state_dict()
    for name, one in opened(tiny_transformer).model.state_dict().items():
        assert torch.equal(one, weights[name])
    ran = tmp_path / "ran"
    harmful = zoo.harmful(tiny_transformer, tmp_path / "harmful", ran)
    assert "a pickle that would run code, which was not run" in refusal(harmful)
    assert not ran.exists()


def test_folders_that_lack_something_say_what(tiny_transformer, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert f"expected a model in {empty}" in refusal(empty)
    assert "it is empty" in refusal(empty)
    no_tokenizer = zoo.without(tiny_transformer, tmp_path / "no-tokenizer", "tokenizer*", "vocab*")
    assert "expected the files of a tokenizer" in refusal(no_tokenizer)
    no_weights = zoo.without(tiny_transformer, tmp_path / "no-weights", "*.safetensors")
    assert f"cannot load the model {str(no_weights)!r}" in refusal(no_weights)
    damaged = zoo.without(tiny_transformer, tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes(b"no weights")
    assert f"cannot load the model {str(damaged)!r}" in refusal(damaged)
    (damaged / "modules.json").write_text("{")
    assert "expected JSON in" in refusal(damaged)


@pytest.mark.parametrize("name", ["no/such", "nosuch", "no/such/path/at/all"])
def test_a_model_that_is_nowhere_takes_one_line(name):
    assert f"cannot find the model {name!r}: no such folder" in refusal(name)
    assert "give a hub id, a folder" in refusal(name)


# --- tokens ---


def test_the_end_of_text_token_pads_where_no_other_does(tmp_path):
    model = opened(zoo.decoder(tmp_path / "one"))
    assert any("its end-of-text token </s> pads" in note for note in model.notes)
    padded = opened(zoo.decoder(tmp_path / "two", pad="[PAD]"))
    assert padded.notes == ()
    np.testing.assert_allclose(model.model.encode(TEXTS), padded.model.encode(TEXTS), atol=1e-6)
    assert "neither a pad token nor an end-of-text token" in refusal(
        zoo.decoder(tmp_path / "three", end=None)
    )


def test_a_limit_beyond_the_positions_is_refused_and_one_in_the_files_lowered(
    tiny_transformer, tmp_path
):
    with pytest.raises(ConfigError, match=r"--max-length 129 is more than the 128 positions"):
        opened(tiny_transformer, max_length=129)
    assert opened(tiny_transformer, max_length=128).model.max_seq_length == 128
    roberta = zoo.roberta(tmp_path / "roberta")
    model = opened(roberta)
    assert any("reads 62 tokens of a text" in note for note in model.notes)
    assert model.model.max_seq_length == 62
    # One token more is what the table has no row for.
    model.model.encode("a " * 500)
    model.model.max_seq_length = 63
    with pytest.raises((IndexError, RuntimeError)):
        model.model.encode("a " * 500)
    with pytest.raises(ConfigError, match="at most 62"):
        opened(roberta, max_length=63)
    plain = zoo.plain_decoder(tmp_path / "decoder")
    notes = opened(plain, max_length=200).notes
    assert any("more than the 128 tokens" in note for note in notes)


# --- code that comes with a model ---


@pytest.mark.parametrize("kind", ["network", "module"])
def test_code_runs_only_when_it_is_trusted(tiny_transformer, tmp_path, kind):
    ran = tmp_path / "ran"
    folder = (
        zoo.custom_code(tmp_path / "own", ran)
        if kind == "network"
        else zoo.custom_module(tiny_transformer, tmp_path / "own", ran)
    )
    words = refusal(folder)
    assert "brings code of its own" in words
    assert "give --trust-remote-code" in words
    assert not ran.exists()
    model = opened(folder, TRUSTED)
    assert ran.exists()
    assert model.recorded()["trust_remote_code"] is True
    theirs = SentenceTransformer(str(folder), device="cpu", trust_remote_code=True)
    np.testing.assert_array_equal(model.model.encode(TEXTS), theirs.encode(TEXTS))
    before = model_contract(model.model, "x")
    code = next(folder.glob("*.py"))
    code.write_text(code.read_text() + "\n# another version\n")
    after = model_contract(opened(folder, TRUSTED).model, "x")
    assert after["weights"] == before["weights"]
    assert after["modules"] != before["modules"]


def test_a_folder_cannot_say_that_it_is_trusted(tiny_transformer, tmp_path):
    ran = tmp_path / "ran"
    folder = zoo.custom_code(tmp_path / "own", ran)
    zoo.edit(folder / "config.json", trust_remote_code=True)
    (folder / "sentence_bert_config.json").write_text(
        json.dumps({"model_args": {"trust_remote_code": True}})
    )
    refusal(folder)
    assert not ran.exists()


def test_code_is_refused_where_the_library_has_a_class_of_that_name(tiny_transformer, tmp_path):
    """It would load its own class without a word: other vectors, or random weights."""
    folder = tmp_path / "bert"
    shutil.copytree(tiny_transformer, folder)
    zoo.edit(folder / "config.json", auto_map={"AutoModel": "modeling_own.OwnBert"})
    words = refusal(folder)
    assert "brings code of its own (modeling_own.OwnBert)" in words
    assert "take auto_map out of the config.json of a copy" in words


def test_a_revision_is_of_the_hub(tiny_transformer):
    for name in (str(tiny_transformer), "package:wordllama"):
        assert "--revision v1 is a version of a model on the hub" in refusal(
            name, Reading(revision="v1")
        )
    assert "cannot find the model" in refusal("no/such", Reading(revision="v1"))
    assert "says how it pools" in refusal(tiny_transformer, Reading(pooling="mean"))


# --- adapters ---


def test_an_adapter_that_peft_saved_pools_and_tokenises_as_its_base(tmp_path):
    pytest.importorskip("peft")
    base = zoo.decoder(tmp_path / "base", pad="[PAD]")
    plain = zoo.plain_adapter(base, tmp_path / "adapter")
    model = opened(plain)
    assert model.notes == (f"{plain} is an adapter over {base}",)
    whole = SentenceTransformer(str(tmp_path / "adapter-full"), device="cpu")
    np.testing.assert_allclose(model.model.encode(TEXTS), whole.encode(TEXTS), atol=1e-6)
    other = SentenceTransformer(str(base), device="cpu").encode(TEXTS)
    assert np.abs(model.model.encode(TEXTS) - other).max() > 0.01


def test_an_adapter_whose_base_is_no_embedding_model_or_lost_is_refused(tiny_transformer, tmp_path):
    pytest.importorskip("peft")
    full = zoo.adapter(tiny_transformer, tmp_path / "adapter")
    zoo.edit(full / "adapter_config.json", base_model_name_or_path="no/such")
    assert "is an adapter over no/such: cannot find the model 'no/such'" in refusal(full)
    ran = tmp_path / "ran"
    code = zoo.custom_code(tmp_path / "own", ran)
    zoo.edit(full / "adapter_config.json", base_model_name_or_path=str(code))
    assert "brings code of its own" in refusal(full)
    assert not ran.exists()


@pytest.mark.parametrize("plain", [True, False])
def test_an_adapter_that_fits_no_layer_is_refused(tiny_transformer, tmp_path, plain):
    """The library leaves out what it cannot place."""
    pytest.importorskip("peft")
    folder = (zoo.plain_adapter if plain else zoo.adapter)(tiny_transformer, tmp_path / "adapter")
    path = folder / "adapter_model.safetensors"
    weights = {name.replace("encoder.layer", "h"): one for name, one in load_file(path).items()}
    save_file(weights, path, {"format": "pt"})
    assert "do not fit the layers of its base" in refusal(folder)


# --- the command line ---


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--encoder", "x:y", "--trust-remote-code"], "--trust-remote-code says how a model is"),
        (["--encoder", "x:y", "--pooling", "cls"], "--pooling cls says how a model is read"),
        (["--model", "no/such"], "cannot find the model 'no/such'"),
        (["--pooling", "middle"], "middle"),
    ],
)
def test_embed_says_what_does_not_fit(cli_here: Cli, small_input, tmp_path, args, words):
    done = cli_here("embed", small_input / "pairs.parquet", *args, run_dir=tmp_path / "run")
    assert done.code == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wordllama_without_the_weights_says_how_to_have_others(tmp_path, monkeypatch):
    (tmp_path / "wordllama").mkdir()
    (tmp_path / "wordllama/__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModelError, match=r"holds no weights/.*run `pip install stx-mine`"):
        load_model("package:wordllama", "cpu")

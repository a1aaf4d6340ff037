"""Merged models on disk: what they compute, what is refused, what is left where something fails."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import checkpoints
import numpy as np
import pytest
import torch
from conftest import Cli, cli_command, cli_environment
from filelock import FileLock
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling

from stx_mine import Run
from stx_mine.errors import ArtifactError, ConfigError, LockedError, ModelError
from stx_mine.models.load import load_model
from stx_mine.stages.evaluate.config import EvaluateConfig
from stx_mine.stages.evaluate.results import read_results
from stx_mine.stages.evaluate.stage import run_evaluate
from stx_mine.stages.merge.config import MergeConfig
from stx_mine.stages.merge.stage import run_merge
from stx_mine.stages.verify.config import VerifyConfig
from stx_mine.stages.verify.stage import run_verify
from stx_mine.store.artifact import MANIFEST, PLAN
from stx_mine.store.files import read_json
from stx_mine.store.run_dir import RunDir

TEXTS = ["how do i open a file", "a dog runs", "42 apples; 7 pears", "x"]
WORDLLAMA = "package:wordllama"


def tuned(model: str | Path, folder: Path, seed: int = 1, scale: float = 0.05, **others) -> Path:
    """A copy of a model whose weights differ by some noise, as training leaves one."""
    own = load_model(str(model), device="cpu")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in own.parameters():
            weight += scale * torch.randn(weight.shape, generator=generator)
    for name, value in others.items():
        setattr(own, name, value)
    return checkpoints.saved(own, folder)


def merged(*models: str | Path, to: Path, **options):
    return run_merge(MergeConfig(models=tuple(map(str, models)), to=str(to), **options))


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    """All weights of a folder, by file and name."""
    return {
        f"{file.relative_to(folder)}:{name}": weight
        for file in sorted(folder.rglob("*.safetensors"))
        for name, weight in load_file(file).items()
    }


def by_hand(
    models: list[str | Path], combine: Callable[[list[np.ndarray]], np.ndarray]
) -> SentenceTransformer:
    """A loaded model with combined weights."""
    loaded = [load_model(str(one), device="cpu") for one in models]
    states = [one.state_dict() for one in loaded]
    with torch.no_grad():
        for name, weight in loaded[0].state_dict().items():
            if weight.is_floating_point():
                numbers = [state[name].double().numpy() for state in states]
                weight.copy_(torch.from_numpy(combine(numbers)))
    return loaded[0]


def vectors(model: SentenceTransformer | Path | str) -> np.ndarray:
    own = model if isinstance(model, SentenceTransformer) else load_model(str(model), "cpu")
    return own.encode(TEXTS)


@pytest.fixture(scope="module")
def bert(tiny_transformer, tmp_path_factory) -> tuple[Path, Path]:
    """A transformer and one that was tuned from it."""
    return tiny_transformer, tuned(tiny_transformer, tmp_path_factory.mktemp("tuned") / "model")


def arc(share: float) -> Callable[[list[np.ndarray]], np.ndarray]:
    def combine(numbers: list[np.ndarray]) -> np.ndarray:
        a, b = numbers[0].ravel(), numbers[1].ravel()
        lengths = np.linalg.norm(a) * np.linalg.norm(b)
        angle = np.arccos(np.clip(a @ b / lengths, -1, 1)) if lengths else 0
        if np.sin(angle) < 1e-4:
            return (1 - share) * numbers[0] + share * numbers[1]
        mixed = np.sin((1 - share) * angle) * a + np.sin(share * angle) * b
        return (mixed / np.sin(angle)).reshape(numbers[0].shape)

    return combine


# --- what they compute ---


def test_static_models_are_averaged(tmp_path):
    other = tuned(WORDLLAMA, tmp_path / "tuned", scale=0.3)
    report = merged(other, WORDLLAMA, to=tmp_path / "out", weights=(0.7, 0.3))
    expected = by_hand([other, WORDLLAMA], lambda found: 0.7 * found[0] + 0.3 * found[1])
    np.testing.assert_array_equal(vectors(tmp_path / "out"), vectors(expected))
    plain = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    np.testing.assert_array_equal(plain.encode(TEXTS), vectors(expected))
    assert report.counts == {"models": 2, "tensors": 1, "parameters": 32_000 * 256}
    assert weights_of(tmp_path / "out")["model.safetensors:embedding.weight"].dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "combine"),
    [
        ({}, lambda found: (found[0] + found[1]) / 2),
        ({"weights": (0.2, 0.8)}, lambda found: 0.2 * found[0] + 0.8 * found[1]),
        ({"weights": (1, 3)}, lambda found: 0.25 * found[0] + 0.75 * found[1]),
        ({"method": "slerp", "weights": (0.4, 0.6)}, arc(0.6)),
    ],
)
def test_transformers_are_merged(bert, tmp_path, options, combine):
    merged(*bert, to=tmp_path / "out", **options)
    np.testing.assert_allclose(
        vectors(tmp_path / "out"), vectors(by_hand(list(bert), combine)), atol=1e-6
    )


def test_task_vectors_are_added_to_a_base(bert, tmp_path):
    other = tuned(bert[0], tmp_path / "other", seed=7)
    options = {"method": "task", "base": str(bert[0]), "weights": (0.6, -0.2)}
    merged(bert[1], other, to=tmp_path / "out", **options)
    expected = by_hand(
        [bert[0], bert[1], other],
        lambda found: found[0] + 0.6 * (found[1] - found[0]) - 0.2 * (found[2] - found[0]),
    )
    np.testing.assert_allclose(vectors(tmp_path / "out"), vectors(expected), atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"weights": (0.3, 0.7)},
        {"method": "slerp", "weights": (0.9, 0.1)},
        {"method": "task", "weights": (3, -0.5)},
    ],
)
def test_a_model_merged_with_itself_has_the_same_files(bert, tmp_path, options):
    if options.get("method") == "task":
        options = {**options, "base": str(bert[1])}
    merged(bert[1], bert[1], to=tmp_path / "out", **options)
    assert (tmp_path / "out/model.safetensors").read_bytes() == (
        bert[1] / "model.safetensors"
    ).read_bytes()


def test_weights_of_one_and_zero_give_the_first(bert, tmp_path):
    merged(*bert, to=tmp_path / "out", weights=(1, 0))
    assert (tmp_path / "out/model.safetensors").read_bytes() == (
        bert[0] / "model.safetensors"
    ).read_bytes()


def test_the_order_matters_as_the_weights_do(bert, tmp_path):
    merged(*bert, to=tmp_path / "a", weights=(0.3, 0.7))
    merged(*bert[::-1], to=tmp_path / "b", weights=(0.7, 0.3))
    for name, weight in weights_of(tmp_path / "a").items():
        assert torch.equal(weight, weights_of(tmp_path / "b")[name])


def test_the_first_gives_the_number_format(bert, tmp_path):
    half = checkpoints.cast(bert[1], tmp_path / "half", torch.bfloat16)
    merged(half, bert[0], to=tmp_path / "out")
    first, second = weights_of(half), weights_of(bert[0])
    for name, weight in weights_of(tmp_path / "out").items():
        assert weight.dtype == torch.bfloat16
        expected = (first[name].float() + second[name]) / 2
        assert torch.equal(weight, expected.to(torch.bfloat16))


def test_shards_are_merged_with_one_file(bert, tmp_path):
    shards = tmp_path / "shards"
    shutil.copytree(bert[1], shards)
    whole = load_file(shards / "model.safetensors")
    names = sorted(whole)
    (shards / "model.safetensors").unlink()
    index = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file({name: whole[name] for name in part}, shards / file, {"format": "pt"})
        index |= dict.fromkeys(part, file)
    content = {"metadata": {"total_size": 1}, "weight_map": index}
    (shards / "model.safetensors.index.json").write_text(json.dumps(content))
    merged(shards, bert[0], to=tmp_path / "out")
    merged(bert[1], bert[0], to=tmp_path / "whole")
    assert sorted(path.name for path in (tmp_path / "out").glob("*.safetensors")) == sorted(
        set(index.values())
    )
    np.testing.assert_array_equal(vectors(tmp_path / "out"), vectors(tmp_path / "whole"))
    merged(bert[0], shards, to=tmp_path / "turned")
    np.testing.assert_array_equal(vectors(tmp_path / "turned"), vectors(tmp_path / "whole"))


def test_all_modules_are_merged(tiny_transformer, tmp_path):
    first = checkpoints.dense_with_dot(tiny_transformer, tmp_path / "first")
    second = tuned(first, tmp_path / "second")
    merged(first, second, to=tmp_path / "out")
    expected = by_hand([first, second], lambda found: (found[0] + found[1]) / 2)
    np.testing.assert_allclose(vectors(tmp_path / "out"), vectors(expected), atol=1e-6)
    assert any("Dense" in name for name in weights_of(tmp_path / "out"))


def test_two_towers_are_merged(tiny_transformer, tmp_path):
    first = checkpoints.two_towers(tiny_transformer, tmp_path / "first")
    second = tuned(first, tmp_path / "second")
    merged(first, second, to=tmp_path / "out")
    expected = by_hand([first, second], lambda found: (found[0] + found[1]) / 2)
    own = load_model(str(tmp_path / "out"), "cpu")
    for encode in ("encode_query", "encode_document"):
        np.testing.assert_allclose(
            getattr(own, encode)(TEXTS), getattr(expected, encode)(TEXTS), atol=1e-6
        )


def test_a_plain_folder_and_a_pickle_go_through_the_library(bert, tmp_path):
    pickled = checkpoints.pickled(bert[1], tmp_path / "pickled")
    report = merged(pickled, bert[0], to=tmp_path / "out")
    merged(bert[1], bert[0], to=tmp_path / "expected")
    np.testing.assert_array_equal(vectors(tmp_path / "out"), vectors(tmp_path / "expected"))
    assert any("read and saved again by the library" in line for line in report.lines)
    assert not list((tmp_path / "out").glob("*.bin"))
    plain = bert[0].parent / "bert"
    merged(bert[1], plain, to=tmp_path / "plain", pooling="mean")
    np.testing.assert_allclose(
        vectors(tmp_path / "plain"), vectors(tmp_path / "expected"), atol=1e-6
    )


def test_a_model_of_the_cache_is_read_where_it_lies(bert, tmp_path):
    home = tmp_path / "home"
    snapshots = home / "hub/models--me--tuned/snapshots"
    commit = "0123456789abcdef0123456789abcdef01234567"
    shutil.copytree(bert[1], snapshots / commit)
    (home / "hub/models--me--tuned/refs").mkdir()
    (home / "hub/models--me--tuned/refs/main").write_text(commit)
    words = cli_command("merge", "me/tuned", bert[0], "--to", tmp_path / "out")
    # The fixtures name a cache of their own.
    environment = {**cli_environment(), "HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    environment.pop("HF_HUB_CACHE", None)
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "saved again" not in done.stdout
    merged(*bert[::-1], to=tmp_path / "expected")
    np.testing.assert_array_equal(vectors(tmp_path / "out"), vectors(tmp_path / "expected"))
    card = (tmp_path / "out/README.md").read_text()
    assert 'base_model: "me/tuned"' in card


def test_code_of_a_model_is_refused_or_taken_along(tiny_transformer, tmp_path):
    ran = tmp_path / "ran"
    first = checkpoints.custom_module(tiny_transformer, tmp_path / "first", ran)
    second = tmp_path / "second"
    shutil.copytree(first, second)
    save_file({"by": torch.full((32,), 1.5)}, second / "2_Shift/model.safetensors")
    with pytest.raises(ModelError, match="brings code of its own"):
        merged(first, second, to=tmp_path / "out")
    merged(first, second, to=tmp_path / "out", trust_remote_code=True)
    # Nothing has to be loaded for it.
    assert not ran.exists()
    assert load_file(tmp_path / "out/2_Shift/model.safetensors")["by"].unique().tolist() == [1.0]
    own = SentenceTransformer(str(tmp_path / "out"), device="cpu", trust_remote_code=True)
    plain = SentenceTransformer(str(tiny_transformer), device="cpu")
    np.testing.assert_allclose(own.encode(TEXTS), plain.encode(TEXTS) + 1, atol=1e-6)


def test_names_of_other_versions_meet_through_the_library(bert, tmp_path):
    old = tmp_path / "old"
    shutil.copytree(bert[0], old)
    named = load_file(old / "model.safetensors")
    # As transformers of years ago saved a BERT: a buffer of positions beside the weights.
    named["embeddings.position_ids"] = torch.arange(128)[None]
    save_file(named, old / "model.safetensors", {"format": "pt"})
    report = merged(bert[1], old, to=tmp_path / "out")
    merged(*bert[::-1], to=tmp_path / "expected")
    np.testing.assert_array_equal(vectors(tmp_path / "out"), vectors(tmp_path / "expected"))
    assert any("of other versions" in line for line in report.lines)


def test_whole_numbers_are_kept(bert, tmp_path):
    both = []
    for number, model in enumerate(bert):
        shutil.copytree(model, tmp_path / str(number))
        named = load_file(model / "model.safetensors")
        named["embeddings.position_ids"] = torch.arange(128)[None]
        save_file(named, tmp_path / str(number) / "model.safetensors", {"format": "pt"})
        both.append(tmp_path / str(number))
    merged(*both, to=tmp_path / "out")
    found = load_file(tmp_path / "out/model.safetensors")["embeddings.position_ids"]
    assert torch.equal(found, torch.arange(128)[None])
    named["embeddings.position_ids"] += 1
    save_file(named, both[1] / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"the same whole numbers in embeddings\.position_ids"):
        merged(*both, to=tmp_path / "other")


# --- what they bring ---


def test_the_card_says_what_was_merged(bert, tmp_path):
    evil = tmp_path / "a`b|<img src=x>"
    shutil.copytree(bert[1], evil)
    merged(evil, bert[0], to=tmp_path / "out", weights=(0.7, 0.3))
    card = (tmp_path / "out/README.md").read_text()
    assert "<img" not in card
    assert r"a\`b\|&lt;img src=x&gt;" in card
    assert str(tmp_path) not in card
    rows = read_json(tmp_path / "out" / MANIFEST)["extra"]["models"]
    assert [row["weight"] for row in rows] == [0.7, pytest.approx(0.3)]
    for row in rows:
        assert f"`{row['weights']}`" in card
    assert rows[0]["cosine"] == pytest.approx(1)
    assert rows[0]["relative"] == 0
    a, b = (torch.cat([w.ravel() for w in weights_of(one).values()]) for one in bert[::-1])
    assert rows[1]["relative"] == pytest.approx(float((a - b).norm() / a.norm()), rel=1e-5)


def test_prompts_of_the_first_are_kept_and_that_is_said(bert, tmp_path):
    asks = tuned(bert[0], tmp_path / "asks", prompts={"query": "ask: ", "document": ""})
    report = merged(asks, bert[0], to=tmp_path / "out")
    assert SentenceTransformer(str(tmp_path / "out"), device="cpu").prompts["query"] == "ask: "
    (note,) = [line for line in report.warnings if "prompt" in line]
    assert "'ask: ' in" in note
    assert "None in" in note
    assert "that of the first" in note


def test_weights_that_do_not_sum_to_one_are_said(bert, tmp_path):
    report = merged(*bert, to=tmp_path / "out", weights=(1, 4))
    assert any("divided by their sum: 0.2, 0.8" in line for line in report.warnings)
    assert merged(*bert, to=tmp_path / "two", weights=(0.3, 0.7)).warnings == ()


def test_what_is_not_the_model_stays_behind(trained_run, tmp_path):
    first = tmp_path / "model"
    shutil.copytree(trained_run / "model", first)
    (first / "onnx").mkdir()
    (first / "onnx/model.onnx").write_text("stale weights")
    merged(first, WORDLLAMA, to=tmp_path / "out")
    found = {
        path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*")
    }
    assert found == {
        *("README.md", "config_sentence_transformers.json", MANIFEST, PLAN),
        *("model.safetensors", "modules.json", "tokenizer.json"),
    }


def test_without_names_those_of_the_run_are_merged(trained_run, tmp_path):
    report = merged(to=tmp_path / "out", run_dir=str(trained_run), weights=(0.6, 0.4))
    rows = read_json(tmp_path / "out" / MANIFEST)["extra"]["models"]
    assert [row["model"] for row in rows] == [str(trained_run / "model"), WORDLLAMA]
    assert report.counts["models"] == 2


def test_a_run_merges_from_python(trained_copy, tmp_path):
    report = Run(trained_copy, progress=False).merge(to=str(tmp_path / "out"), method="slerp")
    assert report.folder == str(tmp_path / "out")
    assert report.counts["models"] == 2


def test_evaluate_takes_a_merged_model_and_a_damaged_one_is_refused(
    trained_copy, small_input, tmp_path
):
    out = trained_copy / "merged"
    merged(to=out, run_dir=str(trained_copy))
    data = str(small_input / "pairs.parquet")
    options = {"data": (data,), "models": (WORDLLAMA, str(out)), "device": "cpu"}
    run_evaluate(EvaluateConfig(**options, run_dir=str(trained_copy)))
    assert set(read_results(RunDir(trained_copy), "pairs")) == {WORDLLAMA, str(out)}
    weights = out / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"is damaged.*rebuild it with `stx-mine merge"):
        load_model(str(out), "cpu")


def test_the_same_again_is_skipped_and_other_settings_are_refused(bert, tmp_path):
    merged(*bert, to=tmp_path / "out")
    assert merged(*bert, to=tmp_path / "out").skipped
    before = (tmp_path / "out" / MANIFEST).read_bytes()
    with pytest.raises(ArtifactError, match=r"other settings.*--overwrite.*another --to"):
        merged(*bert, to=tmp_path / "out", weights=(0.1, 0.9))
    assert (tmp_path / "out" / MANIFEST).read_bytes() == before
    assert not merged(*bert, to=tmp_path / "out", weights=(0.1, 0.9), overwrite=True).skipped
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


# --- what is refused ---


def refused(tmp_path: Path, match: str, *models: str | Path, kind=ModelError, **options) -> None:
    """Nothing is written where a merge is refused."""
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(kind, match=match):
        merged(*models, to=tmp_path / "out", **options)
    assert sorted(tmp_path.rglob("*")) == before


def test_other_tensors_are_refused(bert, tiny_transformer, tmp_path):
    wide = tmp_path / "static32"
    checkpoints.static(wide)
    refused(tmp_path, r"one list of modules, found Transformer, Pooling in", bert[0], wide)
    narrow = tmp_path / "narrow"
    own = SentenceTransformer(str(wide), device="cpu")
    own[0].embedding = torch.nn.EmbeddingBag(*(own[0].embedding.weight.shape[0], 12))
    own[0].embedding_dim = 12
    checkpoints.saved(own, narrow)
    refused(
        tmp_path,
        r"tensors of the same shapes, found embedding\.weight of \d+ x 24 in .* and of \d+ x 12 in "
        r".* \(1 of 1 differ\); name models that were tuned from one",
        wide,
        narrow,
    )


def test_other_names_of_tensors_are_refused(bert, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(bert[1], other)
    weights = load_file(other / "model.safetensors")
    poolers = [name for name in weights if "pooler" in name]
    save_file(
        {name: one for name, one in weights.items() if name not in poolers},
        other / "model.safetensors",
        {"format": "pt"},
    )
    refused(
        tmp_path,
        rf"{min(poolers)} in {bert[0]} and not in {other} \(2 of {len(weights)} are in one only\)",
        *(bert[0], other),
    )


def test_other_vocabularies_are_refused(bert, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(bert[1], other)
    content = json.loads((other / "tokenizer.json").read_text())
    vocab = content["model"]["vocab"]
    vocab["a"], vocab["b"] = vocab["b"], vocab["a"]
    (other / "tokenizer.json").write_text(json.dumps(content))
    refused(tmp_path, r"one vocabulary, found .* \(2 differ, such as 'a'\)", bert[0], other)


def test_a_tokenizer_in_another_form_goes_through_the_library(bert, tmp_path):
    """Of years ago: words in vocab.txt, and no tokenizer.json."""
    old = tmp_path / "old"
    shutil.copytree(bert[0], old)
    vocab = json.loads((old / "tokenizer.json").read_text())["model"]["vocab"]
    (old / "tokenizer.json").unlink()
    (old / "vocab.txt").write_text("\n".join(sorted(vocab, key=lambda word: vocab[word])))
    content = json.loads((old / "tokenizer_config.json").read_text())
    # The tiny vocabulary has no word to mask with, which this class would add.
    content |= {"tokenizer_class": "BertTokenizer", "mask_token": "[UNK]"}
    (old / "tokenizer_config.json").write_text(json.dumps(content))
    report = merged(bert[1], old, to=tmp_path / "out")
    assert any("saved again" in line for line in report.lines)
    merged(*bert, to=tmp_path / "expected")
    np.testing.assert_allclose(vectors(tmp_path / "out"), vectors(tmp_path / "expected"), atol=1e-6)


def test_other_poolings_are_refused(bert, tmp_path):
    own = SentenceTransformer(str(bert[1]), device="cpu")
    own[1] = Pooling(32, "cls")
    other = checkpoints.saved(own, tmp_path / "cls")
    refused(tmp_path, r"read texts in one way, found the setting pooling_mode", bert[0], other)


def test_another_similarity_is_refused(bert, tmp_path):
    other = tuned(bert[0], tmp_path / "dot", similarity_fn_name="dot")
    refused(tmp_path, r"the setting similarity '?cosine'? in .* and '?dot'? in", bert[0], other)


def test_an_adapter_is_refused(bert, tmp_path):
    pytest.importorskip("peft")
    other = checkpoints.adapter(bert[0], tmp_path / "adapter")
    refused(
        tmp_path, r"a model that is whole, found the adapter .*merge_and_unload", bert[0], other
    )


def test_weights_that_are_no_numbers_are_refused(bert, tmp_path):
    other = tuned(bert[0], tmp_path / "nan")
    weights = load_file(other / "model.safetensors")
    name = sorted(weights)[3]
    weights[name].view(-1)[0] = float("nan")
    save_file(weights, other / "model.safetensors", {"format": "pt"})
    refused(tmp_path, rf"finite weights, found others in {name} of .*nan", bert[0], other)


def test_weights_too_large_for_the_format_are_refused(bert, tmp_path):
    half = checkpoints.cast(bert[1], tmp_path / "half", torch.float16)
    large = tuned(bert[0], tmp_path / "large", scale=3e4)
    refused(
        tmp_path,
        r"are too large for F16; give smaller --weights",
        *(half, large),
        method="task",
        base=str(bert[0]),
        weights=(1, 50),
    )


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"weights": (0.5,)}, r"--weights must be 2 numbers, one a model, found 0\.5"),
        ({"weights": (1, -1)}, r"must be at least 0, found 1,-1; give --method task"),
        ({"weights": (0, 0)}, r"must not all be 0"),
        ({"weights": (1, 1000)}, r"must be at most 100"),
        ({"method": "task"}, r"--method task needs --base MODEL, found none"),
        ({"base": "m"}, r"--base m needs --method task, found --method linear"),
        ({"models": ("a",)}, r"expected two models or more, found a only"),
        ({"models": ("a", "b", "c"), "method": "slerp"}, r"exactly two models, found 3"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, match):
    with pytest.raises(ConfigError, match=match):
        MergeConfig(**{"models": ("a", "b"), "to": "out", **options})


def test_a_folder_has_to_be_named():
    with pytest.raises(ConfigError, match="expected --to FOLDER, found none"):
        MergeConfig(models=("a", "b"))


@pytest.mark.parametrize("to", ["x.new", "..", ".hidden"])
def test_names_that_folders_cannot_have_are_refused(bert, tmp_path, to):
    with pytest.raises(ConfigError, match="--to must be a folder"):
        merged(*bert, to=tmp_path / to)


def test_a_run_without_a_model_is_refused(small_run, tmp_path):
    with pytest.raises(ConfigError, match="expected two models or more, found package:wordllama"):
        merged(to=tmp_path / "out", run_dir=str(small_run))


def test_folders_of_others_are_left_alone(bert, trained_copy, tmp_path):
    for place in (trained_copy / "model", bert[0], trained_copy):
        before = sorted(place.rglob("*"))
        with pytest.raises(ArtifactError, match="expected a model that `stx-mine merge` made"):
            merged(*bert, to=place, overwrite=True)
        assert sorted(place.rglob("*")) == before
    (tmp_path / "link").symlink_to(bert[0])
    with pytest.raises(ArtifactError, match="found something else"):
        merged(*bert, to=tmp_path / "link", overwrite=True)
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(ArtifactError, match="found something else"):
        merged(*bert, to=file, overwrite=True)
    merged(*bert, to=tmp_path / "out")
    (tmp_path / "out/notes.txt").write_text("mine")
    with pytest.raises(ArtifactError, match=r"did not write \(notes\.txt\)"):
        merged(*bert, to=tmp_path / "out", weights=(1, 3), overwrite=True)
    assert (tmp_path / "out/notes.txt").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    merged(*bert, to=tmp_path / "empty")
    assert (tmp_path / "empty" / MANIFEST).exists()


def test_places_of_other_commands_are_refused(bert, trained_copy):
    shutil.rmtree(trained_copy / "model")
    for place in ("model", "estimates", "rounds", "batches/x"):
        with pytest.raises(ArtifactError, match="is a place of other commands"):
            merged(*bert, to=trained_copy / place)
        assert not (trained_copy / place).exists()
    merged(*bert, to=trained_copy / "merged")
    assert run_verify(VerifyConfig(run_dir=str(trained_copy))).counts


def test_folders_above_are_made_only_where_something_is_written(bert, tmp_path):
    refused(tmp_path, "cannot find the model", bert[0], "nobody/nothing")
    with pytest.raises(ModelError):
        merged(bert[0], "nobody/nothing", to=tmp_path / "a/b/out")
    assert list(tmp_path.iterdir()) == []
    merged(*bert, to=tmp_path / "a/b/out")
    assert [path.name for path in (tmp_path / "a/b").iterdir()] == ["out"]


def test_a_model_is_not_replaced_by_what_it_becomes(bert, tmp_path):
    merged(*bert, to=tmp_path / "out")
    with pytest.raises(ConfigError, match="lies where the merged one would"):
        merged(tmp_path / "out", bert[0], to=tmp_path / "out", overwrite=True)


# --- kills and locks ---


def test_two_commands_do_not_write_one_folder(bert, tmp_path):
    with FileLock(tmp_path / ".lock-stx-mine-to-out"):
        with pytest.raises(LockedError, match="another `stx-mine merge` writes"):
            merged(*bert, to=tmp_path / "out")
    merged(*bert, to=tmp_path / "out")


def test_what_a_kill_leaves_harms_nothing(bert, tmp_path):
    merged(*bert, to=tmp_path / "out")
    expected = (tmp_path / "out/model.safetensors").read_bytes()
    # Killed while it wrote another beside, and while files were saved again.
    begun = tmp_path / "out.new"
    begun.mkdir()
    shutil.copy(tmp_path / "out" / PLAN, begun / PLAN)
    (begun / "model.safetensors.tmp").write_bytes(b"half")
    (tmp_path / ".merge-stx-mine-out/0").mkdir(parents=True)
    (tmp_path / ".merge-stx-mine-out/0/model.safetensors").write_bytes(b"half")
    assert merged(*bert, to=tmp_path / "out").skipped
    assert (tmp_path / "out/model.safetensors").read_bytes() == expected
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    # Between the two renames of a swap.
    (tmp_path / "out").rename(tmp_path / "out.old")
    assert merged(*bert, to=tmp_path / "out").skipped
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_killed_command_is_run_again(bert, tmp_path):
    """Killed at each file that it is about to rename, from the first to the last."""
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "left, replace = int(sys.argv[1]), Path.replace\n"
        "def replaced(self, target):\n"
        "    global left\n"
        "    left -= 1\n"
        "    if left < 0:\n"
        "        os.kill(os.getpid(), 9)\n"
        "    return replace(self, target)\n"
        "Path.replace = replaced\n"
        "from stx_mine.stages.merge.config import MergeConfig\n"
        "from stx_mine.stages.merge.stage import run_merge\n"
        "run_merge(MergeConfig(models=tuple(sys.argv[2:4]), to=sys.argv[4]))\n"
    )
    out = tmp_path / "out"
    for left in (0, 1, 4, 9):
        words = [sys.executable, "-c", code, str(left), *map(str, bert), str(out)]
        done = subprocess.run(words, env=cli_environment(), capture_output=True, text=True)
        assert done.returncode == -9, done.stderr
        assert not out.exists()
        merged(*bert, to=out)
        np.testing.assert_array_equal(
            vectors(out),
            vectors(by_hand(list(bert), lambda found: (found[0] + found[1]) / 2)),
        )
        shutil.rmtree(out)
        assert list(tmp_path.iterdir()) == []


# --- the command ---


def test_the_command_says_what_was_merged(cli_here: Cli, bert, tmp_path):
    out = tmp_path / "out"
    done = cli_here("merge", bert[1], bert[0], "--weights", "0.7,0.3", "--to", out)
    assert done.code == 0, done.stderr
    assert "the weighted mean of 2 models" in done.stdout
    assert "saved as F32 like those of" in done.stdout
    assert f"stx-mine evaluate DATA --models {bert[1]} --models {bert[0]} --models {out}" in (
        done.stdout
    )
    assert done.stderr == ""


def test_a_refusal_is_one_line_and_exit_code_2(bert, tmp_path):
    words = cli_command("merge", bert[0], tmp_path / "nothing", "--to", tmp_path / "out")
    done = subprocess.run(words, env=cli_environment(), capture_output=True, text=True)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []

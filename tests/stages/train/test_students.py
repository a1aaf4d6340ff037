"""The kinds of checkpoint that people train: float32 weights, adapters, code, what is published."""

import json
import shutil
from pathlib import Path

import checkpoints as zoo
import numpy as np
import pytest
import torch
from conftest import Cli
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from test_scale import killed_at_the_fourth_step

from stx_mine.errors import ModelError, TrainingError
from stx_mine.models.config import Reading
from stx_mine.models.load import open_model
from stx_mine.stages.evaluate.config import EvaluateConfig
from stx_mine.stages.evaluate.stage import run_evaluate
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.stage import run_pack
from stx_mine.stages.train.config import TrainConfig
from stx_mine.stages.train.stage import run_train
from stx_mine.store.artifact import MANIFEST, read_manifest
from stx_mine.store.training_log import TRAINING_LOG, read_log

TEXTS = ["a small dog", "the sun", "a much longer text about rivers and their beds"]


@pytest.fixture
def short_run(run_copy: Path) -> Path:
    """Four steps."""
    run_pack(PackConfig(run_dir=str(run_copy), batch_size=128, k=1, packings=1))
    return run_copy


@pytest.fixture
def packed_run(run_copy: Path) -> Path:
    """Eighteen steps."""
    run_pack(PackConfig(run_dir=str(run_copy), batch_size=64, k=1, packings=2))
    return run_copy


def trained(run: Path, model: Path | str, **options: object) -> SentenceTransformer:
    own = {"learning_rate": 5e-3, "max_length": 32, **options}
    if own["max_length"] is None:
        del own["max_length"]
    run_train(
        TrainConfig(
            run_dir=str(run),
            model=str(model),
            batch_tokens=1_024,
            device="cpu",
            overwrite=True,
            **own,
        )
    )
    return open_model(
        str(run / "model"), "cpu", reading=Reading(own.get("trust_remote_code", False))
    ).model


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {
        f"{path.parent.name}/{name}" if path.parent != folder else name: one
        for path in sorted(folder.rglob("*.safetensors"))
        for name, one in load_file(path).items()
    }


# --- number formats ---


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", ["transformer", "static"])
def test_a_file_in_half_precision_trains_as_its_values_in_float32(
    short_run, tiny_transformer, tmp_path, dtype, kind
):
    """The same numbers, stored in two formats, end as the same model."""
    if kind == "static":
        half = zoo.static(tmp_path / "half", dtype)
        whole = zoo.static(tmp_path / "whole", torch.float32)
    else:
        half = zoo.cast(tiny_transformer, tmp_path / "half", dtype)
        whole = tmp_path / "whole"
    zoo.saved(SentenceTransformer(str(half), device="cpu").float(), whole)
    length = {"max_length": None} if kind == "static" else {}
    trained(short_run, half, **length)
    of_half = weights(short_run / "model")
    words = run_report(short_run)
    trained(short_run, whole, **length)
    of_whole = weights(short_run / "model")
    assert of_half.keys() == of_whole.keys()
    for name, one in of_whole.items():
        assert of_half[name].dtype == torch.float32
        assert torch.equal(of_half[name], one), name
    said = str(dtype).removeprefix("torch.")
    assert f"weights saved as float32 (those of the base model: {said};" in words


def run_report(run: Path) -> str:
    """The report of a training that is finished."""
    config = read_manifest(run / "model").content["config"]
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}
    report = run_train(TrainConfig(**{**fields, "run_dir": str(run)}))
    return "\n".join([*report.lines, *report.warnings])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_number_format_of_the_saved_model_is_as_asked(short_run, tiny_transformer, dtype):
    model = trained(short_run, tiny_transformer, save_dtype=dtype)
    saved = weights(short_run / "model")
    assert {one.dtype for one in saved.values()} == {getattr(torch, dtype)}
    assert "weights saved as " + dtype in run_report(short_run)
    trained(short_run, tiny_transformer)
    whole = open_model(str(short_run / "model"), "cpu").model
    np.testing.assert_allclose(model.encode(TEXTS), whole.encode(TEXTS), atol=0.02)


def test_bf16_works_on_a_file_in_half_precision(short_run, tiny_transformer, tmp_path):
    half = zoo.cast(tiny_transformer, tmp_path / "half", torch.float16)
    model = trained(short_run, half, precision="bf16")
    assert {one.dtype for one in model.parameters()} == {torch.float32}
    assert np.isfinite(model.encode(TEXTS)).all()


def test_the_best_weights_come_back_in_float32(short_run, tiny_transformer, tmp_path, small_input):
    """A checkpoint is read into float32 too, whatever its base model is stored as."""
    pytest.importorskip("peft")
    half = zoo.cast(tiny_transformer, tmp_path / "half", torch.float16)
    options = {"lora_rank": 2, "evaluation": (str(small_input / "pairs.parquet"),)}
    trained(short_run, half, evaluation_steps=1, patience=0, epochs=2, **options)
    extra = read_manifest(short_run / "model").extra
    found = weights(short_run / "model")
    base = SentenceTransformer(str(half), device="cpu").float()[0].auto_model.state_dict()
    changes = [
        (found[name] - one).double() for name, one in base.items() if name.endswith("weight")
    ]
    changed = [one for one in changes if float(one.abs().max()) > 0]
    if extra["evaluation"]["best_step"]:
        assert changed
    # Numbers of half precision would be multiples of 2^-10 of their size.
    assert all(not torch.equal(one, one.half().double()) for one in changed)


# --- what is published ---


def test_a_loss_that_rises_fails_and_publishes_nothing(run_copy, cli_here: Cli):
    run_pack(PackConfig(run_dir=str(run_copy), batch_size=32, k=1, packings=1))
    command = ("train", "--temperature", "0.01", "--schedule", "constant", "--device", "cpu")
    done = cli_here(*command, "--warmup", "0", "--learning-rate", "50", run_dir=run_copy)
    assert "the training loss rose from" in done.error
    assert "give a lower --learning-rate (it was 50)" in done.error
    left = {path.name for path in (run_copy / "model").iterdir()}
    assert MANIFEST not in left
    assert not {"modules.json", "model.safetensors", "checkpoints"} & left
    lines = [one for one in read_log(run_copy / "model" / TRAINING_LOG) if "loss" in one]
    assert lines[-1]["loss"] > 1.2 * lines[0]["loss"]
    again = ("--learning-rate", "0.01", "--overwrite")
    assert cli_here(*command, *again, run_dir=run_copy).code == 0
    assert (run_copy / "model" / MANIFEST).exists()


def test_a_loss_that_is_no_number_stops_at_once(packed_run, cli_here: Cli):
    done = cli_here(
        "train", "--learning-rate", "1e38", "--warmup", "0", "--device", "cpu", run_dir=packed_run
    )
    assert "the training loss is nan at step" in done.error
    lines = [one for one in read_log(packed_run / "model" / TRAINING_LOG) if "loss" in one]
    assert lines[-1]["loss"] is None
    assert len(lines) < 18
    assert not (packed_run / "model" / MANIFEST).exists()


def test_weights_that_the_format_cannot_hold_are_not_published(short_run, tmp_path):
    """Cosines do not mind a scale; float16 ends at 65,504."""
    folder = zoo.static(tmp_path / "large")
    model = SentenceTransformer(str(folder), device="cpu")
    model[0].embedding.weight.data *= 1e6
    zoo.saved(model, folder)
    with pytest.raises(TrainingError, match=r"not finite in float16.*--save-dtype float32"):
        trained(short_run, folder, save_dtype="float16", max_length=None)
    assert not (short_run / "model" / "modules.json").exists()


# --- adapters ---


@pytest.mark.parametrize("kind", ["saved here", "plain", "over a decoder"])
def test_an_adapter_is_trained_on_and_merged(short_run, tiny_transformer, tmp_path, kind):
    pytest.importorskip("peft")
    base = zoo.decoder(tmp_path / "base") if kind == "over a decoder" else tiny_transformer
    make = zoo.plain_adapter if kind == "plain" else zoo.adapter
    folder = make(base, tmp_path / "adapter")
    before = open_model(str(folder), "cpu", 32).model
    model = trained(short_run, folder)
    assert not list((short_run / "model").rglob("adapter*"))
    words = run_report(short_run)
    assert "the adapter that it came with was trained on" in words
    assert "merged into its base at the end" in words
    of_base = SentenceTransformer(str(base), device="cpu")[0].auto_model.state_dict()
    found = model[0].auto_model.state_dict()
    changed = [name for name, one in of_base.items() if not torch.equal(found[name], one)]
    assert changed
    for name in changed:
        rank = torch.linalg.matrix_rank((found[name] - of_base[name]).double(), rtol=1e-3)
        assert int(rank) <= 4, name
    assert np.abs(model.encode(TEXTS) - before.encode(TEXTS)).max() > 1e-3


def test_an_adapter_that_is_hardly_trained_stays_what_it_was(short_run, tiny_transformer, tmp_path):
    pytest.importorskip("peft")
    folder = zoo.adapter(tiny_transformer, tmp_path / "adapter")
    before = open_model(str(folder), "cpu", 32).model.encode(TEXTS)
    model = trained(short_run, folder, learning_rate=1e-12)
    np.testing.assert_allclose(model.encode(TEXTS), before, atol=1e-5)


def test_a_new_adapter_over_one_that_was_brought(short_run, tiny_transformer, tmp_path):
    """Also where training continues from a checkpoint, whose base lacks the merged one."""
    pytest.importorskip("peft")
    folder = zoo.adapter(tiny_transformer, tmp_path / "adapter")
    before = open_model(str(folder), "cpu", 32).model.encode(TEXTS)
    options = {"lora_rank": 2, "epochs": 2, "checkpoint_steps": 2}
    model = trained(short_run, folder, learning_rate=1e-12, **options)
    assert "was merged into its base, a new one was trained" in run_report(short_run)
    np.testing.assert_allclose(model.encode(TEXTS), before, atol=1e-5)


@pytest.mark.parametrize("lora_rank", [None, pytest.param(2, marks=pytest.mark.slow)])
def test_adapters_that_were_brought_go_on_from_a_checkpoint(
    short_run, tiny_transformer, tmp_path, monkeypatch, lora_rank
):
    pytest.importorskip("peft")
    folder = zoo.adapter(tiny_transformer, tmp_path / "adapter")
    other = tmp_path / "other"
    shutil.copytree(short_run, other)
    options = {"lora_rank": lora_rank, "epochs": 2, "checkpoint_steps": 2}
    trained(short_run, folder, **options)
    resumes(other, folder, options, monkeypatch)
    whole, resumed = weights(short_run / "model"), weights(other / "model")
    for name in whole:
        torch.testing.assert_close(whole[name], resumed[name])


def resumes(run: Path, model: Path, options: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train, be killed at the fourth step, and train on."""
    steps = killed_at_the_fourth_step(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        trained(run, model, **options)
    before = len(steps)
    trained(run, model, **{**options})
    # From the checkpoint of step 2, not from the beginning.
    assert len(steps) - before == 8 - 2


# --- code that comes with a model ---


@pytest.mark.parametrize("kind", ["network", "module"])
def test_a_model_with_code_is_trained_and_loads_again(
    short_run, tiny_transformer, tmp_path, monkeypatch, kind
):
    ran = tmp_path / "ran"
    folder = (
        zoo.custom_code(tmp_path / "own", ran)
        if kind == "network"
        else zoo.custom_module(tiny_transformer, tmp_path / "own", ran)
    )
    with pytest.raises(ModelError, match="--trust-remote-code"):
        trained(short_run, folder)
    assert not ran.exists()
    before = open_model(str(folder), "cpu", 32, reading=Reading(True)).model.encode(TEXTS)
    model = trained(short_run, folder, trust_remote_code=True)
    assert read_manifest(short_run / "model").extra["reading"]["trust_remote_code"] is True
    assert np.abs(model.encode(TEXTS) - before).max() > 1e-3
    # What is published has the code too, and asks for the same trust.
    moved = tmp_path / "moved"
    shutil.move(short_run / "model", moved)
    shutil.rmtree(folder)
    ran.unlink()
    with pytest.raises(ModelError, match="--trust-remote-code"):
        open_model(str(moved), "cpu")
    assert not ran.exists()
    again = SentenceTransformer(str(moved), device="cpu", trust_remote_code=True)
    np.testing.assert_array_equal(again.encode(TEXTS), model.encode(TEXTS))


def test_evaluate_reads_models_as_the_run_had_them(tmp_path, small_input, cli_here: Cli):
    """A plain folder is pooled as `embed` did; code needs the flag each time."""
    ran = tmp_path / "ran"
    plain = zoo.custom_code(tmp_path / "own", ran)
    pairs, run = small_input / "pairs.parquet", tmp_path / "new-run"
    embed = ("embed", pairs, "--model", plain, "--trust-remote-code", "--pooling", "cls")
    assert cli_here(*embed, run_dir=run).code == 0
    made = json.loads((run / "embeddings" / MANIFEST).read_text())
    assert made["extra"]["reading"]["pooling"] == "cls"
    assert made["config"]["trust_remote_code"] is True
    refused = cli_here("evaluate", pairs, run_dir=run)
    assert refused.code == 2
    assert "read it, then give --trust-remote-code" in refused.stderr
    done = cli_here("evaluate", pairs, "--trust-remote-code", run_dir=run)
    assert done.code == 0, done
    assert "is a guess" not in done.stderr
    evaluation = next((run / "evaluations").glob(f"*/{MANIFEST}"))
    readings = json.loads(evaluation.read_text())["extra"]["readings"]
    assert readings[str(plain)] == {
        "trust_remote_code": True,
        "revision": None,
        "pooling": "cls",
        "commit": None,
        "stored": "float32",
    }
    assert cli_here("estimate", run_dir=run).code == 2
    assert cli_here("estimate", "--trust-remote-code", "--batch-size", "64", run_dir=run).code == 0


def test_a_revision_of_several_models_is_refused(run_copy, small_input):
    pairs = str(small_input / "pairs.parquet")
    for models, words in [
        (("a/b", "c/d"), r"--revision v1 is of one model, found several on the hub \(a/b, c/d\)"),
        (("package:wordllama",), "--revision v1 fits none of package:wordllama"),
    ]:
        with pytest.raises(Exception, match=words):
            run_evaluate(
                EvaluateConfig(data=(pairs,), models=models, revision="v1", run_dir=str(run_copy))
            )

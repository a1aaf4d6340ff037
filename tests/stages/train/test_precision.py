"""`train --precision auto`: bf16 where it is measured to be faster, and the run is that of bf16."""

import json
import shutil

import pytest
import torch

from stx_mine.models.load import load_model
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.stage import run_pack
from stx_mine.stages.train import precision as measuring
from stx_mine.stages.train.config import TrainConfig
from stx_mine.stages.train.stage import run_train
from stx_mine.store.artifact import read_manifest


@pytest.fixture
def short_run(run_copy):
    """Four steps."""
    run_pack(PackConfig(run_dir=str(run_copy), batch_size=128, k=1, packings=1))
    return run_copy


def trained(run, model, **options):
    """The report, and the weights."""
    small = {"device": "cpu", "max_length": 24, "steps": 2}
    report = run_train(TrainConfig(run_dir=str(run), model=str(model), **small, **options))
    return report, load_model(str(run / "model"), "cpu").state_dict()


def timed(monkeypatch, whole, half):
    """As if the network took so long in float32 and in bf16, after it was really run."""
    real = measuring._seconds

    def seconds(model, features, mini_batches, precision):
        assert real(model, features, mini_batches, precision) > 0
        return half if precision == torch.bfloat16 else whole

    monkeypatch.setattr(measuring, "_seconds", seconds)


@pytest.mark.parametrize(
    ("whole", "half", "taken"), [(3.0, 2.0, "bf16"), (1.05, 1.0, "float32"), (1.0, 2.0, "float32")]
)
def test_the_run_is_that_of_the_faster_one(
    short_run, tiny_transformer, tmp_path, monkeypatch, whole, half, taken
):
    other = tmp_path / "other"
    shutil.copytree(short_run, other)
    timed(monkeypatch, whole, half)
    report, weights = trained(short_run, tiny_transformer, precision="auto")
    (line,) = (one for one in report.lines if "the network computed in" in one)
    assert f"computed in {taken} (" in line
    assert f"float32 {whole:.3g} s, bf16 {half:.3g} s" in line
    assert read_manifest(short_run / "model").extra["precision"] == taken
    usual, expected = trained(other, tiny_transformer, precision=taken)
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in weights)
    assert any("computed in" in one for one in usual.lines) == (taken == "bf16")
    # A run that died has its decision in the plan, and does not measure again.
    assert json.loads((short_run / "model/plan.json").read_text())["choices"]["precision"] == taken
    (short_run / "model/manifest.json").unlink()
    monkeypatch.setattr(measuring, "_seconds", None)
    again, _ = trained(short_run, tiny_transformer, precision="auto")
    assert line in again.lines


def test_what_is_measured_here_is_taken(short_run, tiny_transformer):
    trained(short_run, tiny_transformer, precision="auto")
    extra = read_manifest(short_run / "model").extra
    assert extra["precision"] in ("float32", "bf16")
    assert "16 passages forwards and backwards: float32" in extra["precision_reason"]


def test_batches_of_labels_have_texts_to_measure(run_copy, tiny_transformer):
    pack = {"layout": "labels", "batch_size": 64, "packings": 1, "overwrite": True}
    run_pack(PackConfig(run_dir=str(run_copy), **pack))
    _, weights = trained(run_copy, tiny_transformer, precision="auto", loss="batch-all")
    assert all(torch.isfinite(one).all() for one in weights.values() if one.is_floating_point())


def test_a_static_model_has_no_network(short_run):
    report, _ = trained(short_run, "package:wordllama", precision="auto")
    assert any("computed in float32 (a static model has no network" in one for one in report.lines)

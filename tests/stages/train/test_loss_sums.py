"""`train --loss A+B`: the weighted sum of a contrastive loss and a distillation."""

import shutil
from pathlib import Path

import pytest
import torch
from test_loss import ANCHORS, TEXTS, gradients, naive, packed
from test_own_passages import slow

from stx_mine.errors import ConfigError
from stx_mine.models.load import load_model
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.stage import run_pack
from stx_mine.stages.train.choice import make_loss
from stx_mine.stages.train.config import LOSSES, TrainConfig
from stx_mine.stages.train.losses.weighted_sum import LossSum
from stx_mine.stages.train.stage import run_train
from stx_mine.store.training_log import TRAINING_LOG, read_log

SUMS = [name for name, kind in LOSSES.items() if kind.terms]
UNIT = torch.nn.functional.normalize


@pytest.fixture(scope="module")
def model(tiny_transformer):
    """A BERT in float64 to which texts are not all alike; no dropout."""
    model = load_model(str(tiny_transformer), "cpu").to(torch.float64).eval()
    torch.manual_seed(5)
    for one in model.parameters():
        torch.nn.init.normal_(one, std=0.5)
    return model


@pytest.fixture(scope="module")
def batch(model):
    """Rows that share an anchor and passages and lack negatives, with a mask and scores."""
    negatives = torch.tensor([[3, 4], [5, -1], [-1, 3], [-1, -1]])
    real = torch.cat([torch.ones(4, 1, dtype=torch.bool), negatives >= 0], 1)
    scores = torch.rand(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return packed(
        model,
        ANCHORS,
        TEXTS,
        anchors=torch.tensor([0, 1, 2, 0]),
        targets=torch.tensor([0, 1, 2, 3]),
        negatives=negatives,
        ignored=torch.tensor([[0, 0, 3], [3, 5, 0]]),
        scores=scores.masked_fill(~real, 0),
        num_scored_negatives=torch.tensor(4),
        num_scored_rows=torch.tensor(3),
    )


def by_loops(name, model, features, labels):
    """A loss of this name by loops, in one forward pass."""
    anchors, passages = (UNIT(model(dict(one))["sentence_embedding"], dim=1) for one in features)
    if name == "mnr":
        rows = anchors[labels["anchors"]]
        return naive(rows, passages, labels["targets"], labels["ignored"], 1 / 0.3)
    return slow(name, "cosine", anchors, passages, labels)


@pytest.mark.parametrize("batch_tokens", [40, 10_000])
@pytest.mark.parametrize("name", SUMS)
def test_a_sum_has_the_weighted_gradient_of_its_terms(model, batch, name, batch_tokens):
    margin = {"triplet_margin": 0.9} if "triplet" in name else {}
    temperature = {"temperature": 0.3} if name != "triplet+margin-mse" else {}
    config = TrainConfig(
        loss=name,
        weights=(1.5, 0.25),
        batch_tokens=batch_tokens,
        chunk_rows=2,
        **margin,
        **temperature,
    )
    loss = make_loss(config, model)
    assert isinstance(loss, LossSum)
    terms = loss(*batch)
    assert list(terms) == name.split("+")
    found = gradients(model, torch.stack(list(terms.values())).sum())
    singles = [by_loops(one, model, *batch) for one in terms]
    for term, single, weight in zip(terms.values(), singles, (1.5, 0.25), strict=True):
        torch.testing.assert_close(term, weight * single, atol=1e-9, rtol=1e-9)
        assert single > 1e-6
    expected = gradients(model, 1.5 * singles[0] + 0.25 * singles[1])
    assert max(float(one.abs().max()) for one in expected) > 1e-4
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-7)


def test_a_sum_is_that_of_the_single_losses(model, batch):
    """With one weight for both by default, and options of either."""
    options = {"temperature": 0.1, "batch_tokens": 64, "matryoshka_dims": (8, 32)}
    of_mnr = {"hardness": 2.0, "mask_above": 0.1}
    both = make_loss(TrainConfig(loss="mnr+kl", **options, **of_mnr), model)(*batch)
    for name, more in (("mnr", of_mnr), ("kl", {})):
        single = make_loss(TrainConfig(loss=name, **options, **more), model)(*batch)
        torch.testing.assert_close(both[name], single)


# --- a run ---


@pytest.fixture(scope="module")
def scored(small_run, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("sums") / "run"
    shutil.copytree(small_run, run)
    run_pack(PackConfig(run_dir=str(run), batch_size=64, scores=True))
    return run


def trained(run: Path, **options):
    return run_train(TrainConfig(run_dir=str(run), device="cpu", overwrite=True, **options))


def test_the_log_has_the_terms_of_the_loss(scored, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(scored, run)
    options = {"loss": "mnr+kl", "weights": (1.0, 0.5), "teacher_temperature": 0.05}
    report = trained(run, validation_share=0.1, **options)
    lines = [one for one in read_log(run / "model" / TRAINING_LOG) if "loss" in one]
    assert len(lines) > 5
    for line in lines:
        terms = line["loss_mnr"] + line["loss_kl"]
        assert terms == pytest.approx(line["loss"], rel=1e-5)
    assert report.counts["terms"] == {
        name: [lines[0][f"loss_{name}"], lines[-1][f"loss_{name}"]] for name in ("mnr", "kl")
    }
    assert report.counts["last_loss"] < report.counts["first_loss"]
    words = f"mnr {lines[0]['loss_mnr']:.4f} -> {lines[-1]['loss_mnr']:.4f}, kl "
    assert any(words in line for line in report.lines)
    # Half of the weight is half of the term of the untrained model.
    twice = trained(run, validation_share=0.1, **{**options, "weights": (1.0, 1.0)})
    first = [one.counts["terms"]["kl"][0] for one in (report, twice)]
    assert first[1] == pytest.approx(2 * first[0], rel=1e-5)


def test_a_term_that_counts_for_less_than_its_weight_is_said(scored, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(scored, run)
    report = trained(run, loss="mnr+kl", epochs=1)
    said = "its weight of 1 is one of 0.0025 beside the other term; with --teacher-temperature 0.05"
    assert any(said in line for line in report.warnings)
    report = trained(run, loss="triplet+margin-mse", epochs=1)
    assert not any("weight" in line for line in report.warnings)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"loss": "mnr+mnr"}, r"--loss must be mnr, .* found 'mnr\+mnr'.*; give one of them"),
        ({"loss": "kl+mnr"}, r"found 'kl\+mnr'.*; give one of them"),
        ({"loss": "mnr+kl", "weights": (1,)}, "--weights must be 2 numbers, .* found 1; give"),
        ({"loss": "mnr+kl", "weights": (1, 2, 3)}, "one a term of mnr.kl, found 1,2,3; give such"),
        ({"loss": "mnr+kl", "weights": (1, 0)}, r"--weights must be above 0, found 0\.0"),
        ({"loss": "kl", "weights": (1,)}, r"needs --loss mnr\+margin-mse, .* found --loss kl"),
        ({"loss": "triplet+kl", "hardness": 1.0}, r"needs --loss mnr, found --loss triplet\+kl"),
        ({"loss": "margin-mse", "teacher_temperature": 1.0}, "needs --loss kl, found --loss"),
    ],
)
def test_what_is_no_sum_is_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        TrainConfig(**options)


def test_a_sum_without_scores_is_refused(small_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(small_run, run)
    run_pack(PackConfig(run_dir=str(run), batch_size=64))
    with pytest.raises(ConfigError, match=r"--loss mnr\+kl needs scores .* --scores"):
        trained(run, loss="mnr+kl")

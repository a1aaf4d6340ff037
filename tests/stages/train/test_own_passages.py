"""Triplet, margin-MSE and KL of a row's own passages: naive float64 code, and the library."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers.sentence_transformer.losses import (
    DistillKLDivLoss,
    MarginMSELoss,
    TripletDistanceMetric,
    TripletLoss,
)
from sentence_transformers.util import pairwise_cos_sim, pairwise_dot_score, pairwise_euclidean_sim
from test_loss import ANCHORS, NEGATIVES, POSITIVES, TEXTS, gradient, packed

from stx_mine.models.load import load_model
from stx_mine.stages.train.losses.embedding import MiniBatches
from stx_mine.stages.train.losses.own_passages import (
    PackedKLLoss,
    PackedMarginMSELoss,
    PackedTripletLoss,
    own_scores,
)

SIMILARITIES = {
    "cosine": pairwise_cos_sim,
    "dot": pairwise_dot_score,
    "euclidean": pairwise_euclidean_sim,
}


@pytest.fixture(scope="module")
def model():
    return load_model("package:wordllama", device="cpu").to(torch.float64)


# Embeddings of wordllama lie far apart.
MARGINS = {"cosine": 0.9, "dot": 0.9, "euclidean": 20.0}


def made(name, metric, chunk_rows=2, model=None, batch_tokens=64, dims=(), **teacher):
    model = torch.nn.Identity() if model is None else model
    rest = (metric, chunk_rows, MiniBatches(batch_tokens), dims)
    if name == "triplet":
        return PackedTripletLoss(model, MARGINS[metric], *rest)
    if name == "margin-mse":
        return PackedMarginMSELoss(model, *rest)
    return PackedKLLoss(model, 0.3, *rest, **teacher)


def score(metric, one, other):
    if metric == "euclidean":
        return -(sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) ** 0.5)
    product = sum(a * b for a, b in zip(one, other, strict=True))
    lengths = (sum(a * a for a in one) * sum(b * b for b in other)) ** 0.5
    return product / lengths if metric == "cosine" else product


def slow(name, metric, anchors, passages, labels, temperature=None, judged=False):
    """Loops over rows and negatives that exist, and have a score where one is distilled.

    Args:
        temperature: Of the teacher's own, if it has one.
        judged: Whether its scores are probabilities.
    """
    terms = []
    for row, anchor in enumerate(labels["anchors"]):
        slots = [int(labels["targets"][row]), *labels["negatives"][row].tolist()]
        teacher = labels["scores"][row].tolist()
        kept = [slot for slot, one in enumerate(slots) if one >= 0]
        if name != "triplet":
            kept = [slot for slot in kept if not math.isnan(teacher[slot] + teacher[0])] or [0]
        scores = [score(metric, anchors[anchor], passages[slots[slot]]) for slot in kept]
        teacher = [teacher[slot] for slot in kept]
        if name == "kl" and len(kept) > 1:
            student = [one / 0.3 for one in scores]
            total = torch.stack(student).exp().sum().log()
            if judged:
                sure = [min(max(one, 1e-6), 1 - 1e-6) for one in teacher]
                teacher = [math.log(one / (1 - one)) for one in sure]
            weights = [math.exp(one / (temperature or (1 if judged else 0.3))) for one in teacher]
            shares = [one / sum(weights) for one in weights]
            logs = zip(shares, student, strict=True)
            factor = 1 if temperature or judged else 0.3**2
            terms.append(factor * sum(p * (math.log(p) - (s - total)) for p, s in logs if p))
        for ours, theirs in zip(scores[1:], teacher[1:], strict=True):
            if name == "triplet":
                terms.append((ours - scores[0] + MARGINS[metric]).clamp(min=0))
            elif name == "margin-mse":
                terms.append(((scores[0] - ours) - (teacher[0] - theirs)) ** 2)
    return torch.stack(terms).mean() if terms else 0 * anchors.sum()


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 10_000),
    st.integers(1, 7),
    st.integers(4, 9),
    st.sampled_from(["triplet", "margin-mse", "kl"]),
    st.sampled_from(["cosine", "dot", "euclidean"]),
    st.integers(1, 8),
    st.sampled_from([None, 0.5]),
    st.booleans(),
    st.sampled_from([0.0, 0.4]),
)
def test_ragged_rows_have_the_loss_of_loops_in_value_and_gradient(
    seed, num_rows, num_passages, name, metric, chunk_rows, temperature, judged, unscored
):
    """Rows may share anchors and passages, and lack negatives in any slot; so may scores."""
    generator = torch.Generator().manual_seed(seed)
    double = {"dtype": torch.float64, "generator": generator}
    anchors = torch.randn(3, 4, **double).requires_grad_()
    passages = torch.randn(num_passages, 4, **double).requires_grad_()
    picks = torch.rand(num_rows, num_passages, generator=generator).argsort(1)
    missing = torch.rand(num_rows, 3, generator=generator) < 0.4
    labels = {
        "anchors": torch.randint(3, (num_rows,), generator=generator),
        "targets": picks[:, 0],
        "negatives": picks[:, 1:4].masked_fill(missing, -1),
        "num_rows": torch.tensor(num_rows),
        "num_negatives": (~missing).sum(),
    }
    scores = torch.rand(num_rows, 4, **double).mul(1.2).sub(0.1).clamp(0, 1)
    scores[torch.rand(num_rows, 4, generator=generator) < unscored] = torch.nan
    both = ~missing & ~scores[:, 1:].isnan() & ~scores[:, :1].isnan()
    labels |= {"scores": scores, "num_scored_negatives": both.sum()}
    labels["num_scored_rows"] = both.any(1).sum()
    teacher = {"teacher_temperature": temperature, "probabilities": judged}
    loss = made(name, metric, chunk_rows, **teacher)
    fast = loss.score(loss._first(anchors, None), loss._first(passages, None), labels)
    found = torch.autograd.grad(3 * fast, (anchors, passages))
    expected = slow(name, metric, anchors, passages, labels, temperature, judged)
    gradients = torch.autograd.grad(3 * expected, (anchors, passages), allow_unused=True)
    torch.testing.assert_close(fast, expected, atol=1e-9, rtol=1e-9)
    for one, other in zip(found, gradients, strict=True):
        other = torch.zeros_like(one) if other is None else other
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-9)


def library(model, name, metric):
    similarity = SIMILARITIES[metric]
    if name == "triplet":
        distance = {
            "cosine": TripletDistanceMetric.COSINE,
            "euclidean": TripletDistanceMetric.EUCLIDEAN,
        }[metric]
        return TripletLoss(model, distance, triplet_margin=MARGINS[metric])
    if name == "kl":
        return DistillKLDivLoss(model, similarity, temperature=0.3)
    return MarginMSELoss(model, similarity)


@pytest.mark.parametrize("metric", ["cosine", "dot", "euclidean"])
@pytest.mark.parametrize("name", ["triplet", "margin-mse", "kl"])
def test_without_repeats_it_is_the_library_loss_in_float64(model, name, metric):
    if (name, metric) == ("triplet", "dot"):
        pytest.skip("a distance is no product")
    negatives = torch.tensor([[3], [4], [5]])
    columns = [ANCHORS, POSITIVES, NEGATIVES]
    teacher = torch.tensor([[0.9, 0.2], [0.5, 0.4], [0.7, 0.1]], dtype=torch.float64)
    if name != "triplet":
        negatives = torch.tensor([[3, 4], [4, 5], [5, 3]])
        columns.append([NEGATIVES[1], NEGATIVES[2], NEGATIVES[0]])
        extra = torch.tensor([[0.3], [0.6], [0.2]], dtype=torch.float64)
        teacher = torch.cat([teacher, extra], 1)
    features, labels = packed(
        model,
        ANCHORS,
        TEXTS,
        negatives=negatives,
        scores=teacher,
        num_scored_negatives=(negatives >= 0).sum(),
        num_scored_rows=torch.tensor(3),
    )
    found = made(name, metric, model=model)(features, labels)
    found_gradient = gradient(model, found)
    theirs = library(model, name, metric)([model.preprocess(one) for one in columns], teacher)
    torch.testing.assert_close(found, theirs, atol=1e-9, rtol=1e-9)
    assert found_gradient.abs().max() > 1e-6
    torch.testing.assert_close(found_gradient, gradient(model, theirs), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("name", ["triplet", "margin-mse", "kl"])
def test_a_batch_without_negatives_has_a_zero_gradient(model, name):
    none = torch.tensor(0)
    labels = {"scores": torch.ones(3, 1), "num_scored_negatives": none, "num_scored_rows": none}
    features, labels = packed(model, ANCHORS, POSITIVES, **labels)
    loss = made(name, "cosine", model=model)(features, labels)
    assert loss == 0
    assert not gradient(model, loss).any()


def test_equal_embeddings_have_no_gradient_that_is_not_a_number():
    anchors = torch.ones(1, 4, requires_grad=True)
    passages = torch.ones(2, 4, requires_grad=True)
    scores = own_scores(anchors, passages, torch.tensor([[0, 1]]), True, 8)
    scores.sum().backward()
    assert scores.tolist() == [[0, 0]]
    assert not anchors.grad.any()

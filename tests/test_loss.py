"""The losses against naive float64 code and against sentence-transformers."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

from stx_mine.models.load import load_model
from stx_mine.models.tokenise import Tokeniser
from stx_mine.train.loss import PackedMNRLoss, PackedTripletLoss, masked_cross_entropy


def naive(anchors, passages, targets, ignored, scale):
    losses = []
    for row in range(len(anchors)):
        hidden = set(ignored[1][ignored[0] == row].tolist())
        logits = [
            scale * anchors[row] @ passages[m] for m in range(len(passages)) if m not in hidden
        ]
        target = scale * anchors[row] @ passages[targets[row]]
        losses.append(torch.logsumexp(torch.stack(logits), 0) - target)
    return torch.stack(losses).mean()


@settings(deadline=None, max_examples=50)
@given(
    st.integers(0, 10_000),
    st.integers(1, 9),
    st.integers(1, 12),
    st.floats(0.1, 30),
    st.integers(1, 11),
    st.floats(0, 0.6),
)
def test_the_chunked_loss_is_the_naive_one_in_value_and_gradient(
    seed, num_rows, num_passages, scale, chunk_rows, share
):
    generator = torch.Generator().manual_seed(seed)
    double = {"dtype": torch.float64, "generator": generator}
    anchors = torch.randn(num_rows, 5, **double).requires_grad_()
    passages = torch.randn(num_passages, 5, **double).requires_grad_()
    targets = torch.randint(num_passages, (num_rows,), generator=generator)
    mask = torch.rand(num_rows, num_passages, generator=generator) < share
    mask[torch.arange(num_rows), targets] = False
    ignored = mask.nonzero().T
    fast = masked_cross_entropy(anchors, passages, targets, ignored, scale, chunk_rows)
    found = torch.autograd.grad(3 * fast, (anchors, passages))
    slow = naive(anchors, passages, targets, ignored, scale)
    expected = torch.autograd.grad(3 * slow, (anchors, passages))
    torch.testing.assert_close(fast, slow, atol=1e-9, rtol=1e-9)
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one, two, atol=1e-9, rtol=1e-9)


@pytest.fixture(scope="module")
def model():
    return load_model("package:wordllama", device="cpu")


def packed(model, queries, passages, **labels):
    tokenise = Tokeniser(model)
    features = [tokenise(queries, "query"), tokenise(passages, "passage")]
    defaults = {
        "anchors": torch.arange(len(queries)),
        "targets": torch.arange(len(queries)),
        "negatives": torch.empty((len(queries), 0), dtype=torch.int64),
        "ignored": torch.empty((2, 0), dtype=torch.int64),
    }
    return features, {**defaults, **labels}


def gradient(model, loss):
    model.zero_grad()
    loss.backward()
    return next(model.parameters()).grad.clone()


ANCHORS = ["a small dog barks", "the train left late", "prices rose again"]
POSITIVES = ["dog: a domestic animal", "train: public transport by rail", "rise: go up"]
NEGATIVES = ["cat: a feline", "bus: a vehicle", "fall: go down"]


def test_without_repeats_it_is_the_library_loss_in_float64(model):
    model = model.to(torch.float64)
    try:
        features, labels = packed(model, ANCHORS, POSITIVES + NEGATIVES)
        ours = PackedMNRLoss(model, temperature=0.05, chunk_rows=2)(features, labels)
        ours_gradient = gradient(model, ours)
        columns = [model.preprocess(one) for one in (ANCHORS, POSITIVES, NEGATIVES)]
        theirs = MultipleNegativesRankingLoss(model, scale=20.0)(columns, None)
        torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=1e-9)
        torch.testing.assert_close(ours_gradient, gradient(model, theirs), atol=1e-9, rtol=1e-9)
    finally:
        model.to(torch.float32)


def test_a_masked_passage_does_not_count(model):
    loss = PackedMNRLoss(model, temperature=0.05, chunk_rows=8)
    ignored = torch.tensor([[0, 1, 2], [3, 3, 3]])
    with_mask = loss(*packed(model, ANCHORS, [*POSITIVES, "train: rail"], ignored=ignored))
    without = loss(*packed(model, ANCHORS, POSITIVES))
    unmasked = loss(*packed(model, ANCHORS, [*POSITIVES, "train: rail"]))
    torch.testing.assert_close(with_mask, without)
    assert unmasked > without


def test_rows_may_share_an_anchor(model):
    """Two positives of one anchor: each row masks the other's."""
    labels = {
        "anchors": torch.tensor([0, 0]),
        "targets": torch.tensor([0, 1]),
        "ignored": torch.tensor([[0, 1], [1, 0]]),
    }
    features, labels = packed(model, ANCHORS[:1], [*POSITIVES[:2], NEGATIVES[0]], **labels)
    found = PackedMNRLoss(model, temperature=0.05, chunk_rows=8)(features, labels)
    singles = [
        PackedMNRLoss(model, temperature=0.05, chunk_rows=8)(
            *packed(model, ANCHORS[:1], [POSITIVES[row], NEGATIVES[0]])
        )
        for row in range(2)
    ]
    torch.testing.assert_close(found, sum(singles) / 2)


def test_triplet_is_the_mean_over_rows_and_their_own_negatives(model):
    negatives = torch.tensor([[3, 4], [5, -1], [-1, -1]])
    features, labels = packed(model, ANCHORS, POSITIVES + NEGATIVES, negatives=negatives)
    found = PackedTripletLoss(model, margin=0.9)(features, labels)
    embed = torch.nn.functional.normalize
    anchors, passages = (
        embed(torch.as_tensor(model.encode(one)), dim=1) for one in (ANCHORS, POSITIVES + NEGATIVES)
    )
    cosine = anchors @ passages.T
    terms = [
        torch.relu(cosine[row, negative] - cosine[row, row] + 0.9)
        for row, negative in ((0, 3), (0, 4), (1, 5))
    ]
    torch.testing.assert_close(found, torch.stack(terms).mean(), atol=1e-6, rtol=1e-6)
    assert found > 0


def test_triplet_without_negatives_has_a_zero_gradient(model):
    loss = PackedTripletLoss(model, margin=0.3)(*packed(model, ANCHORS, POSITIVES))
    assert loss == 0
    assert not gradient(model, loss).any()

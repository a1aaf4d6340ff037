"""The losses against naive float64 code and against sentence-transformers."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers.sentence_transformer.losses import (
    MatryoshkaLoss,
    MultipleNegativesRankingLoss,
)

from stx_mine.models.load import load_model
from stx_mine.models.token_batches import call_tokens, token_batches
from stx_mine.models.tokenise import Tokeniser
from stx_mine.stages.train.losses.cross_entropy import masked_cross_entropy, own_cross_entropy
from stx_mine.stages.train.losses.embedding import MiniBatches, embed
from stx_mine.stages.train.losses.guide import Guidance
from stx_mine.stages.train.losses.mnr import PackedMNRLoss
from stx_mine.stages.train.losses.own_passages import PackedTripletLoss


def naive(anchors, passages, targets, ignored, scale, weights=None, hardness=0.0, guidance=None):
    losses = []
    for row in range(len(anchors)):
        hidden = set(ignored[1][ignored[0] == row].tolist())
        if guidance is not None:
            scores = guidance.candidates_MD @ guidance.rows_BD[row]
            limit = scores[targets[row]] - guidance.margin
            hidden |= {m for m in range(len(passages)) if scores[m] > limit} - {int(targets[row])}
        logits = []
        for m in set(range(len(passages))) - hidden:
            score = anchors[row] @ passages[m]
            harder = hardness * score.detach() * (m != targets[row])
            logits.append(scale * score + harder + (0 if weights is None else weights[m].log()))
        target = scale * anchors[row] @ passages[targets[row]]
        losses.append(torch.logsumexp(torch.stack(logits), 0) - target)
    return torch.stack(losses).mean()


def guidance_of(generator, num_rows, num_passages, margin):
    """Random unit vectors of another number of dimensions; None without a margin."""
    if margin is None:
        return None
    double = {"dtype": torch.float64, "generator": generator}
    rows, candidates = torch.randn(num_rows, 3, **double), torch.randn(num_passages, 3, **double)
    unit = torch.nn.functional.normalize
    return Guidance(unit(rows, dim=1), unit(candidates, dim=1), margin, torch.zeros(2).long())


@settings(deadline=None, max_examples=50)
@given(
    st.integers(0, 10_000),
    st.integers(1, 9),
    st.integers(1, 12),
    st.floats(0.1, 30),
    st.integers(1, 11),
    st.floats(0, 0.6),
    st.sampled_from([0.0, 4.0]),
    st.booleans(),
    st.sampled_from([None, -0.5, 0.0, 0.5]),
)
def test_the_chunked_loss_is_the_naive_one_in_value_and_gradient(
    seed, num_rows, num_passages, scale, chunk_rows, share, hardness, weighted, margin
):
    generator = torch.Generator().manual_seed(seed)
    double = {"dtype": torch.float64, "generator": generator}
    anchors = torch.randn(num_rows, 5, **double).requires_grad_()
    passages = torch.randn(num_passages, 5, **double).requires_grad_()
    targets = torch.randint(num_passages, (num_rows,), generator=generator)
    mask = torch.rand(num_rows, num_passages, generator=generator) < share
    mask[torch.arange(num_rows), targets] = False
    ignored = mask.nonzero().T
    weights = 0.1 + 5 * torch.rand(num_passages, **double) if weighted else None
    logs = None if weights is None else weights.log()
    guidance = guidance_of(generator, num_rows, num_passages, margin)
    fast = masked_cross_entropy(
        anchors, passages, targets, ignored, scale, chunk_rows, logs, hardness, guidance
    )
    found = torch.autograd.grad(3 * fast, (anchors, passages))
    slow = naive(anchors, passages, targets, ignored, scale, weights, hardness, guidance)
    expected = torch.autograd.grad(3 * slow, (anchors, passages))
    torch.testing.assert_close(fast, slow, atol=1e-9, rtol=1e-9)
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one, two, atol=1e-9, rtol=1e-9)


@settings(deadline=None, max_examples=30)
@given(
    st.integers(0, 10_000),
    st.integers(1, 6),
    st.integers(1, 9),
    st.integers(0, 5),
    st.sampled_from([None, 0.0, 0.5]),
)
def test_the_loss_of_own_negatives_is_the_naive_one(
    seed, num_rows, num_passages, num_shared, margin
):
    """The naive loss with every passage hidden that is neither the row's own nor shared."""
    generator = torch.Generator().manual_seed(seed)
    double = {"dtype": torch.float64, "generator": generator}
    anchors = torch.randn(num_rows, 5, **double).requires_grad_()
    passages = torch.randn(num_passages, 5, **double).requires_grad_()
    targets = torch.randint(num_passages, (num_rows,), generator=generator)
    negatives = torch.full((num_rows, 3), -1)
    hidden = torch.rand(num_rows, num_passages, generator=generator) < 0.3
    shared = torch.randperm(num_passages, generator=generator)[:num_shared].sort().values
    unseen = torch.ones_like(hidden)
    unseen[:, shared] = False
    unseen |= hidden
    for row in range(num_rows):
        own = torch.randperm(num_passages, generator=generator)
        own = own[own != targets[row]][: int(torch.randint(4, (), generator=generator))]
        negatives[row, : len(own)] = own
        hidden[row, own] = unseen[row, own] = False
        hidden[row, targets[row]] = unseen[row, targets[row]] = False
    ignored = hidden.nonzero().T
    guidance = guidance_of(generator, num_rows, num_passages, margin)
    fast = own_cross_entropy(
        anchors, passages, targets, negatives, shared, ignored, 3.0, 4, 2.0, guidance
    )
    found = torch.autograd.grad(fast, (anchors, passages))
    unseen = unseen.nonzero().T
    slow = naive(anchors, passages, targets, unseen, 3.0, hardness=2.0, guidance=guidance)
    expected = torch.autograd.grad(slow, (anchors, passages))
    torch.testing.assert_close(fast, slow, atol=1e-9, rtol=1e-9)
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one, two, atol=1e-9, rtol=1e-9)


@pytest.fixture(scope="module")
def model():
    return load_model("package:wordllama", device="cpu")


def packed(model, queries, passages, **labels):
    tokenise = Tokeniser(model)
    features = [tokenise(queries, "query"), tokenise(passages, "passage")]
    negatives = labels.get("negatives", torch.empty(0))
    defaults = {
        "num_rows": torch.tensor(len(labels.get("targets", queries))),
        "num_anchors": torch.tensor(len(queries)),
        "num_passages": torch.tensor(len(passages)),
        "num_negatives": (negatives >= 0).sum(),
        "anchors": torch.arange(len(queries)),
        "targets": torch.arange(len(queries)),
        "negatives": torch.empty((len(queries), 0), dtype=torch.int64),
        "ignored": torch.empty((2, 0), dtype=torch.int64),
    }
    return features, {**defaults, **labels}


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return [one.grad.clone() for one in model.parameters() if one.grad is not None]


def gradient(model, loss):
    return gradients(model, loss)[0]


ANCHORS = ["a small dog barks", "the train left late", "prices rose again"]
POSITIVES = ["dog: a domestic animal", "train: public transport by rail", "rise: go up"]
NEGATIVES = ["cat: a feline", "bus: a vehicle", "fall: go down"]
TEXTS = POSITIVES + NEGATIVES


def test_without_repeats_it_is_the_library_loss_in_float64(model):
    model = model.to(torch.float64)
    try:
        features, labels = packed(model, ANCHORS, TEXTS)
        ours = PackedMNRLoss(model, temperature=0.05, chunk_rows=2, mini_batches=MiniBatches(64))(
            features, labels
        )
        ours_gradient = gradient(model, ours)
        columns = [model.preprocess(one) for one in (ANCHORS, POSITIVES, NEGATIVES)]
        theirs = MultipleNegativesRankingLoss(model, scale=20.0)(columns, None)
        torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=1e-9)
        torch.testing.assert_close(ours_gradient, gradient(model, theirs), atol=1e-9, rtol=1e-9)
    finally:
        model.to(torch.float32)


@pytest.mark.parametrize("option", ["symmetric", "hardness", "matryoshka", "count"])
def test_an_option_is_that_of_the_library_in_float64(model, option):
    """`count`: passages 0 and 3 stand twice, as positive and as negative."""
    model = model.to(torch.float64)
    columns, ours, theirs = [ANCHORS, POSITIVES, NEGATIVES], {}, {}
    texts, labels = TEXTS, {}
    if option == "symmetric":
        ours = {"symmetric": True}
        theirs = {"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction"}
    elif option == "hardness":
        ours = {"hardness": 5.0}
        theirs = {"hardness_mode": "all_negatives", "hardness_strength": 5.0}
    elif option == "matryoshka":
        ours = {"dims": (16, 64, 256)}
    else:
        texts = [*POSITIVES[:2], *NEGATIVES[:2]]
        columns = [ANCHORS, [texts[0], texts[1], texts[0]], [texts[2], texts[3], texts[2]]]
        counts = torch.tensor([2.0, 1.0, 2.0, 1.0], dtype=torch.float64)
        labels = {"targets": torch.tensor([0, 1, 0]), "passage_log_weights": counts.log()}
    try:
        found = PackedMNRLoss(model, 0.05, 2, 64, **ours)(
            *packed(model, ANCHORS, texts, ignored_anchors=torch.empty(2, 0).long(), **labels)
        )
        found_gradient = gradient(model, found)
        loss = MultipleNegativesRankingLoss(model, scale=20.0, **theirs)
        if option == "matryoshka":
            loss = MatryoshkaLoss(model, loss, [16, 64, 256])
        expected = loss([model.preprocess(one) for one in columns], None)
        torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-9)
        torch.testing.assert_close(found_gradient, gradient(model, expected), atol=1e-9, rtol=1e-9)
    finally:
        model.to(torch.float32)


def test_a_masked_passage_does_not_count(model):
    loss = PackedMNRLoss(model, temperature=0.05, chunk_rows=8, mini_batches=MiniBatches(64))
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
    found = PackedMNRLoss(model, temperature=0.05, chunk_rows=8, mini_batches=MiniBatches(64))(
        features, labels
    )
    singles = [
        PackedMNRLoss(model, temperature=0.05, chunk_rows=8, mini_batches=MiniBatches(64))(
            *packed(model, ANCHORS[:1], [POSITIVES[row], NEGATIVES[0]])
        )
        for row in range(2)
    ]
    torch.testing.assert_close(found, sum(singles) / 2)


@pytest.fixture
def transformer(tiny_transformer):
    return load_model(str(tiny_transformer), device="cpu")


@pytest.mark.parametrize("padding_side", ["right", "left"])
def test_padding_of_other_texts_is_cut_off(transformer, padding_side):
    transformer.tokenizer.padding_side = padding_side
    tokenise = Tokeniser(transformer)
    found = embed(transformer, tokenise(TEXTS, "passage"), mini_batches=MiniBatches(1))
    alone = [embed(transformer, tokenise([text], "passage"), MiniBatches(1)) for text in TEXTS]
    torch.testing.assert_close(found, torch.cat(alone))


def test_gradient_caching_is_one_forward_pass_in_float64(transformer):
    model = transformer.to(torch.float64).eval()
    negatives = torch.tensor([[3, 4], [5, -1], [3, 5]])
    features, labels = packed(model, ANCHORS, TEXTS, negatives=negatives)
    assert features[1]["attention_mask"].shape[1] > 20
    triplet = partial(PackedTripletLoss, model, 0.9, "cosine", 2)
    for loss in (partial(PackedMNRLoss, model, 0.05, 2), triplet):
        whole = loss(mini_batches=MiniBatches(10_000))(features, labels)
        expected = gradients(model, whole)
        for share in (0.0, 0.25):
            mini_batches = MiniBatches(40, activation_share=share)
            found = loss(mini_batches=mini_batches)(features, labels)
            torch.testing.assert_close(found, whole, atol=1e-9, rtol=1e-9)
            for one, two in zip(gradients(model, found), expected, strict=True):
                torch.testing.assert_close(one, two, atol=1e-9, rtol=1e-9)


def test_gradient_caching_repeats_the_same_dropout(transformer):
    """The second forward pass must see the noise of the first, or its gradient is of another."""
    model = transformer.to(torch.float64).train()
    features = Tokeniser(model)(TEXTS, "passage")
    lengths = features["attention_mask"].sum(1).numpy()
    batches = token_batches(lengths, 40, call_tokens("cpu"))
    assert len(batches) > 2
    torch.manual_seed(5)
    cached = embed(model, features, mini_batches=MiniBatches(40, activation_share=0.0))
    found = gradients(model, (cached**2).sum() + cached.sum())
    torch.manual_seed(5)
    plain = [model(Tokeniser(model)([TEXTS[i] for i in batch], "passage")) for batch in batches]
    embeddings = torch.cat([one["sentence_embedding"] for one in plain])
    expected = gradients(model, (embeddings**2).sum() + embeddings.sum())
    torch.testing.assert_close(cached[np.concatenate(batches)], embeddings)
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one, two, atol=1e-9, rtol=1e-9)

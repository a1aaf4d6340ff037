"""Word embeddings that all mini-batches of a step look up together."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from stx_mine.models.load import load_model
from stx_mine.models.tokenise import Tokeniser
from stx_mine.stages.train.losses import embedding
from stx_mine.stages.train.losses.embedding import MiniBatches, embed
from stx_mine.stages.train.losses.shared_lookup import SharedLookup, shared_lookup

WORDS = "a small dog barks at the train that left late while prices rose again".split()
TEXTS = [" ".join(WORDS[n % 5 : n % 5 + 1 + n % 9]) + f" {n}" for n in range(40)]


class DenseGradients(TorchDispatchMode):
    """Rows of every gradient of a lookup."""

    def __init__(self):
        super().__init__()
        self.rows = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten.embedding_dense_backward.default:
            self.rows.append(args[2])
        return function(*args, **(kwargs or {}))


@pytest.fixture
def model(tiny_transformer):
    return load_model(str(tiny_transformer), device="cpu").train()


@pytest.fixture
def table(model):
    return model[0].auto_model.get_input_embeddings()


def step(model, share):
    """Embeddings, gradients by name, and rows of the gradients of lookups."""
    torch.manual_seed(7)
    model.zero_grad()
    embeddings = embed(model, Tokeniser(model)(TEXTS, "passage"), MiniBatches(48, share))
    with DenseGradients() as made:
        embeddings.sin().sum().backward()
    gradients = {
        name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None
    }
    return embeddings.detach(), gradients, made.rows


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_one_lookup_has_the_gradient_of_many(model, table, share, monkeypatch):
    found, gradients, rows = step(model, share)
    assert rows.count(table.num_embeddings) == 1
    assert not table._forward_hooks
    monkeypatch.setattr(embedding, "shared_lookup", lambda *_: nullcontext())
    expected, others, rows = step(model, share)
    assert rows.count(table.num_embeddings) > 10
    assert torch.equal(found, expected)
    assert gradients.keys() == others.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, others[name], rtol=1e-5, atol=1e-6)
    assert not gradients["0.model.embeddings.word_embeddings.weight"][table.padding_idx].any()


def test_tokens_that_no_text_has_are_looked_up_as_ever(table):
    tokens = torch.tensor([[5, 7], [7, 0]])
    with SharedLookup(table, tokens):
        assert torch.equal(table(tokens + 1), table.weight[tokens + 1])
        table(tokens + 1).sum().backward()
    assert table.weight.grad[[6, 8, 1]].abs().sum(1).gt(0).all()


def test_a_table_that_is_not_trained_or_does_more_is_left_alone(model, table):
    features = Tokeniser(model)(TEXTS, "passage")
    assert isinstance(shared_lookup(model, features), SharedLookup)
    table.max_norm = 1.0
    assert not isinstance(shared_lookup(model, features), SharedLookup)
    table.max_norm = None
    table.requires_grad_(False)
    assert not isinstance(shared_lookup(model, features), SharedLookup)
    table.requires_grad_(True)

    class Scaled(nn.Embedding):
        """As some networks have it."""

        def forward(self, tokens):
            return 2 * super().forward(tokens)

    scaled = Scaled(table.num_embeddings, table.embedding_dim)
    model[0].auto_model.set_input_embeddings(scaled)
    assert not isinstance(shared_lookup(model, features), SharedLookup)

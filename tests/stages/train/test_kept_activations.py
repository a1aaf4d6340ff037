"""Activations that are kept, and mini-batches that go through the network again."""

import platform

import psutil
import pytest
import torch

from stx_mine.models import memory
from stx_mine.models.load import load_model
from stx_mine.models.memory import free_memory
from stx_mine.models.tokenise import Tokeniser
from stx_mine.stages.train.losses import embedding
from stx_mine.stages.train.losses.embedding import KeptBytes, MiniBatches, embed

WORDS = "a small dog barks at the train that left late while prices rose again".split()
TEXTS = [" ".join(WORDS[n % 5 : n % 5 + 1 + n % 9]) + f" {n}" for n in range(40)]
TOKENS = 48


@pytest.fixture
def model(tiny_transformer):
    return load_model(str(tiny_transformer), device="cpu").train()


def step(model, mini_batches, precision=None):
    """Embeddings, gradients, and how often a mini-batch went through the network."""
    calls = []
    handle = model.register_forward_pre_hook(lambda *_: calls.append(1))
    torch.manual_seed(7)
    model.zero_grad()
    with torch.autocast("cpu", precision, enabled=precision is not None):
        embeddings = embed(model, Tokeniser(model)(TEXTS, "passage"), mini_batches)
    embeddings.float().sin().sum().backward()
    handle.remove()
    gradients = [one.grad.clone() for one in model.parameters() if one.grad is not None]
    return [embeddings.detach(), *gradients], len(calls)


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
def test_what_is_kept_changes_no_number(model, precision, monkeypatch):
    expected, twice = step(model, MiniBatches(TOKENS, activation_share=0.0), precision)
    assert twice > 10
    found, once = step(model, MiniBatches(TOKENS, activation_share=0.5), precision)
    assert 2 * once == twice
    # Room for some of them.
    features = Tokeniser(model)(TEXTS[:1], "passage")
    kept = KeptBytes(model)
    with kept:
        embed(model, features, MiniBatches(TOKENS))
    size = kept.total / features["attention_mask"].sum().item() * TOKENS
    monkeypatch.setattr(embedding, "free_memory", lambda device: 8 * size)
    some, calls = step(model, MiniBatches(TOKENS, activation_share=0.5), precision)
    assert once < calls < twice
    for other in (found, some):
        assert len(other) == len(expected) > 10
        for one, two in zip(other, expected, strict=True):
            assert torch.equal(one, two)


def test_bytes_that_are_kept_grow_with_the_texts(model):
    totals = []
    for texts in (TEXTS[:1] * 10, TEXTS[:1] * 20):
        kept = KeptBytes(model)
        with kept:
            embeddings = embed(model, Tokeniser(model)(texts, "passage"), MiniBatches(10_000))
        totals.append(kept.total)
        embeddings.sum().backward()
    assert 1.8 < totals[1] / totals[0] < 2.1


def test_processes_of_a_machine_share_its_memory(monkeypatch):
    cpu = torch.device("cpu")
    monkeypatch.setattr(embedding, "free_memory", lambda device: 8_000)
    assert MiniBatches(10).room(cpu) == 2_000
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert MiniBatches(10).room(cpu) == 500


def test_free_memory_heeds_the_limit_of_a_group(tmp_path, monkeypatch):
    cpu = torch.device("cpu")
    limit, used = tmp_path / "memory.max", tmp_path / "memory.current"
    monkeypatch.setattr(memory, "_GROUP_FILES", ((limit, used),))
    there = psutil.virtual_memory().available
    assert free_memory(cpu) == pytest.approx(there, rel=0.2)
    limit.write_text("max\n")
    used.write_text("1000\n")
    assert free_memory(cpu) == pytest.approx(there, rel=0.2)
    limit.write_text("5000\n")
    assert free_memory(cpu) == 4_000
    used.write_text("6000\n")
    assert free_memory(cpu) == 0


def test_a_device_that_does_not_tell_keeps_nothing():
    assert free_memory(torch.device("meta")) == 0


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps what is freed")
def test_freed_memory_goes_back_to_the_system():
    process, size = psutil.Process(), 64_000
    blocks = [bytearray(size) for _ in range(4_000)]
    # What lies behind the others keeps them from going back by themselves.
    kept = blocks[-1:]
    before = process.memory_info().rss
    del blocks
    memory.give_back_memory()
    assert before - process.memory_info().rss > 0.7 * 4_000 * size
    assert len(kept[0]) == size

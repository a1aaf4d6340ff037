"""Mini-batches of texts by their lengths."""

import time
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stx_mine.models.token_batches import call_tokens, token_batches

CALLS = st.one_of(st.none(), st.integers(0, 200))


@settings(deadline=None)
@given(st.lists(st.integers(0, 600), max_size=60), st.integers(1, 2_000), CALLS)
def test_they_hold_every_text_once_within_the_budget(lengths, budget, call):
    batches = token_batches(np.array(lengths, np.int64), budget, call)
    found = np.concatenate(batches) if batches else np.empty(0)
    assert sorted(found.tolist()) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[text] for text in batch)
        assert longest == lengths[batch[0]]
        assert len(batch) * longest <= budget or len(batch) == 1
    heads = [lengths[batch[0]] for batch in batches]
    assert heads == sorted(heads, reverse=True)


def cost(lengths, batches, call):
    """Tokens, padding included, and what every mini-batch costs beside them."""
    return sum(len(batch) * max(lengths[text] for text in batch) + call for batch in batches)


def least_cost(lengths, call):
    """Over all ways to cut the texts, from the longest to the shortest."""
    falling = sorted(lengths, reverse=True)

    @cache
    def rest(start):
        if start == len(falling):
            return 0
        return min(
            (end - start) * falling[start] + call + rest(end)
            for end in range(start + 1, len(falling) + 1)
        )

    return rest(0)


@settings(deadline=None)
@given(st.lists(st.integers(1, 64), min_size=1, max_size=12), st.integers(0, 100))
def test_nothing_costs_less_where_all_texts_fit_into_one(lengths, call):
    batches = token_batches(np.array(lengths), 64 * 12, call)
    assert cost(lengths, batches, call) == least_cost(lengths, call)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("budget", [512, 2_048, 32_768])
def test_real_lengths_are_padded_little(device, budget):
    """Lengths of sentences and of paragraphs; a mini-batch that costs much is not cut."""
    random = np.random.default_rng(0)
    lengths = np.clip(random.lognormal(3.2, 0.7, 5_000).astype(np.int64), 4, 256)
    call = call_tokens(device)
    full, cut = token_batches(lengths, budget), token_batches(lengths, budget, call)
    assert cost(lengths, cut, call) <= cost(lengths, full, call)
    if device == "cpu":
        assert cost(lengths, cut, 0) < 1.06 * lengths.sum()


def test_cuts_of_many_texts_are_found_at_once():
    lengths = np.random.default_rng(0).integers(1, 8_192, 300_000)
    started = time.process_time()
    batches = token_batches(lengths, 32_768, 64)
    assert sum(len(batch) for batch in batches) == len(lengths)
    assert time.process_time() - started < 2

"""Cropped queries (inverse cloze): sentences of a passage, and the passage without them.

Source: Lee, Chang, Toutanova 2019, "Latent Retrieval for Weakly Supervised Open Domain Question
Answering". They remove nine sentences of ten; here the caller gives the fraction.
"""

from bisect import bisect_left, bisect_right
from itertools import accumulate

import numpy as np

from stx_mine.core.random import mix
from stx_mine.core.terms import Span, num_words, sentences, terms, word_counts

# Each kind of draw counts in a range of its own.
_ORDER, _PLACE, _REMOVE = 0, 1 << 32, 2 << 32


def crop(
    text: str, num_queries: int, min_words: int, max_words: int, seed: int, key: int
) -> list[Span]:
    """Draw sentences of a passage.

    Args:
        text: The passage.
        num_queries: How many to draw, at most.
        min_words: Shorter sentences are not drawn.
        max_words: Of a longer sentence a part of so many words is taken.
        seed: Seed.
        key: Number of the passage, uint64; draws depend on (seed, key) only.

    Returns:
        Distinct places, in the order drawn. Where a passage has one sentence only, or none of
        `min_words`, parts of the passage of half its words; none where it has fewer than twice
        `min_words`.
    """
    found = sentences(text)
    long_enough = [one for one in found if num_words(text[one[0] : one[1]]) >= min_words]
    if len(found) < 2 or not long_enough:
        half = min(int(num_words(text) / 2), max_words)
        if half < min_words:
            return []
        whole = (found[0][0], found[-1][1])
        drawn = [_part(text, whole, half, seed, key, n) for n in range(num_queries)]
    else:
        order = sorted(range(len(long_enough)), key=lambda n: _draw(seed, key, _ORDER + n))
        drawn = [_part(text, long_enough[n], max_words, seed, key, n) for n in order[:num_queries]]
    return list(dict.fromkeys(drawn))


def is_removed(fraction: float, seed: int, key: int) -> bool:
    """Whether a passage is of the fraction, in [0, 1], that loses what was cropped from it."""
    return _uniform(seed, key, _REMOVE) < fraction


def _part(text: str, span: Span, max_words: int, seed: int, key: int, number: int) -> Span:
    """A place of at most `max_words` within another, at random; the whole if it is no longer."""
    inside = text[span[0] : span[1]]
    spans = terms(inside)
    words = [0.0, *accumulate(word_counts(inside, spans))]
    if words[-1] <= max_words:
        return span
    last_start = bisect_right(words, words[-1] - max_words) - 1
    start = int(_uniform(seed, key, _PLACE + number) * (last_start + 1))
    end = bisect_left(words, words[start] + max_words)
    if words[end] > words[start] + max_words:
        end -= 1
    return span[0] + spans[start][0], span[0] + spans[end - 1][1]


def _draw(seed: int, key: int, number: int) -> int:
    return int(mix(np.uint64(seed), np.uint64(key), np.uint64(number)))


def _uniform(seed: int, key: int, number: int) -> float:
    """A number in [0, 1)."""
    return (_draw(seed, key, number) >> 11) * 2.0**-53

"""Cut a long text into chunks of so many tokens that overlap, at words and sentences.

Everything here counts tokens; where they stand in the text is the caller's affair.

Shape letters: T tokens of a text, C chunks.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# What may begin with a token: nothing (it is a later part of a character), a character, a word,
# a sentence.
INSIDE, CHARACTER, WORD, SENTENCE = 0, 1, 2, 3


@dataclass(frozen=True)
class _Breaks:
    """Tokens with which something begins, rising."""

    characters: NDArray[np.int64]
    words: NDArray[np.int64]
    sentences: NDArray[np.int64]

    def end(self, low: int, high: int, limit: int) -> int | None:
        """The end of a chunk in (low, high] that splits no word; None if there is none.

        That of a sentence where one ends in the last quarter of the chunk.
        """
        for breaks, lowest in ((self.sentences, high - limit // 4), (self.words, low)):
            place = int(np.searchsorted(breaks, high, "right")) - 1
            if place >= 0 and breaks[place] > max(low, lowest):
                return int(breaks[place])
        return None

    def end_inside_word(self, low: int, high: int) -> int:
        place = int(np.searchsorted(self.characters, high, "right")) - 1
        found = int(self.characters[place])
        return found if found > low else high

    def start(self, low: int, high: int) -> int:
        """The first word in [low, high] to begin a chunk with, or else the first character."""
        for breaks in (self.words, self.characters):
            place = int(np.searchsorted(breaks, low))
            if place < len(breaks) and breaks[place] <= high:
                return int(breaks[place])
        return high


def cut(breaks_T: NDArray[np.int8], limit: int, overlap: int) -> NDArray[np.int64]:
    """Cut a text into chunks.

    A chunk takes as many whole words as fit, up to the end of a sentence where one ends in its
    last quarter, and the next begins at a word at most `overlap` tokens before its end. Where the
    next word does not fit behind the overlap, there is none; a word is split only if it is longer
    than a chunk.

    Args:
        breaks_T: int8 (T,) what begins with each token: INSIDE, CHARACTER, WORD or SENTENCE.
        limit: Tokens of a chunk, at most; at least 1.
        overlap: Tokens of a chunk that the next one repeats, at most; below `limit`.

    Returns:
        int64 (C, 2) first token and token after the last of each chunk; both rise, the first chunk
        begins with token 0, the last ends with the text, and no token is between two chunks.
    """
    found = _Breaks(*(np.flatnonzero(breaks_T >= kind) for kind in (CHARACTER, WORD, SENTENCE)))
    chunks, first, end, total = list[tuple[int, int]](), 0, 0, len(breaks_T)
    while total - first > limit:
        stop = found.end(max(first, end), first + limit, limit)
        if stop is None and first < end:
            first = end
            continue
        if stop is None:
            stop = found.end_inside_word(first, first + limit)
        chunks.append((first, stop))
        first, end = found.start(max(stop - overlap, first + 1), stop), stop
    return np.array([*chunks, (first, total)], np.int64)

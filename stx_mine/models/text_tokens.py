"""Texts to token ids in flat arrays, ahead of the model and in parallel with it.

The tokenizer is the model's own (a fast one), with its truncation and without its padding, so that
texts can be sorted by their true length before anything is padded.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from operator import attrgetter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from stx_mine.core.ahead import ahead
from stx_mine.core.ragged import offsets_of, places_of
from stx_mine.core.reach import within_reach

# One call of the tokenizer: enough for all cores, little enough that its objects stay small.
_CHUNK_TEXTS, _CHUNK_BYTES = 16_384, 1 << 22
_AHEAD = 2


@dataclass(frozen=True)
class TextTokens:
    """The token ids of consecutive texts, or pairs of texts.

    Attributes:
        ids: int32 (tokens,), one text after the other, special tokens included.
        offsets: int64 (texts + 1,): where each text begins, and where the last one ends.
        lost: int32 (texts,) tokens of each text beyond the limit.
        types: int8 (tokens,) the type id of each token, which tells the texts of a pair apart; None
            where all are 0.
    """

    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]
    lost: NDArray[np.int32]
    types: NDArray[np.int8] | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """int64 (texts,): tokens of each text."""
        return np.diff(self.offsets)

    def take(self, rows: NDArray[np.int64]) -> "TextTokens":
        """The tokens of some texts."""
        offsets = offsets_of(self.lengths[rows])
        places = places_of(self.offsets[rows], offsets)
        types = None if self.types is None else self.types[places]
        return TextTokens(self.ids[places], offsets, self.lost[rows], types)

    @classmethod
    def joined(cls, parts: "list[TextTokens]") -> "TextTokens":
        """The tokens of several runs of texts as those of one."""
        lengths = [part.lengths for part in parts]
        return cls(
            np.concatenate([np.empty(0, np.int32), *(part.ids for part in parts)]),
            offsets_of(np.concatenate([np.empty(0, np.int64), *lengths])),
            np.concatenate([np.empty(0, np.int32), *(part.lost for part in parts)]),
        )


@dataclass(frozen=True)
class TextTokenizer:
    """Tokenises texts as a model does, many at a time.

    Attributes:
        tokenizer: A fast tokenizer without padding; truncates at the model's limit.
        special_tokens: Whether it adds them.
    """

    tokenizer: Tokenizer
    special_tokens: bool

    def chunks(self, texts: pa.ChunkedArray, prompt: str) -> Iterator[tuple[int, TextTokens]]:
        """Tokens of consecutive texts, a chunk ahead of whoever reads them.

        Args:
            texts: Large strings without nulls.
            prompt: Put before each.

        Yields:
            Number of the first text of a chunk, and its tokens.
        """
        spans = [(one, two - one) for one, two in pairwise(_chunk_starts(texts))]
        with ThreadPoolExecutor(1) as threads:
            encoded = ahead(lambda span: self._encode(texts, prompt, *span), spans, threads, _AHEAD)
            for (start, _), encodings in zip(spans, encoded, strict=True):
                yield start, self._flat(encodings)

    def __call__(self, texts: pa.ChunkedArray, prompt: str) -> TextTokens:
        """Tokens of all texts, each with the prompt before it."""
        return TextTokens.joined([tokens for _, tokens in self.chunks(texts, prompt)])

    def pairs(self, first: pa.Array, second: pa.Array) -> TextTokens:
        """Tokens of pairs of texts, with their types.

        Args:
            first: (N,) large strings without nulls.
            second: (N,) likewise.
        """
        found: list[Encoding] = self.tokenizer.encode_batch_fast(
            text_pairs(first, second), add_special_tokens=self.special_tokens
        )
        tokens = self._flat(found)
        types = chain.from_iterable(map(attrgetter("type_ids"), found))
        return replace(tokens, types=np.fromiter(types, np.int8, len(tokens.ids)))

    def _encode(
        self, texts: pa.ChunkedArray, prompt: str, start: int, count: int
    ) -> list[Encoding]:
        words = within_reach(texts.slice(start, count).to_pylist())
        if prompt:
            words = [prompt + word for word in words]
        found: list[Encoding] = self.tokenizer.encode_batch_fast(
            words, add_special_tokens=self.special_tokens
        )
        return found

    def _flat(self, encodings: list[Encoding]) -> TextTokens:
        lengths = np.fromiter(map(len, encodings), np.int64, len(encodings))
        offsets = offsets_of(lengths)
        ids = chain.from_iterable(map(attrgetter("ids"), encodings))
        values = np.fromiter(ids, np.int32, int(offsets[-1]))
        return TextTokens(values, offsets, self._lost(encodings, lengths))

    def _lost(self, encodings: list[Encoding], lengths: NDArray[np.int64]) -> NDArray[np.int32]:
        lost = np.zeros(len(encodings), np.int32)
        truncation = self.tokenizer.truncation
        if truncation is None:
            return lost
        added = self.tokenizer.num_special_tokens_to_add(False) if self.special_tokens else 0
        for row in np.flatnonzero(lengths >= truncation["max_length"]):
            beyond = encodings[row].overflowing
            lost[row] = sum(len(one) - added for one in beyond)
        return lost


def text_pairs(first: pa.Array, second: pa.Array) -> list[tuple[str, str]]:
    """Pairs of texts as models are given them."""
    both = (within_reach(texts.to_pylist()) for texts in (first, second))
    return list(zip(*both, strict=True))


def _chunk_starts(texts: pa.ChunkedArray) -> list[int]:
    """Where each chunk begins, and where the last one ends."""
    size = pc.binary_length(texts).to_numpy()
    by_bytes = np.cumsum(size) // _CHUNK_BYTES
    by_count = np.arange(len(texts)) // _CHUNK_TEXTS
    new = np.flatnonzero((np.diff(by_bytes, prepend=-1) > 0) | (np.diff(by_count, prepend=-1) > 0))
    return [*new.tolist(), len(texts)]

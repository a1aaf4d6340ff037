"""Cut passages into chunks by the tokens of the model that will embed them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import xxhash
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from stx_mine.core.terms import Span, sentences, unspaced_places
from stx_mine.errors import ConfigError, ModelError
from stx_mine.models.config import AS_IT_IS, Reading
from stx_mine.stages.ingest.core.chunks import CHARACTER, INSIDE, SENTENCE, WORD, cut

# A character may be several tokens, and a title takes half of a chunk at most.
_LEAST = 10


@dataclass(frozen=True)
class Pieces:
    """The chunks of some passages.

    Attributes:
        chunks: The chunks of each passage, in order; the passage itself where it was not cut.
        num_tokens: Tokens of each passage, as a whole.
    """

    chunks: list[list[str]]
    num_tokens: list[int]


@dataclass(frozen=True)
class Chunker:
    """Cuts passages that are longer than a number of tokens.

    Attributes:
        tokenizer: Neither truncates nor pads.
        limit: Tokens of a chunk of text, at most.
        overlap: Tokens of a chunk that the next one repeats, at most.
        around: Tokens that the model adds to a text: special ones, and the longest prompt.
        model_limit: Tokens of a text that the model reads; None for all.
    """

    tokenizer: Tokenizer
    limit: int
    overlap: int
    around: int
    model_limit: int | None

    @classmethod
    def load(
        cls,
        name: str,
        tokens: int,
        overlap: int,
        prompts: Sequence[str | None] = (None,),
        max_length: int | None = None,
        reading: Reading = AS_IT_IS,
    ) -> "Chunker":
        """Load the tokenizer of a model.

        Args:
            name: The model, as `load_model` takes it.
            tokens: Tokens of a chunk as the model reads it, with its prompt and special tokens.
            overlap: Tokens that the next chunk repeats, at most.
            prompts: Prompts of passages; None is the model's own.
            max_length: Tokens of a text that will be kept; None for the model's own limit.
            reading: How its files are read.

        Raises:
            ModelError: The model cannot be loaded, or has no fast tokenizer.
            ConfigError: A chunk does not fit into the model, or nothing into a chunk.
        """
        # Frameworks are slow to load, and only tokens need them.
        from stx_mine.models.encoder import token_limit
        from stx_mine.models.load import is_static, load_model
        from stx_mine.models.tokenise import role_prompt

        model = load_model(name, "cpu", max_length, reading=reading)
        static = is_static(model)
        backend = model.tokenizer if static else getattr(model.tokenizer, "backend_tokenizer", None)
        if not isinstance(backend, Tokenizer):
            raise ModelError(
                f"--chunk needs a model with a tokenizer of the library tokenizers, {name!r} has "
                "none; name another by --tokenizer, or leave --chunk out"
            )
        tokenizer = Tokenizer.from_str(backend.to_str())
        tokenizer.no_truncation()
        tokenizer.no_padding()
        own = role_prompt(model, "passage")
        before = [own if prompt is None else prompt for prompt in prompts]
        encoded = [len(tokenizer.encode(one or "", add_special_tokens=False)) for one in before]
        special = 0 if static else tokenizer.num_special_tokens_to_add(is_pair=False)
        around = special + max(encoded)
        limit = token_limit(model)
        if limit is not None and tokens > limit:
            raise ConfigError(
                f"--chunk {tokens},{overlap} makes chunks of {tokens} tokens, the model {name!r} "
                f"reads {limit}; give --chunk {limit},{min(overlap, limit // 4)} or a larger "
                "--max-length"
            )
        if tokens - around <= max(overlap, _LEAST):
            raise ConfigError(
                f"--chunk {tokens},{overlap} leaves {tokens - around} tokens of text beside prompt "
                f"and special tokens, it needs more than {max(overlap, _LEAST)}; give more tokens "
                "or less overlap"
            )
        return cls(tokenizer, tokens - around, overlap, around, limit)

    def digest(self) -> str:
        """Digest in hex of whatever decides the chunks beside their sizes."""
        content = f"{self.around} {self.tokenizer.to_str()}"
        return str(xxhash.xxh3_128_hexdigest(content.encode()))

    def count(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """int64: tokens of each text, without what the model adds."""
        return np.array([len(one) for one in self._encode(texts)], np.int64)

    def cut(self, texts: Sequence[str], prefixes: Sequence[str]) -> Pieces:
        """Cut the passages of more than `limit` tokens.

        Args:
            texts: The passages.
            prefixes: How each begins; repeated before each of its chunks; may be empty. A prefix of
                more than half of a chunk stands in the first chunk only.
        """
        chunks, counts = [], []
        for text, prefix, encoding in zip(texts, prefixes, self._encode(texts), strict=True):
            counts.append(len(encoding))
            if len(encoding) <= self.limit:
                chunks.append([text])
            else:
                before, spans = self.spans(text, prefix, encoding)
                chunks.append([before + text[first:last] for first, last in spans])
        return Pieces(chunks, counts)

    def spans(self, text: str, prefix: str, encoding: Encoding) -> tuple[str, list[Span]]:
        """The places of the chunks of one text, without the white space around them.

        Args:
            text: The text.
            prefix: How it begins; repeated before each of its chunks.
            encoding: Its tokens.

        Returns:
            What stands before each chunk (the prefix, or nothing), and the places of the chunks
            behind it.
        """
        in_prefix = len(self._encode([prefix])[0])
        if in_prefix > self.limit // 2:
            prefix, in_prefix = "", 0
        body = text[len(prefix) :]
        offsets = np.array(encoding.offsets, np.int64).reshape(-1, 2) - len(prefix)
        starts, breaks = _breaks(body, np.maximum(offsets[offsets[:, 1] > 0], 0))
        room = self.limit - in_prefix
        while True:
            spans = _bare(body, starts, cut(breaks, room, min(self.overlap, room - 1)))
            # A slice may have other tokens than stood there in the whole.
            sizes = self.count([prefix + body[first:last] for first, last in spans])
            excess = int(sizes.max()) - self.limit
            if excess <= 0 or room == 1:
                return prefix, [(len(prefix) + one, len(prefix) + two) for one, two in spans]
            room = max(1, room - excess)

    def _encode(self, texts: Sequence[str]) -> list[Encoding]:
        return self.tokenizer.encode_batch(list(texts), add_special_tokens=False)


def _bare(text: str, starts: NDArray[np.int64], chunks: NDArray[np.int64]) -> list[Span]:
    """Places of chunks of tokens, without the white space around them; blank ones are none."""
    places = np.append(starts, len(text))
    places[0] = 0
    found = []
    for first, last in places[chunks].tolist():
        piece = text[first:last]
        if bare := piece.strip():
            start = first + len(piece) - len(piece.lstrip())
            found.append((start, start + len(bare)))
    return found


def _breaks(text: str, offsets: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int8]]:
    """Where each token begins in the text, and what begins with it.

    A word is what stands between white space, or a character of a script without spaces.

    Args:
        text: The text.
        offsets: int64 (T, 2) place of each token in it.
    """
    starts, before = offsets[:, 0], np.append(-1, offsets[:-1, 0])
    ends = np.append(0, np.maximum.accumulate(offsets[:-1, 1]))
    breaks = np.where((starts > before) & (starts >= ends), CHARACTER, INSIDE).astype(np.int8)
    letters = np.frombuffer(text.encode("utf-32-le"), "<U1")
    is_space = np.char.isspace(letters)
    after_space = np.append(True, is_space[:-1])
    begins_word = is_space | after_space | unspaced_places(text)
    breaks[(breaks == CHARACTER) & begins_word[np.minimum(starts, len(text) - 1)]] = WORD
    for first, _ in sentences(text):
        token = int(np.searchsorted(starts, first, "right")) - 1
        token = int(np.searchsorted(starts, starts[token])) if token >= 0 else 0
        if breaks[token] == WORD and not text[starts[token] : first].strip():
            breaks[token] = SENTENCE
    return starts.copy(), breaks


def in_blocks(
    texts: Iterable[str], prefixes: Iterable[str], most: int
) -> Iterator[tuple[list[str], list[str]]]:
    """Yield blocks of (texts, prefixes) of about `most` characters."""
    block: tuple[list[str], list[str]] = [], []
    size = 0
    for text, prefix in zip(texts, prefixes, strict=True):
        block[0].append(text)
        block[1].append(prefix)
        size += len(text)
        if size >= most:
            yield block
            block, size = ([], []), 0
    if block[0]:
        yield block

"""Tokenise a text that training reads again and again once, within a limit of memory.

A batch of 32,768 rows with 8 negatives has some 94,000 distinct texts. Most of them stand in the
next batches and in every epoch again, and tokenising is most of the time that making a batch takes.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from stx_mine.models.text_tokens import TextTokens
from stx_mine.models.token_inputs import TokenInputs
from stx_mine.models.tokenise import AnyRole, Tokeniser

# Bytes of texts and token ids, for each role and prompt.
_LIMIT = 1 << 30


@dataclass
class KnownTokens:
    """The token ids of the texts met so far, of one role with one prompt.

    Attributes:
        inputs: Tokenises new texts, and makes inputs of token ids.
        limit: Bytes of texts and ids; once they are more, all are forgotten.
    """

    inputs: TokenInputs
    limit: int = _LIMIT
    _rows: dict[str, int] = field(init=False, default_factory=dict)
    _tokens: TextTokens = field(init=False, default_factory=lambda: TextTokens.joined([]))
    _text_bytes: int = field(init=False, default=0)

    def __call__(self, texts: list[str]) -> dict[str, Any]:
        """Model inputs of texts."""
        if self._text_bytes + self._tokens.ids.nbytes > self.limit:
            self._rows, self._tokens, self._text_bytes = {}, TextTokens.joined([]), 0
        self._learn([text for text in texts if text not in self._rows])
        rows = np.fromiter(map(self._rows.__getitem__, texts), np.int64, len(texts))
        return self.inputs.batch(self._tokens.take(rows))

    def _learn(self, texts: list[str]) -> None:
        if not texts:
            return
        first = len(self._tokens)
        new = pa.array(dict.fromkeys(texts), pa.large_string())
        self._tokens = TextTokens.joined(
            [self._tokens, self.inputs.tokens(pa.chunked_array([new]))]
        )
        self._rows |= {text: first + row for row, text in enumerate(new.to_pylist())}
        self._text_bytes += new.nbytes


@dataclass
class RememberingTokeniser:
    """A `Tokeniser` that knows the texts it has met, where token ids are all that a model takes.

    Attributes:
        tokenise: What it does the same as.
        limit: Bytes to keep for each role and prompt.
    """

    tokenise: Tokeniser
    limit: int = _LIMIT
    _known: dict[tuple[AnyRole, str | None], KnownTokens | None] = field(
        init=False, default_factory=dict
    )

    def __call__(
        self, texts: list[str], role: AnyRole, prompt: str | None = None
    ) -> dict[str, Any]:
        """Model inputs of texts, as those of `Tokeniser`."""
        if (role, prompt) not in self._known:
            self._known[role, prompt] = self._opened(texts, role, prompt)
        known = self._known[role, prompt]
        return self.tokenise(texts, role, prompt) if known is None else known(texts)

    def _opened(self, texts: list[str], role: AnyRole, prompt: str | None) -> KnownTokens | None:
        # Fixed widths are the tokenizer's own doing.
        if self.tokenise.pad_to is not None:
            return None
        sample = pa.chunked_array([pa.array(texts, pa.large_string())])
        inputs = TokenInputs.of(self.tokenise.model, role, prompt, sample)
        return None if inputs is None else KnownTokens(inputs, self.limit)

"""Lexical search: BM25 through the library bm25s."""

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stx_mine.errors import ConfigError

_WORD = r"(?u)\b\w+\b"


@dataclass(frozen=True)
class Bm25Searcher:
    """BM25 (Lucene's form, k1 1.5, b 0.75) over lower-cased words, no stop words, no stemming.

    Attributes:
        index: The bm25s index.
        num_passages: Size of the corpus.
    """

    index: Any
    num_passages: int

    @classmethod
    def build(cls, passages: Iterator[str]) -> "Bm25Searcher":
        """Index all passages.

        Raises:
            ConfigError: The library is not installed.
        """
        if importlib.util.find_spec("bm25s") is None:
            raise ConfigError(
                "--sources bm25 needs the package bm25s, found none; "
                "run `pip install 'stx-mine[bm25]'`"
            )
        import bm25s

        words = bm25s.tokenize(
            list(passages), token_pattern=_WORD, stopwords=[], show_progress=False
        )
        index = bm25s.BM25()
        index.index(words, show_progress=False)
        return cls(index, len(words.ids))

    def search(self, queries: list[str], num_hits: int) -> NDArray[np.int64]:
        """Passages that share a word with each query, best first.

        Args:
            queries: Q texts.
            num_hits: Hits a query, at most.

        Returns:
            int64 (Q, K) passage ids; -1 pads.
        """
        import bm25s

        words = bm25s.tokenize(
            queries, token_pattern=_WORD, stopwords=[], show_progress=False, return_ids=False
        )
        wanted = min(num_hits, self.num_passages)
        ids_QK, scores_QK = self.index.retrieve(words, k=wanted, show_progress=False)
        return np.where(scores_QK > 0, ids_QK, -1).astype(np.int64)

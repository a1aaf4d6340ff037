"""A function that a person wrote as a judge."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from stx_mine.errors import ModelError
from stx_mine.models.user_function import UserFunction
from stx_mine.stages.embed.token_encoder import Tuning
from stx_mine.stages.judge.judge import Judge, PairScores, PairTexts


@dataclass(frozen=True)
class FunctionJudge(Judge):
    """Scores pairs by a function from a list of (query, passage) to floats.

    Attributes:
        function: It.
    """

    function: UserFunction

    def contract(self) -> dict[str, Any]:
        """Its name, and the source of its module."""
        return {"function": self.function.name, "source": self.function.source_digest()}

    def score(self, pairs: PairTexts, tuning: Tuning | None = None) -> PairScores:
        """What the function says, checked."""
        if not len(pairs):
            return PairScores(np.empty(0, np.float32))
        named = f"{self.function.option} {self.function.name}"
        texts = zip(pairs.queries.to_pylist(), pairs.passages.to_pylist(), strict=True)
        found = self.function(list(texts))
        if found.shape != (len(pairs),) or found.dtype.kind not in "fiub":
            raise ModelError(
                f"expected {len(pairs)} numbers from {named}, one a pair, found {found.dtype} of "
                f"shape {found.shape}; fix the function"
            )
        scores = found.astype(np.float32)
        beyond = scores[(scores < 0) | (scores > 1)]
        if len(beyond):
            raise ModelError(
                f"expected scores from 0 to 1 from {named}, found {beyond[0]:g}; put them through "
                "a sigmoid"
            )
        return PairScores.of_numbers(scores)

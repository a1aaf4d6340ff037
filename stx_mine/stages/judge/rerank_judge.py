"""A reranker behind a server as a judge."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from stx_mine.errors import ModelError
from stx_mine.models.server import ModelServer, settled
from stx_mine.models.server_calls import ServerCalls, refuse_other_model
from stx_mine.stages.embed.token_encoder import Tuning
from stx_mine.stages.judge.judge import (
    Judge,
    PairScores,
    PairTexts,
    PassageList,
    Usage,
    rows_of_queries,
)

# Passages of a request.
_REQUEST_PASSAGES = 64
_PROBE = (
    "how do I undo my last commit?",
    (
        "git reset --soft HEAD~1 takes back the last commit and keeps its changes.",
        "Commits are snapshots of a repository.",
        "The river rose above its banks after three days of rain.",
    ),
)


@dataclass(frozen=True)
class RerankJudge(Judge):
    """Scores the passages of a query (`POST rerank`).

    Attributes:
        server: It.
        scale: Whether its scores are from 0 to 1, or logits.
        earlier: What contracts hold of the scores of probes that lie there from before.
    """

    server: ModelServer
    scale: Literal["unit", "logit"]
    earlier: tuple[object, ...] = field(default=(), compare=False)
    warm_up: ClassVar[int] = 0

    @cached_property
    def _calls(self) -> ServerCalls:
        return ServerCalls(self.server)

    def contract(self) -> dict[str, Any]:
        """Its name and its scores of some passages, since weights can't be seen."""
        return dict(self._contract)

    @cached_property
    def _contract(self) -> dict[str, Any]:
        query, passages = _PROBE
        answer = self.server.post("rerank", {"query": query, "documents": list(passages)})
        scores = self._scores(answer, len(passages)).astype(np.float64)
        return {
            "reranker": self.server.model,
            "answers_as": answer.get("model"),
            "scale": self.scale,
            "probes": settled(scores[None], self.earlier),
        }

    def score(self, pairs: PairTexts, tuning: Tuning | None = None) -> PairScores:
        """A request for up to 64 passages of a query, many at a time."""
        scores = np.full(len(pairs), np.nan, np.float32)
        requests = rows_of_queries(pairs.query_ids, _REQUEST_PASSAGES)
        answers = self.server.map(lambda rows: self._ask(pairs[rows]), requests)
        refused = 0
        for rows, found in zip(requests, answers, strict=True):
            if found is None:
                refused += rows.stop - rows.start
            else:
                scores[rows] = found
        usage = Usage(calls=len(requests), failures=_counted("refused by the server", refused))
        invalid = int((~np.isfinite(scores)).sum()) - refused
        return PairScores(scores, usage + Usage(failures=_counted("NaN", invalid)))

    @property
    def listing(self) -> PassageList:
        """What a request lists."""
        return PassageList(_REQUEST_PASSAGES, with_positives=True)

    def num_characters(self, pairs: PairTexts) -> int:
        """Characters of the texts."""
        texts = [*pairs.queries.to_pylist(), *pairs.passages.to_pylist()]
        return sum(map(len, texts))

    def _ask(self, pairs: PairTexts) -> NDArray[np.float32] | None:
        body = {"query": pairs.queries[0].as_py(), "documents": pairs.passages.to_pylist()}
        answer = self._calls.ask("rerank", body)
        if answer is None:
            return None
        refuse_other_model(self.server, self.contract()["answers_as"], answer)
        return self._scores(answer, len(pairs))

    def _scores(self, answer: dict[str, Any], number: int) -> NDArray[np.float32]:
        """float32 (number,) from 0 to 1."""
        scores = self.server.values_of(
            answer, "results", "a relevance_score", "passages", number, ndim=1
        )
        if self.scale == "logit":
            scores = 1 / (1 + np.exp(-scores))
        beyond = scores[(scores < 0) | (scores > 1)]
        if len(beyond):
            raise ModelError(
                f"expected scores from 0 to 1 from {self.server.name}, found {beyond[0]:g}; say "
                "--score-scale logit to put them through a sigmoid"
            )
        return scores.astype(np.float32)


def _counted(reason: str, number: int) -> dict[str, int]:
    return {reason: number} if number else {}

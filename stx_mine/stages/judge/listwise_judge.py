"""A language model as a judge: a question a query, with a grade of each passage as the answer."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import xxhash
from numpy.typing import NDArray

from stx_mine.models.chats import AnswerError, tokens_of
from stx_mine.stages.embed.token_encoder import Tuning
from stx_mine.stages.judge.judge import (
    Judge,
    PairScores,
    PairTexts,
    PassageList,
    Usage,
    rows_of_queries,
)
from stx_mine.stages.judge.prompt import Prompt

# Positives that a question shows as references, at most.
_REFERENCES = 8


@dataclass(frozen=True)
class Question:
    """A question.

    Attributes:
        rows: int64 (P,) rows of the pairs whose passages it lists, in that order.
        body: The request of a chat, JSON-ready.
        num_cut: Texts that were too long for the prompt, and cut.
    """

    rows: NDArray[np.int64]
    body: dict[str, Any]
    num_cut: int

    @property
    def id(self) -> str:
        """The digest of what is asked, in hex."""
        return xxhash.xxh3_128_hexdigest(json.dumps(self.body, sort_keys=True).encode())


class Chat(Protocol):
    """Gives answers to questions."""

    @property
    def model(self) -> str:
        """The name of the model."""

    @property
    def answers_as(self) -> str | None:
        """The name that the model gives itself."""

    def answers(self, questions: Sequence[Question]) -> list[tuple[list[dict[str, Any]], str]]:
        """Answers to each question, the last one counts; without one, the reason."""


@dataclass(frozen=True)
class ListwiseJudge(Judge):
    """Has a language model grade the passages of a query side by side.

    Attributes:
        prompt: What it is asked.
        chat: Who answers.
        most: Passages of a question, at most.
    """

    prompt: Prompt
    chat: Chat
    most: int
    sample: ClassVar[int] = 48
    warm_up: ClassVar[int] = 0

    def contract(self) -> dict[str, Any]:
        """The model and the prompt."""
        return {
            "llm": self.chat.model,
            "answers_as": self.chat.answers_as,
            "prompt": self.prompt.digest,
        }

    def score(self, pairs: PairTexts, tuning: Tuning | None = None) -> PairScores:
        """A question for each query."""
        scores = np.full(len(pairs), np.nan, np.float32)
        unanswered: dict[int, str] = {}
        questions = list(self.questions(pairs))
        failures, totals = Counter[str](), Counter[str]()
        answers = self.chat.answers(questions)
        for question, (found, reason) in zip(questions, answers, strict=True):
            totals.update(calls=len(found), cut=question.num_cut)
            for one in found:
                totals.update(tokens_of(one))
            if found:
                try:
                    scores[question.rows] = self.prompt.scores_of(found[-1], len(question.rows))
                    continue
                except AnswerError as error:
                    reason = str(error)
            failures[reason] += len(question.rows)
            unanswered[int(pairs.query_ids[question.rows[0]])] = reason
        if self.prompt.positive is not None:
            # References are judged where all questions that show them are answered.
            for row in np.flatnonzero(pairs.are_positive).tolist():
                lost = unanswered.get(int(pairs.query_ids[row]))
                if lost is None:
                    scores[row] = self.prompt.positive
                else:
                    failures[lost] += 1
        return PairScores(scores, Usage(**totals, failures=dict(sorted(failures.items()))))

    def questions(self, pairs: PairTexts) -> Iterator[Question]:
        """What is asked about pairs."""
        listed = np.arange(len(pairs))
        if self.prompt.positive is not None:
            listed = np.flatnonzero(~pairs.are_positive)
        for part in rows_of_queries(pairs.query_ids[listed], self.most):
            rows = listed[part]
            query = pairs.queries[int(rows[0])].as_py()
            passages = pairs.passages.take(rows).to_pylist()
            positives = pairs.positives_of(int(pairs.query_ids[rows[0]]), _REFERENCES)
            limit = self.prompt.max_characters
            num_cut = sum(len(text) > limit for text in (query, *positives, *passages))
            texts = query[:limit], [one[:limit] for one in positives], [p[:limit] for p in passages]
            yield Question(rows, {"model": self.chat.model, **self.prompt.body(*texts)}, num_cut)

    @property
    def listing(self) -> PassageList:
        """What a question lists."""
        return PassageList(self.most, with_positives=self.prompt.positive is None)

    def num_characters(self, pairs: PairTexts) -> int:
        """Characters of the questions."""
        return sum(len(one.body["messages"][0]["content"]) for one in self.questions(pairs))

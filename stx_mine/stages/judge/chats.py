"""Who answers questions: a server, or a file of answers that others fetched."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from stx_mine.errors import InputError, ModelError, shortened
from stx_mine.models.chats import CHAT_PATH, REFUSED, AnswerError, ChatServer
from stx_mine.models.server import ModelServer
from stx_mine.stages.judge.listwise_judge import Question
from stx_mine.stages.judge.prompt import Prompt

# A question whose answer is to be as short as any.
_PROBE = "What is the capital of France?", ["Paris is the capital of France."], ["Bananas ripen."]
UNANSWERED = "unanswered"


@dataclass(frozen=True)
class ServedChat:
    """Asks a server (`POST chat/completions`), each question again where the answer is none.

    Attributes:
        server: It.
        prompt: Says what an answer is.
    """

    server: ModelServer
    prompt: Prompt

    @cached_property
    def _chat(self) -> ChatServer:
        return ChatServer(self.server, self.prompt.body(*_PROBE))

    @property
    def model(self) -> str:
        """The name of the model."""
        return self.server.model

    @property
    def answers_as(self) -> str | None:
        """The name that the model gives itself; a name may stand for others later."""
        return self._chat.answers_as

    def answers(self, questions: Sequence[Question]) -> list[tuple[list[dict[str, Any]], str]]:
        """Answers to each question, the last one counts; without one, the reason."""
        return self.server.map(self._ask, questions)

    def _ask(self, question: Question) -> tuple[list[dict[str, Any]], str]:
        first = self._chat.ask(question.body)
        if first is None:
            return [], REFUSED
        try:
            self.prompt.scores_of(first, len(question.rows))
        except AnswerError:
            again = None
            if "seed" in question.body:
                again = self._chat.ask({**question.body, "seed": 1})
            return [first, *([] if again is None else [again])], ""
        return [first], ""


@dataclass(frozen=True)
class AnswerFile:
    """Answers in a file, as batch jobs of servers leave it: a line each, known by `custom_id`.

    Attributes:
        path: The file; None where nobody was asked yet.
        model: The name of the model that was asked.
        earlier: The name that it gave itself in earlier answers.
    """

    path: Path | None
    model: str
    earlier: str | None = None

    @cached_property
    def by_question(self) -> dict[str, dict[str, Any] | None]:
        """The answer to each question by its id; None where there was an error.

        Raises:
            InputError: The file is no such file.
        """
        found: dict[str, dict[str, Any] | None] = {}
        if self.path is None:
            return found
        try:
            with self.path.open("rb") as lines:
                for number, line in enumerate(lines, 1):
                    if line.strip():
                        name, answer = self._read(line, number)
                        # Of several tries one that worked.
                        found[name] = answer or found.get(name)
        except OSError as error:
            raise InputError(
                f"expected a file of answers at {self.path}, found none ({error.strerror}); check "
                "the path"
            ) from error
        if not found:
            raise InputError(f"expected answers in {self.path}, found none; give another file")
        return found

    def _read(self, line: bytes, number: int) -> tuple[str, dict[str, Any] | None]:
        try:
            return _read_line(line)
        except (ValueError, RecursionError, KeyError, TypeError) as error:
            raise InputError(
                f"expected a JSON object with custom_id and response in line {number} of "
                f"{self.path}, found {shortened(line)}; give the file that the batch job left"
            ) from error

    @cached_property
    def answers_as(self) -> str | None:
        """The name that the model gives itself.

        Raises:
            ModelError: Several models answered.
        """
        if self.path is None:
            return self.earlier
        answers = [one for one in self.by_question.values() if one is not None]
        names = sorted({str(one["model"]) for one in answers if one.get("model")})
        if len(names) > 1:
            raise ModelError(
                f"expected answers of one model in {self.path}, found {', '.join(names)}; import "
                "those of each on its own, with another --name"
            )
        return names[0] if names else None

    def answers(self, questions: Sequence[Question]) -> list[tuple[list[dict[str, Any]], str]]:
        """Answers to each question, the last one counts; without one, the reason."""
        return [self._find(question.id) for question in questions]

    def _find(self, name: str) -> tuple[list[dict[str, Any]], str]:
        if name not in self.by_question:
            return [], UNANSWERED
        answer = self.by_question[name]
        return ([], REFUSED) if answer is None else ([answer], "")


def _read_line(line: bytes) -> tuple[str, dict[str, Any] | None]:
    """The id and the answer of a line.

    Raises:
        ValueError: It is something else.
    """
    content = json.loads(line)
    name, response = content["custom_id"], content["response"]
    if not isinstance(name, str) or not isinstance(response, dict | None):
        raise ValueError("no response")
    if response is None or content.get("error") or response.get("status_code", 200) != 200:
        return name, None
    body = response["body"]
    if not isinstance(body, dict):
        raise ValueError("no answer")
    return name, body


def as_batch_line(question: Question) -> str:
    """A question as batch jobs read it."""
    content = {
        "custom_id": question.id,
        "method": "POST",
        "url": f"/v1/{CHAT_PATH}",
        "body": question.body,
    }
    return json.dumps(content, ensure_ascii=False) + "\n"

"""The chat protocol (`POST chat/completions`): who is asked, and what an answer holds."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from stx_mine.models.server import ModelServer
from stx_mine.models.server_calls import ServerCalls, refuse_other_model

CHAT_PATH = "chat/completions"
REFUSED = "refused by the server"


class AnswerError(ValueError):
    """An answer is none of those that were asked for; its text is the reason, in few words."""


def text_of(answer: object) -> str:
    """The text in the answer of a chat.

    Args:
        answer: The body of the response; anything.

    Raises:
        AnswerError: There is none, or it is cut off.
    """
    try:
        choice = answer["choices"][0]  # type: ignore[index]
        text, end = choice["message"]["content"], choice.get("finish_reason")
    except (TypeError, KeyError, IndexError, AttributeError) as error:
        raise AnswerError("no choices") from error
    if end == "length":
        raise AnswerError("answer cut off")
    if not isinstance(text, str) or not text.strip():
        raise AnswerError("empty answer")
    return text


def tokens_of(answer: dict[str, Any]) -> dict[str, int]:
    """Tokens that a server says an answer took: `tokens_read`, `tokens_written`, if it does."""
    usage = answer.get("usage")
    if not isinstance(usage, dict):
        return {}
    names = {"tokens_read": "prompt_tokens", "tokens_written": "completion_tokens"}
    found = {ours: usage.get(name) for ours, name in names.items()}
    return {name: number for name, number in found.items() if isinstance(number, int)}


@dataclass(frozen=True)
class ChatServer:
    """Asks the language model of a server; several threads may use one.

    Attributes:
        server: It.
        probe: A request whose answer is to be as short as any.
    """

    server: ModelServer
    probe: dict[str, Any]

    @cached_property
    def _calls(self) -> ServerCalls:
        return ServerCalls(self.server)

    @cached_property
    def answers_as(self) -> str | None:
        """The name that the model gives itself; a name may stand for others later."""
        found = self.server.post(CHAT_PATH, self.probe).get("model")
        return found if isinstance(found, str) else None

    def ask(self, body: dict[str, Any]) -> dict[str, Any] | None:
        """The answer to a request; None where the server refuses it.

        Raises:
            ModelError: It refuses all, does not answer, or its model has changed.
        """
        answer = self._calls.ask(CHAT_PATH, body)
        if answer is not None:
            refuse_other_model(self.server, self.answers_as, answer)
        return answer

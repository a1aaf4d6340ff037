"""Questions to a server of which some may fail without ending the others."""

from threading import Lock
from typing import Any

from stx_mine.errors import ModelError
from stx_mine.models.server import ModelServer, RefusedError

# So many refusals before the first answer mean that there will be none.
_MOST_REFUSED = 5


class ServerCalls:
    """Asks a server; several threads may use one.

    Attributes:
        server: It.
    """

    def __init__(self, server: ModelServer) -> None:
        """Begin without an answer.

        Args:
            server: Whom to ask.
        """
        self.server = server
        self._lock, self._num_answers, self._num_refused = Lock(), 0, 0

    def ask(self, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
        """The answer; None where the server refuses this question.

        Raises:
            ModelError: It refuses all, does not answer, or its model has changed.
        """
        try:
            answer = self.server.post(path, body)
        except RefusedError:
            with self._lock:
                self._num_refused += 1
                if not self._num_answers and self._num_refused >= _MOST_REFUSED:
                    raise
            return None
        with self._lock:
            self._num_answers += 1
        return answer


def refuse_other_model(server: ModelServer, expected: str | None, answer: dict[str, Any]) -> None:
    """Refuse the answer of another model than before.

    Args:
        server: Who answers.
        expected: The model that answered before; None where none said its name.
        answer: What came.

    Raises:
        ModelError: It is of another one.
    """
    found = answer.get("model")
    if expected is not None and isinstance(found, str) and found != expected:
        raise ModelError(
            f"expected answers of {expected} from {server.name}, as before, found one of {found}; "
            "see what it serves; what is finished stays, and the same command continues"
        )

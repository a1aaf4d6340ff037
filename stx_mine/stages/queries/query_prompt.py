"""What a language model is asked for queries, and what an answer is: JSON lines.

A prompt reads `passages` (one, or those of a window), `kinds` (kind -> queries of it) and `tag`, a
name for the element around a passage that stands in none of them.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import xxhash

from stx_mine.errors import ConfigError
from stx_mine.models.chats import AnswerError, text_of
from stx_mine.models.prompt_file import PromptFile

# Tokens of an answer: so many a query beside its own, and to begin and end with.
_TOKENS_A_LINE, _TOKENS_BESIDE = 24, 64
_MOST_CHARACTERS = 1_000
_FENCE = "```"


@dataclass(frozen=True)
class QueryPrompt(PromptFile):
    """A prompt that asks for queries."""

    package: ClassVar[str] = "stx_mine.stages.queries"
    shipped: ClassVar[tuple[str, ...]] = ("queries",)
    blank: ClassVar[dict[str, Any]] = {"passages": [""], "kinds": {"question": 1}, "tag": "t"}

    def check_question(self) -> None:
        """Refuse what does not show all passages, or does not say what is asked for.

        Raises:
            ConfigError: It does.
        """
        shown = self.render(["a-passage", "another-passage"], {"multi": 1})
        if "a-passage" not in shown or "another-passage" not in shown or "multi" not in shown:
            raise ConfigError(
                f"--prompt {self.name} does not show the passages, or the kinds of queries; use "
                "{% for text in passages %} and {% for kind, number in kinds.items() %}"
            )

    def render(self, passages: Sequence[str], kinds: Mapping[str, int]) -> str:
        """The question.

        Args:
            passages: What the queries are to be of.
            kinds: Kind -> queries of it.
        """
        texts = {"passages": list(passages), "kinds": dict(kinds), "tag": tag_of(passages)}
        return self.template.render(texts)

    def body(
        self, passages: Sequence[str], kinds: Mapping[str, int], sampling: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The request of a chat, without the name of the model: JSON-ready.

        Args:
            passages: What the queries are to be of.
            kinds: Kind -> queries of it.
            sampling: `max_new_tokens` of a query, `temperature`, `top_p`, `seed`.
        """
        number = sum(kinds.values())
        asked = {
            "messages": [{"role": "user", "content": self.render(passages, kinds)}],
            "max_tokens": (sampling["max_new_tokens"] + _TOKENS_A_LINE) * number + _TOKENS_BESIDE,
            **{name: sampling[name] for name in ("temperature", "top_p", "seed")},
            **self.options,
        }
        return {name: value for name, value in asked.items() if value is not None}


def tag_of(passages: Sequence[str]) -> str:
    """A name for the element around a passage that none of them holds: it follows from all."""
    whole = "\0".join(passages)
    digest = xxhash.xxh3_64_hexdigest(whole.encode())
    while digest in whole:
        digest = xxhash.xxh3_64_hexdigest(digest.encode())
    return f"passage-{digest}"


def queries_in(answer: object, kinds: Mapping[str, int]) -> list[tuple[str, str]]:
    """Kind and text of each query in the answer of a chat, in its order.

    Args:
        answer: The body of the response; anything.
        kinds: Kind -> queries that were asked for.

    Raises:
        AnswerError: It is something else than JSON lines of queries of these kinds.
    """
    lines = [line.strip() for line in text_of(answer).split("\n")]
    # Many models put a fence around what is no prose, whatever they are told.
    found = [_query_in(line, kinds) for line in lines if line and not line.startswith(_FENCE)]
    if not found:
        raise AnswerError("empty answer")
    return found


def _query_in(line: str, kinds: Mapping[str, int]) -> tuple[str, str]:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise AnswerError("no JSON lines") from error
    if not isinstance(content, dict) or set(content) != {"kind", "query"}:
        raise AnswerError("other keys than asked")
    kind, query = content["kind"], content["query"]
    if not isinstance(kind, str) or kind not in kinds:
        raise AnswerError("unknown kind")
    if not isinstance(query, str) or not query.strip():
        raise AnswerError("empty query")
    if any("\ud800" <= letter <= "\udfff" for letter in query):
        raise AnswerError("no Unicode")
    if len(query) > _MOST_CHARACTERS:
        raise AnswerError("query too long")
    return kind, " ".join(query.split())

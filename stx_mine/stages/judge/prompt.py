"""What a language model is asked: a Jinja file that says the question and the grades.

At its top level a prompt sets `grades` (word -> score from 0 to 1), and may set `positive` (the
score of the positives, which are shown as references and not graded then), `max_characters` (of a
text; longer ones are cut) and `options` (of the request: temperature, max_tokens ...; none to leave
one out). It reads `query`, `positives` and `passages`.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar

from stx_mine.errors import ConfigError, shortened
from stx_mine.models.chats import AnswerError, text_of
from stx_mine.models.prompt_file import PromptFile

SHIPPED = ("compare", "relevance")
_OPTIONS = {"temperature": 0, "seed": 0}
# Tokens of an answer: so many a passage, and to begin and end with.
_TOKENS_A_GRADE, _TOKENS_BESIDE = 16, 64


@dataclass(frozen=True)
class Prompt(PromptFile):
    """A prompt that asks for grades."""

    package: ClassVar[str] = "stx_mine.stages.judge"
    shipped: ClassVar[tuple[str, ...]] = SHIPPED
    blank: ClassVar[dict[str, Any]] = {"query": "", "positives": [], "passages": [""]}

    def check_question(self) -> None:
        """Refuse what names no grades, or shows no passages.

        Raises:
            ConfigError: It does.
        """
        grades = self.settings.get("grades")
        shown = self.render("the-query", ["a-positive"], ["a-passage", "another-passage"])
        scores = list(grades.values()) if isinstance(grades, dict) else []
        if len(scores) < 2 or not all(map(_is_score, scores)):
            raise ConfigError(
                f"expected `grades` in --prompt {self.name}, from at least two words to scores "
                f"from 0 to 1, found {shortened(grades)}; set it as the shipped prompts do"
            )
        if "another-passage" not in shown or "the-query" not in shown:
            raise ConfigError(
                f"--prompt {self.name} does not show the query or the passages; use "
                "{{ query }} and {% for text in passages %}"
            )
        if self.positive is not None and not _is_score(self.positive):
            raise ConfigError(
                f"expected a score from 0 to 1 as `positive` in --prompt {self.name}, found "
                f"{shortened(self.positive)}; fix it"
            )

    @property
    def grades(self) -> dict[str, float]:
        """The score of each word that an answer may have."""
        return {str(word): float(score) for word, score in self.settings["grades"].items()}

    @property
    def positive(self) -> float | None:
        """The score of the positives where they are references; None where they are graded."""
        return self.settings.get("positive")

    def render(self, query: str, positives: Sequence[str], passages: Sequence[str]) -> str:
        """The question."""
        texts = {"query": query, "positives": list(positives), "passages": list(passages)}
        return self.template.render(texts)

    def body(self, query: str, positives: Sequence[str], passages: Sequence[str]) -> dict[str, Any]:
        """The request of a chat, without the name of the model: JSON-ready."""
        numbers = [str(number) for number in range(1, len(passages) + 1)]
        schema = {
            "type": "object",
            "properties": {number: {"enum": list(self.grades)} for number in numbers},
            "required": numbers,
            "additionalProperties": False,
        }
        asked = {
            "messages": [{"role": "user", "content": self.render(query, positives, passages)}],
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "grades", "strict": True, "schema": schema},
            },
            "max_tokens": _TOKENS_A_GRADE * len(passages) + _TOKENS_BESIDE,
            **_OPTIONS,
            **self.options,
        }
        return {name: value for name, value in asked.items() if value is not None}

    def scores_of(self, answer: object, number: int) -> list[float]:
        """The scores in the answer of a chat.

        Args:
            answer: The body of the response; anything.
            number: Passages that were graded.

        Raises:
            AnswerError: It is something else than one grade of each passage.
        """
        text = text_of(answer)
        try:
            found = json.loads(text, object_pairs_hook=_distinct)
        except (ValueError, RecursionError) as error:
            raise AnswerError("no JSON") from error
        if not isinstance(found, dict):
            raise AnswerError("no JSON object")
        wanted = [str(one) for one in range(1, number + 1)]
        if set(found) != set(wanted):
            raise AnswerError("other passages than asked")
        grades = self.grades
        if not all(isinstance(found[one], str) and found[one] in grades for one in wanted):
            raise AnswerError("unknown grade")
        return [grades[found[one]] for one in wanted]


def _is_score(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and 0 <= float(value) <= 1


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object without a key that stands twice."""
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("a key stands twice")
    return dict(pairs)

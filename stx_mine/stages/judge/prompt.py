"""What a language model is asked: a Jinja file that says the question and the grades.

At its top level a prompt sets `grades` (word -> score from 0 to 1), and may set `positive` (the
score of the positives, which are shown as references and not graded then), `max_characters` (of a
text; longer ones are cut) and `options` (of the request: temperature, max_tokens ...; none to leave
one out). It reads `query`, `positives` and `passages`.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from numbers import Real
from pathlib import Path
from typing import Any

import xxhash
from jinja2 import StrictUndefined, Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from stx_mine.errors import ConfigError, one_line, shortened

SHIPPED = ("compare", "relevance")
_OPTIONS = {"temperature": 0, "seed": 0}
# Tokens of an answer: so many a passage, and to begin and end with.
_TOKENS_A_GRADE, _TOKENS_BESIDE = 16, 64


class AnswerError(ValueError):
    """An answer is none of those that were asked for; its text is the reason, in few words."""


@dataclass(frozen=True)
class Prompt:
    """A prompt.

    Attributes:
        name: As it was named.
        source: The text of the file.
    """

    name: str
    source: str

    @classmethod
    def open(cls, name: str) -> "Prompt":
        """A shipped prompt, or a file.

        Raises:
            ConfigError: There is none, or it is none.
        """
        try:
            if name in SHIPPED:
                shipped = files("stx_mine.stages.judge") / "prompts" / f"{name}.jinja"
                return cls(name, shipped.read_text("utf-8")).checked()
            return cls(name, Path(name).read_text("utf-8")).checked()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"expected --prompt {' or '.join(SHIPPED)}, or a file, found {name} "
                f"({one_line(error)}); check the path"
            ) from error

    @cached_property
    def _template(self) -> Template:
        environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False)
        return environment.from_string(self.source)

    @cached_property
    def _settings(self) -> dict[str, Any]:
        """What it sets at its top level."""
        module = self._template.make_module({"query": "", "positives": [], "passages": [""]})
        return {name: value for name, value in vars(module).items() if not name.startswith("_")}

    def checked(self) -> "Prompt":
        """Itself.

        Raises:
            ConfigError: Its settings are not those of a prompt, or it shows no passages.
        """
        try:
            grades = self._settings.get("grades")
            shown = self.render("the-query", ["a-positive"], ["a-passage", "another-passage"])
        except (TemplateError, TypeError, ValueError, ArithmeticError) as error:
            raise ConfigError(
                f"--prompt {self.name} is no Jinja template that can be filled "
                f"({type(error).__name__}: {one_line(error)[:200]}); fix it"
            ) from error
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
        if not isinstance(self.max_characters, int) or self.max_characters < 1:
            raise ConfigError(
                f"expected a whole number as `max_characters` in --prompt {self.name}, found "
                f"{shortened(self.max_characters)}; fix it"
            )
        if not isinstance(self._settings.get("options", {}), dict):
            raise ConfigError(
                f"expected a mapping as `options` in --prompt {self.name}, found "
                f"{shortened(self._settings['options'])}; fix it"
            )
        return self

    @property
    def grades(self) -> dict[str, float]:
        """The score of each word that an answer may have."""
        return {str(word): float(score) for word, score in self._settings["grades"].items()}

    @property
    def positive(self) -> float | None:
        """The score of the positives where they are references; None where they are graded."""
        return self._settings.get("positive")

    @property
    def max_characters(self) -> int:
        """Characters of a text that are shown."""
        return self._settings.get("max_characters", 1 << 30)  # type: ignore[no-any-return]

    @property
    def digest(self) -> str:
        """The xxh3-128 digest of its text, in hex."""
        return xxhash.xxh3_128_hexdigest(self.source.encode())

    def render(self, query: str, positives: Sequence[str], passages: Sequence[str]) -> str:
        """The question."""
        texts = {"query": query, "positives": list(positives), "passages": list(passages)}
        return self._template.render(texts)

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
            **self._settings.get("options", {}),
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
        try:
            choice = answer["choices"][0]  # type: ignore[index]
            text, end = choice["message"]["content"], choice.get("finish_reason")
        except (TypeError, KeyError, IndexError, AttributeError) as error:
            raise AnswerError("no choices") from error
        if end == "length":
            raise AnswerError("answer cut off")
        if not isinstance(text, str) or not text.strip():
            raise AnswerError("empty answer")
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

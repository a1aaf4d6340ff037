"""What a language model is asked: a Jinja file that says the question, and settings at its top.

A prompt may set `max_characters` (of a text; longer ones are cut) and `options` (of the request:
temperature, max_tokens ...; none to leave one out). What else it sets and reads, its kind says.
"""

from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar, Self

import xxhash
from jinja2 import StrictUndefined, Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from stx_mine.errors import ConfigError, one_line, shortened

# What filling a template may raise.
UNFILLED = (TemplateError, TypeError, ValueError, ArithmeticError)


@dataclass(frozen=True)
class PromptFile:
    """A prompt; what kind, its class says.

    Attributes:
        name: As it was named.
        source: The text of the file.
    """

    name: str
    source: str
    # The package with the prompts of this kind, their names, and what they read, of no length.
    package: ClassVar[str]
    shipped: ClassVar[tuple[str, ...]]
    blank: ClassVar[dict[str, Any]]

    @classmethod
    def open(cls, name: str) -> Self:
        """A shipped prompt, or a file.

        Raises:
            ConfigError: There is none, or it is none.
        """
        try:
            if name in cls.shipped:
                shipped = files(cls.package) / "prompts" / f"{name}.jinja"
                return cls(name, shipped.read_text("utf-8")).checked()
            return cls(name, Path(name).read_text("utf-8")).checked()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"expected --prompt {' or '.join(cls.shipped)}, or a file, found {name} "
                f"({one_line(error)}); check the path"
            ) from error

    @cached_property
    def template(self) -> Template:
        """It, in a sandbox."""
        environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False)
        return environment.from_string(self.source)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What it sets at its top level."""
        module = self.template.make_module(self.blank)
        return {name: value for name, value in vars(module).items() if not name.startswith("_")}

    def checked(self) -> Self:
        """Itself.

        Raises:
            ConfigError: It cannot be filled, or its settings are not those of a prompt.
        """
        try:
            self.settings  # noqa: B018
            self.check_question()
        except UNFILLED as error:
            raise ConfigError(
                f"--prompt {self.name} is no Jinja template that can be filled "
                f"({type(error).__name__}: {one_line(error)[:200]}); fix it"
            ) from error
        if not isinstance(self.max_characters, int) or self.max_characters < 1:
            raise ConfigError(
                f"expected a whole number as `max_characters` in --prompt {self.name}, found "
                f"{shortened(self.max_characters)}; fix it"
            )
        if not isinstance(self.options, dict):
            raise ConfigError(
                f"expected a mapping as `options` in --prompt {self.name}, found "
                f"{shortened(self.options)}; fix it"
            )
        return self

    def check_question(self) -> None:
        """Refuse a prompt whose question lacks what its kind needs.

        Raises:
            ConfigError: It does.
        """
        raise NotImplementedError

    @property
    def max_characters(self) -> int:
        """Characters of a text that are shown."""
        return self.settings.get("max_characters", 1 << 30)  # type: ignore[no-any-return]

    @property
    def options(self) -> dict[str, Any]:
        """Of the request, beside or instead of our own."""
        return self.settings.get("options", {})  # type: ignore[no-any-return]

    @property
    def digest(self) -> str:
        """The xxh3-128 digest of its text, in hex."""
        return xxhash.xxh3_128_hexdigest(self.source.encode())

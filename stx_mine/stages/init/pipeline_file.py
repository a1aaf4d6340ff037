"""A pipeline file as text: stages with their fields, a comment with the reason above each."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import Any

from stx_mine.errors import InputError
from stx_mine.masking import escaped, masked
from stx_mine.settings import StageConfig
from stx_mine.store.files import atomic
from stx_mine.store.safe_yaml import dump_yaml, parse_yaml
from stx_mine.store.small_files import found_at

_WIDTH = 100


@dataclass(frozen=True)
class Setting:
    """A field of a stage.

    Attributes:
        name: Its key.
        value: A text, number, truth value or list of them.
        reason: Why it is so; empty where the comment of the stage says it.
        is_open: Whether it is written as a comment, for a person to decide.
    """

    name: str
    value: Any
    reason: str = ""
    is_open: bool = False


@dataclass(frozen=True)
class Section:
    """A stage.

    Attributes:
        stage: Its name.
        config: Its options.
        reason: Why it is there, and what it does with the data.
        settings: Its fields.
    """

    stage: str
    config: type[StageConfig]
    reason: str
    settings: tuple[Setting, ...] = ()

    @property
    def fields(self) -> dict[str, Any]:
        """The fields that are set."""
        return {one.name: one.value for one in self.settings if not one.is_open}


def pipeline_text(run_dir: str, head: list[str], sections: list[Section]) -> str:
    """The text of a pipeline file.

    Args:
        run_dir: The run directory.
        head: What stands at its beginning, a paragraph each.
        sections: Its stages.

    Raises:
        ConfigError: The stages do not take these fields.
    """
    for section in sections:
        section.config(run_dir=run_dir, **section.fields)
    lines = [line for paragraph in head for line in _comment(paragraph)]
    lines.append(f"run_dir: {_yaml(run_dir)}")
    for section in sections:
        lines += ["", *_comment(section.reason)]
        lines.append(f"{section.stage}:" + ("" if section.fields else " {}"))
        for one in section.settings:
            lines += _comment(one.reason, "  ")
            lines.append(f"  {'# ' * one.is_open}{one.name}: {_yaml(one.value)}")
    text = "\n".join(lines) + "\n"
    meant = {section.stage: section.fields for section in sections}
    read = {name: fields for name, fields in parse_yaml(text).items() if name != "run_dir"}
    assert read == meant, (read, meant)
    return text


def _comment(text: str, indent: str = "") -> Iterator[str]:
    """A text as lines of a comment; what comes from data cannot end one."""
    width = _WIDTH - len(indent) - 2
    # YAML takes no characters that are not seen, not even in a comment.
    seen = "".join(one if one.isprintable() else " " for one in escaped(masked(text)))
    for line in wrap(seen, width, break_long_words=False, break_on_hyphens=False):
        yield f"{indent}# {line}"


def _yaml(value: Any) -> str:
    """A value on one line, quoted where YAML would take it for something else."""
    text = dump_yaml(value, default_flow_style=True, width=float("inf"))
    return text.removesuffix("\n").removesuffix("\n...")


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Refuse to write where something is.

    Raises:
        InputError: No plain file is there, or one that is not to be overwritten.
    """
    if path.is_symlink() or (path.exists() and not path.is_file()):
        found = "a link" if path.is_symlink() else found_at(path)
        raise InputError(f"{path} is {found}; give another --file")
    if path.exists() and not overwrite:
        raise InputError(f"{path} is there already; give --overwrite, or another --file")


def write_pipeline(path: Path, text: str) -> None:
    """Write a pipeline file, whole or not at all.

    Raises:
        InputError: The folder cannot be written.
    """
    try:
        with atomic(path) as temporary:
            temporary.write_text(text, "utf-8")
    except OSError as error:
        raise InputError(
            f"cannot write {path} ({error.strerror or error}); give another --file"
        ) from error

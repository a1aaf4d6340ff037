"""Names and texts of others in Markdown and YAML: shown as they are, never read as markup."""

import json
import re

from stx_mine.masking import escaped, masked

_MOST = 200
_MARKUP = re.compile(r"[\\`*\[\]#|]")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_NOT_FOR_CODE = re.compile(r"[`<>&|\\]")
_WORDS = re.compile(r"[A-Za-z][\w ./*,-]*", re.ASCII)


def markdown_text(text: str) -> str:
    """A text as Markdown that shows it: on one line, without credentials, cut where it is long."""
    line = _short(text)
    for letter, entity in _ENTITIES.items():
        line = line.replace(letter, entity)
    return _MARKUP.sub(r"\\\g<0>", line)


def code_span(text: str) -> str:
    """A text in a code span; `markdown_text` where one could not hold it."""
    line = _short(text)
    return f"`{line}`" if line.strip() and not _NOT_FOR_CODE.search(line) else markdown_text(text)


def yaml_text(text: str) -> str:
    """A text as a YAML scalar: as it is where that is safe, else in quotes."""
    return text if _WORDS.fullmatch(text) else json.dumps(_short(text))


def _short(text: str) -> str:
    line = escaped(masked(text))
    return line if len(line) <= _MOST else line[: _MOST - 1] + "…"

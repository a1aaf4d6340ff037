"""Documents: a text or Markdown file of a folder, which is one passage.

It stays as it stands, but for the front matter of Markdown: YAML between two lines of dashes.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from stx_mine.inputs.files import InputFile, undecodable

# Suffixes of files that hold running text.
DOCUMENTS_END_IN = (".txt", ".md")
_MARKDOWN = ".md"
# Lines of dashes are also rules between parts: what stands between them has to look like YAML.
_FRONT_MATTER = re.compile(
    r"---[ \t]*\r?\n(?:[ \t]*\r?\n|#[^\n]*\n)*(?:[\w\"'][^:\n]*:(?:[ \t\r][^\n]*)?\n"
    r"(?:(?![\w\"'])(?!---|\.\.\.)[^\n]*\n)*)+(?:---|\.\.\.)[ \t]*(?:\r?\n|\Z)"
)
_HEADING = re.compile(r" {0,3}#{1,6}[ \t]+(\S.*?)(?:[ \t]+#+)?[ \t]*")
_UNDERLINE = re.compile(r" {0,3}(?:=+|-+)[ \t]*")
_FENCE = re.compile(r" {0,3}(?:```|~~~)")
DOCUMENT_SCHEMA = pa.schema([("id", pa.large_string()), ("text", pa.large_string())])
_BLOCK_BYTES = 1 << 22


class DocumentFile:
    """A table of one row: the path of the file below its folder as `id`, and its `text`."""

    notes: tuple[str, ...] = ()
    schema = DOCUMENT_SCHEMA

    def __init__(self, file: InputFile, folder: Path) -> None:
        """Name the file; nothing is read yet."""
        self._file, self._id = file, file.path.relative_to(folder).as_posix()
        self.num_broken = dict[str, int]()

    def record_batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """Stream some columns: one row.

        Raises:
            InputError: The file is not UTF-8, or not of its encoding.
        """
        whole = b"".join(self._file.blocks(_BLOCK_BYTES))
        try:
            text = whole.decode()
        except UnicodeDecodeError as error:
            raise undecodable(self._file.name, whole, 1, error) from error
        row = {"id": self._id, "text": text[_end_of_front_matter(self._id, text) :]}
        yield pa.RecordBatch.from_pylist(
            [{name: row[name] for name in columns}],
            schema=pa.schema([DOCUMENT_SCHEMA.field(name) for name in columns]),
        )


def has_front_matter(path: Path) -> bool:
    """Whether a file is Markdown that begins with front matter, in UTF-8 or what is like it."""
    with path.open("rb") as file:
        if not file.read(6).removeprefix(b"\xef\xbb\xbf").startswith(b"---"):
            return False
    text = path.read_text("utf-8-sig", "replace")
    return _end_of_front_matter(path.name, text) > 0


def _end_of_front_matter(name: str, text: str) -> int:
    """Where the text of a document begins."""
    found = _FRONT_MATTER.match(text) if name.lower().endswith(_MARKDOWN) else None
    return found.end() if found else 0


def document_heading(name: str, text: str) -> tuple[str, str]:
    """The first heading of a document.

    Args:
        name: Of its file.
        text: Its text, without front matter.

    Returns:
        The heading without its marks, and how the text begins if it begins with that heading: the
        line or lines of it, and the white space around. Both are empty for what is no Markdown, and
        the second also where something else stands first.
    """
    if not name.lower().endswith(_MARKDOWN):
        return "", ""
    place, before, in_fence = 0, "", False
    for line in text.splitlines(keepends=True):
        place += len(line)
        bare = line.rstrip("\r\n")
        if _FENCE.match(bare):
            in_fence = not in_fence
        elif not in_fence:
            heading, stood = "", ""
            if found := _HEADING.fullmatch(bare):
                heading, stood = found[1], text[: place - len(line)]
            elif before.strip() and _UNDERLINE.fullmatch(bare):
                heading, stood = before.strip(), text[: place - len(line) - len(before)]
            if heading:
                after = text[place:]
                blank = len(after) - len(after.lstrip())
                return heading, "" if stood.strip() else text[: place + blank]
        before = "" if in_fence else line
    return "", ""

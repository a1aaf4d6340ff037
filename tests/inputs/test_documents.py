"""A folder of text and Markdown files is a corpus: each file is one passage."""

from pathlib import Path

import pytest

from stx_mine.errors import InputError
from stx_mine.inputs.column_file import file_checksum
from stx_mine.inputs.config import SourceFields
from stx_mine.inputs.documents import document_heading
from stx_mine.inputs.folders import open_corpus
from stx_mine.inputs.text_table import text_column


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    (folder / "deep").mkdir(parents=True)
    (folder / "b.txt").write_text("first line\n\nsecond é", "utf-8")
    (folder / "deep" / "a.MD").write_text("# Title\ntext", "utf-8")
    (folder / "c.md").write_text("", "utf-8")
    (folder / ".hidden.md").write_text("no", "utf-8")
    (folder / "picture.png").write_bytes(b"\x89PNG")
    return folder


def rows(folder: Path, **fields: str) -> list[tuple[str, str]]:
    column = text_column(open_corpus(str(folder), SourceFields(**fields)), None, "--corpus-column")
    return [
        (one, text)
        for block in column.blocks()
        for one, text in zip(block.ids.to_pylist(), block.texts.to_pylist(), strict=True)
    ]


def test_each_file_is_a_passage_with_its_path_as_id(notes: Path) -> None:
    assert rows(notes) == [("b.txt", "first line\n\nsecond é"), ("deep/a.MD", "# Title\ntext")]
    file = open_corpus(str(notes), SourceFields())
    assert file.notes == (
        "each of its 3 text and Markdown files is one passage, 1 without a byte are not read",
    )
    before = file_checksum(file)
    (notes / "b.txt").write_text("another", "utf-8")
    assert file_checksum(open_corpus(str(notes), SourceFields())) != before


def test_a_table_beside_documents_is_what_is_meant(notes: Path) -> None:
    (notes / "corpus.jsonl").write_text('{"text": "row"}\n', "utf-8")
    assert [text for _, text in rows(notes)] == ["row"]


def test_one_file_that_describes_a_folder_is_no_corpus(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("what lies here", "utf-8")
    with pytest.raises(InputError, match="found none; give a file of pairs or the right folder"):
        open_corpus(str(tmp_path), SourceFields())


def test_other_encodings_are_refused_with_the_line_and_read_when_named(notes: Path) -> None:
    (notes / "b.txt").write_bytes("fine\ncafé".encode("latin-1"))
    with pytest.raises(InputError, match=r"line 2 of .*b\.txt is not UTF-8 .* give --encoding"):
        rows(notes)
    assert rows(notes, encoding="latin-1")[0] == ("b.txt", "fine\ncafé")


FRONT = "---\ntitle: A page\ntags:\n  - one\n# said\n\nlong: >\n  text\n---\n"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (FRONT + "# Title\ntext", "# Title\ntext"),
        (FRONT.replace("\n", "\r\n") + "text", "text"),
        ("---\ndate: 2026\n...\ntext", "text"),
        ("\ufeff---\na: b\n---\ntext", "text"),
        # Rules between parts, and what is not closed, are text.
        ("---\nA sentence.\n---\ntext", "---\nA sentence.\n---\ntext"),
        ("---\na: b\ntext", "---\na: b\ntext"),
        ("text\n---\na: b\n---\n", "text\n---\na: b\n---\n"),
        ("----\na: b\n---\n", "----\na: b\n---\n"),
    ],
)
def test_front_matter_of_markdown_is_no_text(text: str, left: str, tmp_path: Path) -> None:
    folder = tmp_path / "pages"
    folder.mkdir()
    (folder / "a.md").write_bytes(text.encode())
    (folder / "b.txt").write_bytes(text.encode())
    plain = text.removeprefix("\ufeff")
    assert rows(folder) == [("a.md", left.removeprefix("\ufeff")), ("b.txt", plain)]
    notes = open_corpus(str(folder), SourceFields()).notes
    assert ("the front matter of 1 is left out" in notes[0]) == (left != plain)


@pytest.mark.parametrize(
    ("text", "heading", "beginning"),
    [
        ("# A *title* ##\n\ntext", "A *title*", "# A *title* ##\n\n"),
        ("\n  ## B\r\ntext", "B", "\n  ## B\r\n"),
        ("Title of it\n====\n\ntext", "Title of it", "Title of it\n====\n\n"),
        ("before\n\n# C\ntext", "C", ""),
        ("```\n# comment\n```\n# D\n", "D", ""),
        ("#tag\ntext", "", ""),
        ("text\n\n---\n\ntext", "", ""),
        ("", "", ""),
        ("# Alone", "Alone", "# Alone"),
    ],
)
def test_the_title_of_a_page_is_its_first_heading(text: str, heading: str, beginning: str) -> None:
    assert document_heading("a.md", text) == (heading, beginning)
    assert document_heading("a.txt", text) == ("", "")

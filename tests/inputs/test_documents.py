"""A folder of text and Markdown files is a corpus: each file is one passage."""

from pathlib import Path

import pytest

from stx_mine.errors import InputError
from stx_mine.inputs.column_file import file_checksum
from stx_mine.inputs.config import SourceFields
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

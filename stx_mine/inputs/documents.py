"""Documents: a text or Markdown file of a folder, which is one passage as it stands."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from stx_mine.inputs.files import InputFile, undecodable

# Suffixes of files that hold running text.
DOCUMENTS_END_IN = (".txt", ".md")
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
            row = {"id": self._id, "text": whole.decode()}
        except UnicodeDecodeError as error:
            raise undecodable(self._file.name, whole, 1, error) from error
        yield pa.RecordBatch.from_pylist(
            [{name: row[name] for name in columns}],
            schema=pa.schema([DOCUMENT_SCHEMA.field(name) for name in columns]),
        )

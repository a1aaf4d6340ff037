"""What every format of a file can do."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import pyarrow as pa


class Format(Protocol):
    """Reads one file.

    Attributes:
        schema: Columns and their types, in their order.
        notes: What was guessed of the file.
        num_broken: Column -> texts in it that are no Unicode, as the last stream found.
    """

    @property
    def schema(self) -> pa.Schema:
        """Columns and their types."""

    @property
    def notes(self) -> Sequence[str]:
        """What was guessed."""

    @property
    def num_broken(self) -> dict[str, int]:
        """Texts that are no Unicode."""

    def record_batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """Stream some columns; a value that is missing is null."""

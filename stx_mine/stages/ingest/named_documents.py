"""Passages that an input names as chunks of documents, in its column `of_document`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stx_mine.inputs.names import OF_DOCUMENT
from stx_mine.inputs.pairs import PairSource
from stx_mine.inputs.text_column import TextColumn
from stx_mine.stages.ingest.numbering import Distinct
from stx_mine.store.columns import number_values


@dataclass(frozen=True)
class NamedDocuments:
    """The document of each passage.

    Attributes:
        names: Large strings (num passages,) its name, that of the first row which has one; null for
            a passage of no document.
        numbers: int64 (num passages,) its number; -1 for none. Documents of different sources are
            different ones, whatever they are called.
    """

    names: pa.Array
    numbers: NDArray[np.int64]

    @classmethod
    def of(cls, sources: Sequence[PairSource], passages: Distinct) -> "NamedDocuments | None":
        """Read them; None where no source has the column.

        Args:
            sources: The sources, in their order.
            passages: Their passages, numbered.
        """
        if not any(map(names_documents, sources)):
            return None
        blank = pa.array([], pa.large_string())
        columns, owners = [blank], [np.empty(0, np.int64)]
        for number, source in enumerate(sources):
            for column in source.passage_columns:
                found = _column(column, source.titles)
                columns.append(found)
                owners.append(np.full(len(found), number))
        rows = pa.concat_arrays(columns)
        codes, _ = number_values(rows)
        named = np.flatnonzero((codes >= 0) & (passages.ids >= 0))
        texts, first = np.unique(passages.ids[named], return_index=True)
        row_of = np.full(len(passages.digests), -1)
        row_of[texts] = named[first]
        names = rows.take(pa.array(row_of, mask=row_of < 0))
        keys = np.concatenate(owners) * (int(codes.max(initial=0)) + 1) + codes
        numbers = np.where(row_of < 0, -1, keys[row_of])
        return cls(names, numbers)

    @property
    def num_documents(self) -> int:
        """Distinct documents."""
        return len(np.unique(self.numbers[self.numbers >= 0]))

    @property
    def firsts(self) -> NDArray[np.int64]:
        """int64 (num passages,): the first passage of the same document, or itself."""
        found = np.arange(len(self.numbers))
        chunks = np.flatnonzero(self.numbers >= 0)
        _, first, place = np.unique(self.numbers[chunks], return_index=True, return_inverse=True)
        found[chunks] = chunks[first][place]
        return found

    @property
    def note(self) -> str:
        """What was found, as a sentence."""
        chunks = int((self.numbers >= 0).sum())
        return f"{chunks:,} passages are chunks of {self.num_documents:,} documents ({OF_DOCUMENT})"


def names_documents(source: PairSource) -> bool:
    """Whether a source has a column that names the documents of its passages."""
    return any(_has_documents(column) for column in source.passage_columns)


def _has_documents(column: TextColumn) -> bool:
    return OF_DOCUMENT in column.file.columns and column.column != OF_DOCUMENT


def _column(column: TextColumn, titles: bool) -> pa.Array:
    """Large strings: the document of each text of a column; null where none is named."""
    # Read as languages are: a column beside the texts, one value each.
    read = replace(column, language_column=OF_DOCUMENT if _has_documents(column) else "")
    parts = [block.languages for block in read.blocks(titles)]
    return pa.concat_arrays([pa.array([], pa.large_string()), *parts])

"""A file of (text, label) rows, numbered."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stx_mine.errors import InputError
from stx_mine.inputs.column_file import ColumnFile
from stx_mine.inputs.delimited import DelimitedForm
from stx_mine.inputs.names import LABEL_NAMES, TEXTS, named
from stx_mine.store.columns import number_values
from stx_mine.store.digests import DIGEST, text_digests

_TEXT_NAMES = (*TEXTS, frozenset({"sentence", "query", "question", "utterance", "title"}))
_LABEL_NAMES = (
    frozenset({"label", "labels"}),
    LABEL_NAMES | {"category", "intent", "topic", "cluster", "group", "coarse_label", "label_text"},
)


@dataclass(frozen=True)
class LabeledFile:
    """A file of (text, label) rows, numbered.

    Attributes:
        text_ids: int64 (rows,): texts in the order of their first rows; -1 where it is empty.
        label_ids: int64 (rows,): labels in the order of their first rows; -1 where it is missing.
        texts: The first raw occurrence of each text.
        names: The label that each number stands for.
    """

    text_ids: NDArray[np.int64]
    label_ids: NDArray[np.int64]
    texts: pa.ChunkedArray
    names: pa.Array

    @classmethod
    def read(cls, path: str, text_column: str | None, label_column: str | None) -> "LabeledFile":
        """Read a file; texts are the same where they are equal after normalisation.

        Args:
            path: Parquet, JSONL, CSV or TSV.
            text_column: None for the one whose name says so.
            label_column: None for the one whose name says so; strings or whole numbers.

        Raises:
            InputError: The file or a column is missing, malformed or empty.
        """
        named = (text_column, label_column, *frozenset().union(*_TEXT_NAMES, *_LABEL_NAMES))
        expected = tuple(name for name in named if name is not None)
        file = ColumnFile.open(path, DelimitedForm(expected=expected))
        columns = [
            _column(file, text_column, "text", _TEXT_NAMES),
            _column(file, label_column, "label", _LABEL_NAMES),
        ]
        if columns[0] == columns[1]:
            raise InputError(
                f"expected a column of texts and one of labels in {path}, found {columns[0]!r} for "
                f"both (its columns are {', '.join(file.columns)}); name them with --text-column "
                "and --label-column"
            )
        texts, digests, labels = list[pa.Array](), list[pa.Array](), list[pa.Array]()
        for some_texts, some_labels in file.batches(columns):
            texts.append(some_texts)
            digests.append(text_digests(some_texts))
            labels.append(pc.utf8_trim_whitespace(some_labels))
        text_ids, _ = number_values(pa.chunked_array(digests, DIGEST))
        named = pa.chunked_array(labels, pa.large_string())
        label_ids, names = number_values(pc.if_else(pc.equal(named, ""), None, named))
        firsts = np.unique(text_ids, return_index=True)[1][int((text_ids < 0).any()) :]
        raw = pa.chunked_array(texts, pa.large_string()).take(pa.array(firsts))
        return cls(text_ids, label_ids, raw, names)


def _column(
    file: ColumnFile, given: str | None, role: str, names: tuple[frozenset[str], ...]
) -> str:
    """The column that is named, or the only one with a name that says what it holds.

    Raises:
        InputError: There is no such column, or several.
    """
    if given is not None:
        return file.column(given, f"--{role}-column")
    found = named(file.columns, *names)
    if len(found) != 1:
        raise InputError(
            f"cannot tell which column of {file.name} holds the {role}s; its columns are "
            f"{', '.join(map(repr, file.columns))}; name it with --{role}-column"
        )
    return found[0]

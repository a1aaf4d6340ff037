"""A file of (text, label) rows, numbered."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stx_mine.errors import InputError
from stx_mine.inputs.column_file import ColumnFile
from stx_mine.store.columns import number_values
from stx_mine.store.digests import DIGEST, text_digests


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
            text_column: None for `text`, or else the first column.
            label_column: None for `label`, or else the second column; strings or whole numbers.

        Raises:
            InputError: The file or a column is missing, malformed or empty.
        """
        file = ColumnFile.open(path)
        columns = [
            file.pick(given or (name if name in file.columns else None), place, f"--{name}-column")
            for place, (name, given) in enumerate((("text", text_column), ("label", label_column)))
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

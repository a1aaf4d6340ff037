"""Rows that `pack` did not write: columns of anchors, positives, negatives, as one stream."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stx_mine.errors import InputError
from stx_mine.inputs.column_file import ColumnFile, is_column_file
from stx_mine.stages.verify.config import VerifyConfig
from stx_mine.store.digests import text_numbers

# sentence-transformers takes these for labels, never for texts.
_LABELS = ("label", "labels", "score", "scores")


@dataclass(frozen=True)
class RowFiles:
    """Files of rows, in the order of their paths, as one stream.

    Attributes:
        files: At least one.
        columns: The columns of anchor, positive, and of each negative.
        ignored: The other columns of the first file.
    """

    files: tuple[ColumnFile, ...]
    columns: tuple[str, ...]
    ignored: tuple[str, ...]

    @classmethod
    def open(cls, path: Path, config: VerifyConfig) -> "RowFiles":
        """Find the files and their columns.

        Raises:
            InputError: There is no file, a column is missing, or files differ in their columns.
        """
        paths = sorted(filter(is_column_file, path.rglob("*"))) if path.is_dir() else [path]
        if not paths:
            raise InputError(
                f"expected packed batches (epoch-000/train-*.parquet) or files of rows in {path}, "
                "found neither; run `stx-mine pack`, or give the right folder"
            )
        files = tuple(map(ColumnFile.open, paths))
        columns = _columns(files[0], config)
        for file in files[1:]:
            missing = [name for name in columns if name not in file.columns]
            if missing:
                raise InputError(
                    f"expected the columns {', '.join(columns)} of {paths[0]} in every file, "
                    f"{file.path} has no {missing[0]!r}; verify one of the files by its name"
                )
        ignored = tuple(name for name in files[0].columns if name not in columns)
        return cls(files, columns, ignored)

    def ids(self, num_columns: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Stream the numbers of the texts.

        The number of a text is the first 63 bits of the digest of its normalised form, so that
        two of 100 million texts share one with a probability of one in two thousand.

        Args:
            num_columns: How many of `columns` to read.

        Yields:
            Number of the file, and int64 (rows, num_columns): -1 for a missing or empty text.
        """
        for number, file in enumerate(self.files):
            for texts in file.batches(list(self.columns[:num_columns])):
                yield number, np.stack([text_numbers(text) for text in texts], axis=1)

    def texts(self, rows: list[int]) -> dict[int, list[str | None]]:
        """The texts of some rows, counted over all files; reads up to the last of them.

        Args:
            rows: Distinct, rising.
        """
        found: dict[int, list[str | None]] = {}
        start = 0
        for file in self.files:
            for texts in file.batches(list(self.columns)):
                for row in rows[len(found) :]:
                    if row >= start + len(texts[0]):
                        break
                    found[row] = [column[row - start].as_py() for column in texts]
                if len(found) == len(rows):
                    return found
                start += len(texts[0])
        return found


def _columns(file: ColumnFile, config: VerifyConfig) -> tuple[str, ...]:
    kinds = file.column_kinds()
    free = [name for name, kind in kinds.items() if kind == "text" and name not in _LABELS]
    chosen = []
    for role, given in (("anchor", config.anchor_column), ("positive", config.positive_column)):
        if given is None and not free:
            raise InputError(
                f"expected a column of texts for the {role} in {file.path}, found none that is "
                f"left ({', '.join(file.columns)}); name it with --{role}-column"
            )
        name = file.column(given or (role if role in free else free[0]), f"--{role}-column")
        chosen.append(name)
        free = [one for one in free if one != name]
    if chosen[0] == chosen[1]:
        raise InputError(
            f"expected two columns of {file.path} for anchor and positive, found {chosen[0]!r} for "
            "both; name the other with --anchor-column or --positive-column"
        )
    if config.negative_column:
        negatives = [file.column(name, "--negative-column") for name in config.negative_column]
    else:
        lists = [one for one, kind in kinds.items() if kind == "texts" and one.startswith("neg")]
        if lists:
            raise InputError(
                f"expected a column per negative in {file.path}, found lists in {lists[0]!r}; "
                "write each into a column of its own"
            )
        named = [one for one in free if one == "negative" or one.startswith("negative_")]
        negatives = named or free
    return (*chosen, *dict.fromkeys(negatives))

"""Languages: what language each text is said to be in."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stx_mine.store.columns import number_values
from stx_mine.store.files import read_json, write_array, write_json
from stx_mine.store.manifest import Manifest

LANGUAGES = "languages.json"
_NUMBERS = {role: f"{role}_languages.npy" for role in ("query", "passage")}
LANGUAGE_FILES = [LANGUAGES, *_NUMBERS.values()]


@dataclass(frozen=True)
class LanguageTable:
    """The languages of a run.

    Attributes:
        names: As the input has them, in order of first appearance.
        queries: int16 (num queries,) number of the language of each; -1 where it is unknown.
        passages: int16 (num passages,), likewise.
    """

    names: tuple[str, ...]
    queries: NDArray[np.int16]
    passages: NDArray[np.int16]

    @classmethod
    def open(cls, texts: Manifest) -> "LanguageTable | None":
        """Read what `write` wrote of a finished `texts/`; None where the input names no language.

        Raises:
            ArtifactError: A file is damaged.
        """
        if not texts.has(LANGUAGES):
            return None
        names = texts.read(LANGUAGES, lambda path: tuple(read_json(path)["languages"]))
        numbers = {role: texts.array(name) for role, name in _NUMBERS.items()}
        for role, name in _NUMBERS.items():
            texts.refuse_beyond(name, numbers[role], len(names), least=-1)
        return cls(names, numbers["query"], numbers["passage"])

    def write(self, folder: Path) -> None:
        """Write the files of `LANGUAGE_FILES`."""
        write_json(folder / LANGUAGES, {"languages": list(self.names)})
        for name, numbers in zip(_NUMBERS.values(), (self.queries, self.passages), strict=True):
            write_array(folder / name, numbers)

    def named(self, numbers: NDArray[np.int16]) -> pa.Array:
        """The names of languages; null for -1."""
        known = pa.array(numbers, mask=numbers < 0)
        return pa.array(self.names, pa.large_string()).take(known)

    def counts(self) -> dict[str, dict[str, int]]:
        """Role -> texts of each language, and of none under `unknown`."""
        found = {}
        for role, numbers in (("queries", self.queries), ("passages", self.passages)):
            sizes = np.bincount(numbers + 1, minlength=len(self.names) + 1).tolist()
            found[role] = dict(zip(("unknown", *self.names), sizes, strict=True))
        return found


def first_languages(
    ids: NDArray[np.int64], numbers: NDArray[np.int64], num_texts: int
) -> tuple[NDArray[np.int16], int]:
    """The language of each text, from rows that may repeat it.

    Args:
        ids: int64 (rows,) text of each row; -1 for none.
        numbers: int64 (rows,) its language; -1 where the row names none.
        num_texts: Number of texts.

    Returns:
        int16 (num_texts,): that of the first row that names one, -1 where none does; and how many
        texts stand under several.
    """
    languages = np.full(num_texts, -1, np.int16)
    rows = np.flatnonzero((ids >= 0) & (numbers >= 0))
    found, first = np.unique(ids[rows], return_index=True)
    languages[found] = numbers[rows[first]]
    pairs = np.unique(np.stack([ids[rows], numbers[rows]], axis=1), axis=0)
    return languages, len(pairs) - len(found)


def number_languages(columns: list[pa.Array]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Number languages in order of first appearance.

    Args:
        columns: Large strings; null or empty where there is none.

    Returns:
        The names, and int64 (rows of all columns,): numbers, -1 for none.
    """
    values = pa.chunked_array(columns, pa.large_string()).combine_chunks()
    values = pc.utf8_trim_whitespace(values)
    values = pc.if_else(pc.equal(values, ""), pa.scalar(None, pa.large_string()), values)
    numbers, names = number_values(values)
    return tuple(names.to_pylist()), numbers

"""Sources: which of several inputs each pair and text came from, and the prompts of each."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stx_mine.store.artifact import Manifest
from stx_mine.store.files import read_json, write_array, write_json

SOURCES_FILE = "sources.json"
_NUMBERS = {role: f"{role}_sources.npy" for role in ("pair", "query", "passage")}
SOURCE_FILES = [SOURCES_FILE, *_NUMBERS.values()]


@dataclass(frozen=True)
class SourceInfo:
    """What later stages need to know of a source.

    Attributes:
        name: Its name.
        query_prompt: Put before its queries; None for the model's own prompt.
        passage_prompt: Put before its passages; None for the model's own prompt.
    """

    name: str
    query_prompt: str | None = None
    passage_prompt: str | None = None

    @property
    def prompts(self) -> dict[str, str | None]:
        """Role -> prompt."""
        return {"query": self.query_prompt, "passage": self.passage_prompt}

    def to_json(self) -> dict[str, str | None]:
        """As `from_json` reads it."""
        return {
            "name": self.name,
            "query_prompt": self.query_prompt,
            "passage_prompt": self.passage_prompt,
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "SourceInfo":
        """Back from `to_json`."""
        return cls(content["name"], content["query_prompt"], content["passage_prompt"])


def prompts_differ(sources: Sequence[SourceInfo]) -> bool:
    """Whether texts of one role get different prompts in different sources."""
    return len({(source.query_prompt, source.passage_prompt) for source in sources}) > 1


@dataclass(frozen=True)
class SourceTable:
    """The sources of a run, in their order, and where each pair and text came from.

    Attributes:
        sources: At least one.
        weights: float64 (S,), above 0.
        numbers: "pair", "query", "passage" -> int16 by id: number of the source. A text belongs
            to the first source that has it.
    """

    sources: tuple[SourceInfo, ...]
    weights: NDArray[np.float64]
    numbers: dict[str, NDArray[np.int16]]

    @classmethod
    def open(cls, manifest: Manifest) -> "SourceTable | None":
        """Read the sources of a finished `texts/`; None where it was made from PAIRS."""
        sources = stored_sources(manifest)
        if not sources:
            return None
        numbers = {role: manifest.array(name) for role, name in _NUMBERS.items()}
        for role, name in _NUMBERS.items():
            manifest.refuse_beyond(name, numbers[role], len(sources))
        return cls(sources, np.array(manifest.extra["weights"], np.float64), numbers)

    @property
    def names(self) -> list[str]:
        """Names of the sources."""
        return [source.name for source in self.sources]

    def prompts_of(
        self, role: str, start: int, stop: int
    ) -> list[tuple[str | None, NDArray[np.int64]]]:
        """The prompts of a range of texts.

        Args:
            role: query or passage.
            start: First id.
            stop: Id after the last.

        Returns:
            Each prompt with the places, counted from `start`, of the texts that get it.
        """
        by_source = [source.prompts[role] for source in self.sources]
        distinct = list(dict.fromkeys(by_source))
        prompts = np.array([distinct.index(one) for one in by_source])
        found = prompts[self.numbers[role][start:stop]]
        return [(one, np.flatnonzero(found == number)) for number, one in enumerate(distinct)]


def stored_sources(manifest: Manifest) -> tuple[SourceInfo, ...]:
    """The sources of a finished `texts/`, in their order; none where it was made from PAIRS."""
    if not manifest.has(SOURCES_FILE):
        return ()
    return manifest.read(
        SOURCES_FILE, lambda path: tuple(map(SourceInfo.from_json, read_json(path)["sources"]))
    )


def write_sources(
    folder: Path, sources: Sequence[SourceInfo], numbers: dict[str, NDArray[np.int16]]
) -> None:
    """Write the files that `SourceTable.open` reads; weights stand in the manifest.

    A weight decides about batches only: another one leaves the digest of `texts/`, and so
    embeddings and hits, as they are.
    """
    write_json(folder / SOURCES_FILE, {"sources": [source.to_json() for source in sources]})
    for role, name in _NUMBERS.items():
        write_array(folder / name, numbers[role])

"""Pairs of texts whose vectors are close: `duplicates/cosine/`, a task for each block of texts."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stx_mine.core.similarity import Similarity
from stx_mine.engine.tasks import Worker
from stx_mine.stages.dedup.near import pairs_table
from stx_mine.store.artifact import read_manifest
from stx_mine.store.files import write_table
from stx_mine.store.hits import block_names
from stx_mine.store.vectors import Vectors

if TYPE_CHECKING:
    from stx_mine.search.exact import ExactSearcher

EMBEDDED_ROLES = ("passages", "queries")
_ROWS = 4_096
# Neighbours that are searched first, and at most, a text; those that have more are searched on.
_FIRST, _FACTOR, MOST = 16, 8, 1_024


def block_files(role: str, num_texts: int) -> list[str]:
    """Files of a role, one for each block of texts."""
    return block_names(role, -(-num_texts // _ROWS))


def num_crowded(tables: Iterable[pa.Table]) -> int:
    """Texts of which as many neighbours are close as are searched: there may be more."""
    lengths = [np.bincount(one["left"].to_numpy()) for one in tables if one.num_rows]
    return sum(int((length >= MOST - 1).sum()) for length in lengths)


@dataclass(frozen=True)
class NeighbourSearcher(Worker):
    """Searches the texts of a block among all of their role, and writes the close pairs.

    Attributes:
        embeddings: Folder of the embeddings.
        folder: Folder of the pairs.
        floor: Least cosine of a pair.
        device: Where products run; None for the best one seen.
    """

    embeddings: Path
    folder: Path
    floor: float
    device: str | None

    @property
    def wants_gpu(self) -> bool:
        """Unless another device is named: the search is exact."""
        return (self.device or "cuda").startswith("cuda")

    @cached_property
    def _searchers(self) -> dict[str, "ExactSearcher"]:
        return {}

    def _searcher(self, role: str) -> "ExactSearcher":
        if role not in self._searchers:
            stored = Vectors.open(read_manifest(self.embeddings), role)
            self._searchers[role] = cosine_searcher(stored, self.device)
        return self._searchers[role]

    def __call__(self, task: str) -> None:
        """Search one block."""
        role, number = task.split("-")[:2]
        searcher = self._searcher(role)
        first = int(number) * _ROWS
        left = np.arange(first, min(first + _ROWS, len(searcher.passages)))
        places, right, scores = close_rows(searcher, searcher.passages.take(left), self.floor)
        others = right != left[places]
        write_table(
            self.folder / task,
            pairs_table(left[places][others], right[others], scores[others]),
        )


def cosine_searcher(stored: Vectors, device: str | None) -> "ExactSearcher":
    """Searches vectors by cosine, however their model compares them."""
    from stx_mine.search.exact import ExactSearcher

    return ExactSearcher(Vectors(stored.shards, Similarity.COSINE), device=device)


def close_rows(
    searcher: "ExactSearcher", vectors_QD: NDArray[np.float32], floor: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """What is close to each of some vectors, at most `MOST` rows.

    Args:
        searcher: Finds rows by cosine.
        vectors_QD: float32 (Q, D), of unit length.
        floor: Least cosine.

    Returns:
        int64 (N,) places in `vectors_QD`, int64 (N,) rows that were found, float32 (N,) cosines.
    """
    parts = list[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]]()
    left, wanted = np.arange(len(vectors_QD)), _FIRST
    while len(left):
        hits = searcher.search(vectors_QD[left], wanted)
        close_QK = (hits.scores_QK >= np.float32(floor)) & (hits.ids_QK >= 0)
        is_last = wanted >= min(MOST, len(searcher.passages))
        # A copy: what it says of rows whose neighbours are looked for again is cleared next.
        goes_on = close_QK[:, -1] & (not is_last)
        close_QK[goes_on] = False
        places, ranks = np.nonzero(close_QK)
        parts.append((left[places], hits.ids_QK[places, ranks], hits.scores_QK[places, ranks]))
        left, wanted = left[goes_on], min(wanted * _FACTOR, MOST)
    empty = np.empty(0, np.int64)
    parts = parts or [(empty, empty, np.empty(0, np.float32))]
    places, rows, scores = (np.concatenate(one) for one in zip(*parts, strict=True))
    return places, rows, scores

"""What is asked about: each passage by itself, and windows of neighbours of one document.

Shape letters: N rows, W windows.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stx_mine.core.random import mix_rows

_LARGEST = 3


def windows(documents_N: NDArray[np.int64], usable_N: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Cut runs of usable neighbours of one document into windows of 2 or 3.

    A run is cut into threes; where one row would be left over, into twos at its end.

    Args:
        documents_N: int64 (N,) the document of each row; -1 for none.
        usable_N: bool (N,) which rows may be in a window.

    Returns:
        int64 (W, 2): first row and row after the last of each, rising; none overlap.
    """
    found = list[tuple[int, int]]()
    labels = np.where(usable_N, documents_N, -1)
    edges = np.flatnonzero(np.diff(labels, prepend=-2, append=-2))
    for first, last in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        if labels[first] < 0:
            continue
        place = first
        while last - place >= 2:
            left = last - place
            size = 2 if left in (2, 4) else _LARGEST
            found.append((place, place + size))
            place += size
    return np.array(found, np.int64).reshape(-1, 2)


@dataclass(frozen=True)
class AskedRows:
    """What is asked, and what a budget leaves out.

    Attributes:
        single_N: bool (N,) rows that get a question of their own.
        single_beyond_N: bool (N,) rows that the budget leaves out.
        windows_W2: int64 (W, 2) windows, rising.
        window_asked_W: bool (W,) which of them the budget pays for.
    """

    single_N: NDArray[np.bool_]
    single_beyond_N: NDArray[np.bool_]
    windows_W2: NDArray[np.int64]
    window_asked_W: NDArray[np.bool_]

    @property
    def num_asked(self) -> int:
        """Questions."""
        return int(self.single_N.sum() + self.window_asked_W.sum())

    def windows_from(self, start: int, last: int, beyond: bool = False) -> NDArray[np.int64]:
        """int64 (V, 2): the windows of a block.

        Args:
            start: Row with which it begins.
            last: Its last row, counted from there.
            beyond: Whether those are wanted that the budget leaves out.
        """
        first_W = self.windows_W2[:, 0]
        inside = (first_W >= start) & (first_W <= start + last)
        found: NDArray[np.int64] = self.windows_W2[inside & (self.window_asked_W != beyond)]
        return found

    def num_from(self, start: int, last: int) -> int:
        """Questions about a block, as of `windows_from`."""
        singles = int(self.single_N[start : start + last + 1].sum())
        return singles + len(self.windows_from(start, last))


def drawn_rows(
    wanted_N: NDArray[np.bool_],
    windows_W2: NDArray[np.int64],
    keys_N: NDArray[np.int64],
    max_calls: int | None,
    seed: int,
) -> AskedRows:
    """Draw the questions that a budget pays for; more calls ask the same ones and some more.

    Args:
        wanted_N: bool (N,) rows that should get a question of their own.
        windows_W2: int64 (W, 2) windows that should get one.
        keys_N: int64 (N,) number of each text, at least 0 for those that are asked about.
        max_calls: Questions, at most; None for all.
        seed: Of the draw.
    """
    singles = np.flatnonzero(wanted_N)
    keys = np.concatenate([keys_N[singles], keys_N[windows_W2[:, 0]]])
    is_window = np.repeat([0, 1], [len(singles), len(windows_W2)])
    chosen = np.ones(len(keys), bool)
    if max_calls is not None and max_calls < len(keys):
        draws = mix_rows(seed, keys.astype(np.uint64), is_window.astype(np.uint64))
        chosen[np.argsort(draws, kind="stable")[max_calls:]] = False
    asked_N = np.zeros(len(wanted_N), bool)
    asked_N[singles[chosen[: len(singles)]]] = True
    return AskedRows(asked_N, wanted_N & ~asked_N, windows_W2, chosen[len(singles) :])

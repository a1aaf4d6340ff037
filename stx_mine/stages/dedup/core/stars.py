"""Groups of similar texts without chains: every member is a pair with its representative."""

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from stx_mine.core.ragged import offsets_of


@dataclass(frozen=True)
class Stars:
    """A representative for each text.

    Attributes:
        centres: int64 (T,) the representative of each text; a text that joined none is its own.
        pairs: int64 (T,) the pair by which each text joined; -1 for a representative.
        num_cut: Pairs whose two texts lie in different groups, since one of them is no pair with
            the representative of the other.
    """

    centres: NDArray[np.int64]
    pairs: NDArray[np.int64]
    num_cut: int


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _join(order: Any, offsets: Any, neighbours: Any, numbers: Any, centres: Any, pairs: Any) -> Any:
    for text in order:
        if centres[text] >= 0:
            continue
        centres[text] = text
        for place in range(offsets[text], offsets[text + 1]):
            if centres[neighbours[place]] < 0:
                centres[neighbours[place]] = text
                pairs[neighbours[place]] = numbers[place]


def stars(num_texts: int, left: NDArray[np.int64], right: NDArray[np.int64]) -> Stars:
    """Texts with the most pairs become representatives first, of all their texts that have none.

    A greedy cover (as by Aslam et al. 2004, "The star clustering algorithm"): nothing depends on
    the order of the pairs, ties go by the smaller text.

    Args:
        num_texts: Texts.
        left: int64 (N,) a text of each pair.
        right: int64 (N,) the other one; no pair stands twice.
    """
    ends = np.concatenate([left, right])
    others = np.concatenate([right, left])
    numbers = np.concatenate([np.arange(len(left)), np.arange(len(left))])
    by_text = np.lexsort([others, ends])
    degrees = np.bincount(ends, minlength=num_texts)
    order = np.argsort(-degrees, kind="stable")
    centres, pairs = np.full((2, num_texts), -1, np.int64)
    _join(order, offsets_of(degrees), others[by_text], numbers[by_text], centres, pairs)
    return Stars(centres, pairs, int((centres[left] != centres[right]).sum()))

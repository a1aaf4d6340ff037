"""Texts that share most of their shingles: MinHash (library rensa) proposes, the sets decide.

A band is a part of a signature; two texts are compared where they agree in all of one band. The
share of equal shingles that is returned is that of the sets, not of the signatures.

Shape letters: T texts, B bands.
"""

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from stx_mine.core.ragged import Ragged
from stx_mine.core.random import mix
from stx_mine.errors import ConfigError
from stx_mine.search.threads import own_threads
from stx_mine.stages.dedup.core.shingles import jaccard_above

# Values of a signature. The chance that a pair at the threshold agrees in no band is below _MISSED.
_VALUES, _MISSED = 128, 0.02
_SEED = 42
_BELOW = 0.1
# Texts whose signatures are made at a time: the library hands them over as Python numbers.
_BLOCK = 8_192
# Texts that agree in a band are each compared with so many of the first of them.
_COMPARED = 1_024


@dataclass(frozen=True)
class NearPairs:
    """Pairs of texts that are alike.

    Attributes:
        left: int64 (N,) the smaller text of each pair, rising.
        right: int64 (N,) the larger one, rising for each smaller one.
        scores: float32 (N,) in [0, 1].
        num_crowded: Texts that agree in a band with more texts than are compared.
    """

    left: NDArray[np.int64]
    right: NDArray[np.int64]
    scores: NDArray[np.float32]
    num_crowded: int = 0


def refuse_without_rensa(way_out: str) -> None:
    """Refuse to begin without the library.

    Args:
        way_out: What needs no package, for the message.

    Raises:
        ConfigError: It is not installed.
    """
    if importlib.util.find_spec("rensa") is None:
        raise ConfigError(
            "--jaccard needs the package rensa, found none; run `pip install 'stx-mine[dedup]'`, "
            f"or {way_out}, which needs no package"
        )


def band_length(threshold: float) -> int:
    """Values of a band: as many as leave few pairs at the threshold out.

    Args:
        threshold: Share of equal shingles, in (0, 1].
    """
    lengths = [
        length
        for length in range(1, _VALUES + 1)
        if (1 - threshold**length) ** (_VALUES // length) < _MISSED
    ]
    return max(lengths, default=1)


def floor_below(threshold: float) -> float:
    """A threshold so far below that few pairs at the given one are missed, or searched again."""
    return max(round(threshold - _BELOW, 6), 0.01)


def near_pairs(
    sets: Ragged, threshold: float, border: int = 0, proposed: float | None = None
) -> NearPairs:
    """All pairs of texts that share at least so much; at most one in fifty is missed.

    Args:
        sets: (T,) distinct shingles of each text, rising; a text without any is in no pair.
        threshold: Least Jaccard similarity, in (0, 1].
        border: If above 0, only pairs of a text before this one and a text from it on.
        proposed: A lower one, at which not more than one in fifty would be missed either.
    """
    bands_BT = _bands(sets, band_length(threshold if proposed is None else proposed))
    filled = np.flatnonzero(sets.lengths())

    def search(band: int) -> NearPairs:
        return _pairs_of(band, bands_BT, filled, sets, (threshold, border))

    with own_threads() as threads:
        parts = list(threads.map(search, range(len(bands_BT))))
    left, right, scores = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("left", "right", "scores")
    )
    order = np.lexsort([right, left])
    return NearPairs(
        left[order],
        right[order],
        scores[order],
        max((part.num_crowded for part in parts), default=0),
    )


def _bands(sets: Ragged, length: int) -> NDArray[np.uint64]:
    """uint64 (B, T): the hash of each band of each text's signature."""
    bands_BT = np.empty((_VALUES // length, len(sets)), np.uint64)
    for first, signatures_TV in _signatures(sets):
        last = first + len(signatures_TV)
        for band in range(len(bands_BT)):
            part = signatures_TV[:, band * length : (band + 1) * length]
            bands_BT[band, first:last] = _hash_rows(np.ascontiguousarray(part))
    return bands_BT


def _signatures(sets: Ragged) -> Iterator[tuple[int, NDArray[np.uint32]]]:
    """The first text and the signatures of each block of texts."""
    from rensa import RMinHash

    for first in range(0, len(sets), _BLOCK):
        offsets = sets.offsets[first : first + _BLOCK + 1]
        hashes = sets.values[offsets[0] : offsets[-1]].astype(np.uint64)
        matrix = RMinHash.digest_matrix_from_flat_token_hashes(
            hashes, (offsets - offsets[0]).astype(np.uint64), num_perm=_VALUES, seed=_SEED
        )
        yield first, np.array(matrix.to_rows(), np.uint32)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _hash_rows(rows: Any) -> Any:
    hashes = np.empty(len(rows), np.uint64)
    for row in range(len(rows)):
        state = np.uint64(0)
        for value in rows[row]:
            state = mix(6, state, value)
        hashes[row] = state
    return hashes


def _pairs_of(
    band: int,
    bands_BT: NDArray[np.uint64],
    filled: NDArray[np.int64],
    sets: Ragged,
    wanted: tuple[float, int],
) -> NearPairs:
    """The pairs that agree in a band and in none before it."""
    hashes = bands_BT[band]
    order = filled[np.argsort(hashes[filled], kind="stable")]
    texts = order, hashes, bands_BT[:band]
    return NearPairs(*_agreeing(texts, (sets.offsets, sets.values), *wanted, _COMPARED))


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _agreeing(texts: Any, sets: Any, threshold: Any, border: Any, compared: Any) -> Any:
    """Alike pairs among texts of equal hash, which stand in order; the smaller one first."""
    order, hashes, before = texts
    offsets, values = sets
    left, right = np.empty(1_024, np.int64), np.empty(1_024, np.int64)
    scores = np.empty(1_024, np.float32)
    least = np.float32(threshold)
    count, num_crowded, first = 0, 0, 0
    while first < len(order):
        last = first + 1
        while last < len(order) and hashes[order[last]] == hashes[order[first]]:
            last += 1
        begin = _first_right(order, first, last, border)
        num_left = begin - first if border > 0 else last - first
        if num_left > compared and begin < last:
            num_crowded += last - first
        for place in range(begin, last):
            stop = begin if border > 0 else place
            for other in range(first, min(stop, first + compared)):
                one, two = order[other], order[place]
                if _agreed(before, one, two):
                    continue
                score = jaccard_above(offsets, values, one, two, threshold)
                if score < least:
                    continue
                if count == len(left):
                    left = np.concatenate((left, np.empty_like(left)))
                    right = np.concatenate((right, np.empty_like(right)))
                    scores = np.concatenate((scores, np.empty_like(scores)))
                left[count], right[count], scores[count] = one, two, score
                count += 1
        first = last
    return left[:count], right[:count], scores[:count], num_crowded


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _first_right(order: Any, first: Any, last: Any, border: Any) -> Any:
    """The place of the first text that is compared with those before it."""
    if border <= 0:
        return first + 1
    place = first
    while place < last and order[place] < border:
        place += 1
    return place


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _agreed(before: Any, one: Any, other: Any) -> Any:
    """Whether two texts agree in a band that was searched before."""
    for band in range(len(before)):
        if before[band, one] == before[band, other]:
            return True
    return False

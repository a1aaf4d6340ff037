"""Texts as sets of shingles: hashed runs of terms or of characters, in any script.

Terms are those of `core/terms.py`: a word, or a pair of neighbouring characters where no spaces are
written. Texts come as Arrow holds them, UTF-8 and offsets, and nothing becomes a Python object.
"""

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from stx_mine.core.ragged import Ragged, offsets_of
from stx_mine.core.random import mix
from stx_mine.core.terms import Class, character_classes

# What the kernels may name: they take no enumeration.
_SEPARATOR, _DIGIT, _UNSPACED = int(Class.SEPARATOR), int(Class.DIGIT), int(Class.UNSPACED)
# Between the digits of one number: of decimals, thousands, dates, times and ranges.
_IN_NUMBERS = np.array([ord(one) for one in ".,:/-"], np.uint32)
_MINUS = np.array([0x2D, 0x2212], np.uint32)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _decode(data: Any, first: Any, last: Any) -> Any:
    """The characters of a text, as uint32 numbers; it is valid UTF-8."""
    codes = np.empty(last - first, np.uint32)
    count, place = 0, first
    while place < last:
        head = np.uint32(data[place])
        if head < 0x80:
            codes[count], more = head, 0
        elif head < 0xE0:
            codes[count], more = head & np.uint32(0x1F), 1
        elif head < 0xF0:
            codes[count], more = head & np.uint32(0x0F), 2
        else:
            codes[count], more = head & np.uint32(0x07), 3
        for after in range(place + 1, place + 1 + more):
            codes[count] = (codes[count] << np.uint32(6)) | np.uint32(data[after] & 0x3F)
        place += 1 + more
        count += 1
    return codes[:count]


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _terms(codes: Any, classes: Any) -> Any:
    """The hash of each term, in order."""
    hashes = np.empty(len(codes), np.uint64)
    count, place = 0, 0
    while place < len(codes):
        kind = classes[codes[place]]
        first = place
        place += 1
        if kind == _SEPARATOR:
            continue
        if kind == _UNSPACED:
            while place < len(codes) and classes[codes[place]] == _UNSPACED:
                hashes[count] = mix(1, codes[place - 1], codes[place])
                count += 1
                place += 1
            if place > first + 1:
                continue
        else:
            while place < len(codes) and classes[codes[place]] not in (_SEPARATOR, _UNSPACED):
                place += 1
        state = np.uint64(place - first)
        for inner in range(first, place):
            state = mix(2, state, codes[inner])
        hashes[count] = state
        count += 1
    return hashes[:count]


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _runs(items: Any, size: Any) -> Any:
    """The distinct hashes of all runs of `size` items, rising; of a shorter text, one of all."""
    if not len(items):
        return np.empty(0, np.int64)
    length = min(size, len(items))
    hashes = np.empty(len(items) - length + 1, np.int64)
    for first in range(len(hashes)):
        state = np.uint64(length)
        for inner in range(first, first + length):
            state = mix(3, state, items[inner])
        hashes[first] = np.int64(state >> np.uint64(1))
    hashes.sort()
    count = 1
    for place in range(1, len(hashes)):
        if hashes[place] != hashes[count - 1]:
            hashes[count] = hashes[place]
            count += 1
    return hashes[:count]


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _shingles(data: Any, offsets: Any, classes: Any, of_words: Any, size: Any) -> Any:
    """Lengths and hashes of the shingles of all texts."""
    lengths = np.zeros(len(offsets) - 1, np.int64)
    hashes = np.empty(max(1, offsets[-1] - offsets[0]), np.int64)
    count = 0
    for text in range(len(lengths)):
        codes = _decode(data, offsets[text], offsets[text + 1])
        items = _terms(codes, classes) if of_words else codes.astype(np.uint64)
        runs = _runs(items, size)
        hashes[count : count + len(runs)] = runs
        lengths[text] = len(runs)
        count += len(runs)
    return lengths, hashes[:count]


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _among(code: Any, codes: Any) -> Any:
    for one in codes:
        if one == code:
            return True
    return False


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _numbers(codes: Any, classes: Any) -> Any:
    """The hash of all numbers of a text, in order; 0 where it has none."""
    state = np.uint64(0)
    place = 0
    while place < len(codes):
        if classes[codes[place]] != _DIGIT:
            place += 1
            continue
        is_negative = place > 0 and _among(codes[place - 1], _MINUS)
        if is_negative and place > 1:
            is_negative = classes[codes[place - 2]] == _SEPARATOR
        state = mix(4, state, 1 if is_negative else 0)
        while place < len(codes):
            if classes[codes[place]] != _DIGIT:
                ends = place + 1 == len(codes) or classes[codes[place + 1]] != _DIGIT
                if ends or not _among(codes[place], _IN_NUMBERS):
                    break
            state = mix(5, state, codes[place])
            place += 1
    return state


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _all_numbers(data: Any, offsets: Any, classes: Any) -> Any:
    hashes = np.zeros(len(offsets) - 1, np.uint64)
    for text in range(len(hashes)):
        codes = _decode(data, offsets[text], offsets[text + 1])
        hashes[text] = _numbers(codes, classes)
    return hashes


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def jaccard_above(offsets: Any, hashes: Any, one: Any, other: Any, least: Any) -> Any:
    """What two sets share of all that they hold; -1 where that is certainly below `least`.

    Args:
        offsets: int64 (T + 1,) where each set begins.
        hashes: int64, distinct and rising within a set.
        one: A set.
        other: Another one.
        least: In [0, 1].
    """
    a, a_end = offsets[one], offsets[one + 1]
    b, b_end = offsets[other], offsets[other + 1]
    total, common = (a_end - a) + (b_end - b), 0
    # Less than one hash below what is needed, so that rounding decides nothing.
    needed = least * total / (1 + least) - 0.5
    while a < a_end and b < b_end:
        if common + min(a_end - a, b_end - b) < needed:
            return np.float32(-1)
        if hashes[a] == hashes[b]:
            common += 1
            a += 1
            b += 1
        elif hashes[a] < hashes[b]:
            a += 1
        else:
            b += 1
    return np.float32(common / max(1, total - common))


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _jaccards(offsets: Any, hashes: Any, left: Any, right: Any) -> Any:
    found = np.empty(len(left), np.float32)
    for pair in range(len(left)):
        found[pair] = jaccard_above(offsets, hashes, left[pair], right[pair], 0.0)
    return found


def shingles(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], *, of_words: bool, size: int
) -> Ragged:
    """The set of shingles of each text.

    Args:
        data: uint8, valid UTF-8.
        offsets: int64 (T + 1,) where each text begins in it.
        of_words: Whether a shingle is a run of terms; else of characters.
        size: Terms or characters of a run. A text that is shorter has one shingle, of all it has.

    Returns:
        (T,) distinct hashes of 63 bits, rising; none for a text without terms.
    """
    lengths, hashes = _shingles(data, offsets, character_classes(), of_words, size)
    return Ragged(offsets_of(lengths), hashes)


def number_hashes(data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> NDArray[np.uint64]:
    """uint64 (T,): the numbers of each text with their order and signs, hashed; 0 for none.

    A number is a run of digits of any script; `1,000`, `1.5`, `10:30` and `2020-01-05`
    are one each.
    """
    hashes: NDArray[np.uint64] = _all_numbers(data, offsets, character_classes())
    return hashes


def jaccards(
    sets: Ragged, left: NDArray[np.int64], right: NDArray[np.int64]
) -> NDArray[np.float32]:
    """float32 (N,): what two sets share of all that they hold, in [0, 1]; 0 for empty ones.

    Args:
        sets: Rows of distinct hashes, rising.
        left: int64 (N,) a row of each pair.
        right: int64 (N,) the other one.
    """
    found: NDArray[np.float32] = _jaccards(sets.offsets, sets.values, left, right)
    return found

"""What counts as the same text: the normalised form, and its digest."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from numpy.typing import NDArray

DIGEST = pa.binary(16)


_WHITE_SPACE = r"[\s\x{0B}\p{Z}\x{85}]+"


def normalise(texts: pa.Array) -> pa.Array:
    """The form that decides whether two texts are the same: NFKC, white space collapsed.

    Args:
        texts: Strings of any kind; nulls become the empty string.

    Returns:
        Large strings of the same length. Case is kept.
    """
    filled = pc.fill_null(texts.cast(pa.large_string()), "")
    other = pa.array(~_are_normal(filled))
    composed = pc.utf8_normalize(filled.filter(other), form="NFKC")
    if not len(composed):
        return filled
    collapsed = pc.replace_substring_regex(composed, pattern=_WHITE_SPACE, replacement=" ")
    normal = pc.utf8_trim(collapsed, characters=" ")
    return normal if len(normal) == len(filled) else pc.replace_with_mask(filled, other, normal)


def _are_normal(texts: pa.Array) -> NDArray[np.bool_]:
    """Which large strings, none of them null, are surely as they should be."""
    _, offsets, content = texts.buffers()
    size = 0 if content is None else content.size
    bounds = np.frombuffer(offsets, np.int64, len(texts) + 1, texts.offset * 8)
    return _are_plain(bounds, np.frombuffer(content or b"", np.uint8, size))


def _are_plain(bounds: NDArray[np.int64], content: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which texts are printable ASCII whose words are apart by one space each.

    Such a text has no other form under NFKC, and no white space to collapse or to trim.
    """
    found, filled = np.ones(len(bounds) - 1, bool), np.diff(bounds) > 0
    if filled.any():
        part, starts = content[bounds[0] : bounds[-1]], bounds[:-1][filled] - bounds[0]
        is_space = part == ord(" ")
        other = (part < ord(" ")) | (part > ord("~"))
        other[1:] |= is_space[1:] & is_space[:-1]
        for edge in (starts, bounds[1:][filled] - bounds[0] - 1):
            other[edge] |= is_space[edge]
        found[filled] = ~np.logical_or.reduceat(other, starts)
    return found


def text_digests(texts: pa.Array) -> pa.Array:
    """The xxh3-128 digest of each normalised text; null where it is empty."""
    normal = normalise(texts)
    digest = xxhash.xxh3_128_digest
    raw = b"".join([digest(text) for text in normal.cast(pa.large_binary()).to_pylist()])
    validity = pc.not_equal(pc.utf8_length(normal), 0)
    array = pa.Array.from_buffers(DIGEST, len(normal), [None, pa.py_buffer(raw)])
    return pc.if_else(validity, array, pa.scalar(None, DIGEST))


def text_numbers(texts: pa.Array) -> NDArray[np.int64]:
    """The first 63 bits of the digest of each normalised text; -1 where it is missing or empty."""
    digests = text_digests(texts)
    filled = pc.is_valid(digests).to_numpy(zero_copy_only=False)
    raw = pc.fill_null(digests, bytes(16))
    halves = np.frombuffer(raw.buffers()[1], ">u8", 2 * len(raw), raw.offset * 16)
    return np.where(filled, (halves[::2] >> 1).astype(np.int64), -1)

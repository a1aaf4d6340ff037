"""What counts as the same text: the normalised form, and its digest."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from numpy.typing import NDArray

DIGEST = pa.binary(16)

_WHITE_SPACE = r"[\s\x{0B}\p{Z}\x{85}]+"
# White space that is more than one space: the same characters, without the space itself. Looking
# for it is ten times as fast as replacing it, and few texts have any.
_SPACES = r"\x{A0}\x{1680}\x{2000}-\x{200A}\x{202F}\x{205F}\x{3000}"
_TO_COLLAPSE = rf"[\t-\r\x{{85}}\x{{2028}}\x{{2029}}{_SPACES}]|  "


def normalise(texts: pa.Array) -> pa.Array:
    """The form that decides whether two texts are the same: NFKC, white space collapsed.

    Args:
        texts: Strings of any kind; nulls become the empty string.

    Returns:
        Large strings of the same length. Case is kept.
    """
    filled = pc.fill_null(texts.cast(pa.large_string()), "")
    composed = pc.utf8_normalize(filled, form="NFKC")
    needed = pc.match_substring_regex(composed, pattern=_TO_COLLAPSE)
    collapsed = pc.replace_substring_regex(
        composed.filter(needed), pattern=_WHITE_SPACE, replacement=" "
    )
    return pc.utf8_trim(pc.replace_with_mask(composed, needed, collapsed), characters=" ")


def text_digests(texts: pa.Array) -> pa.Array:
    """The xxh3-128 digest of each normalised text; null where it is empty."""
    return form_digests(normalise(texts))


def form_digests(forms: pa.Array) -> pa.Array:
    """The xxh3-128 digest of each text as it is; null where it is empty."""
    digest = xxhash.xxh3_128_digest
    raw = b"".join([digest(text) for text in forms.cast(pa.large_binary()).to_pylist()])
    validity = pc.not_equal(pc.utf8_length(forms), 0)
    array = pa.Array.from_buffers(DIGEST, len(forms), [None, pa.py_buffer(raw)])
    return pc.if_else(validity, array, pa.scalar(None, DIGEST))


def text_numbers(texts: pa.Array) -> NDArray[np.int64]:
    """The first 63 bits of the digest of each normalised text; -1 where it is missing or empty."""
    digests = text_digests(texts)
    filled = pc.is_valid(digests).to_numpy(zero_copy_only=False)
    raw = pc.fill_null(digests, bytes(16))
    halves = np.frombuffer(raw.buffers()[1], ">u8", 2 * len(raw), raw.offset * 16)
    return np.where(filled, (halves[::2] >> 1).astype(np.int64), -1)

"""Which texts are their own normal form at first sight, so that most need no work to normalise."""

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

_SPACE, _LAST_PRINTABLE = 0x20, 0x7E


def are_plain(offsets: NDArray[np.int64], content: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether each text is printable ASCII whose words are apart by one space each.

    Such a text has no other form under NFKC, and no white space to collapse or to trim.

    Args:
        offsets: int64 (R + 1,): where the bytes of each text begin, and the end.
        content: uint8: the bytes of all texts.

    Returns:
        bool (R,); true for an empty text.
    """
    found: NDArray[np.bool_] = _are_plain(offsets, content)
    return found


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _are_plain(offsets: Any, content: Any) -> Any:
    plain = np.ones(len(offsets) - 1, np.bool_)
    for row in range(len(plain)):
        after_space = True
        for byte in content[offsets[row] : offsets[row + 1]]:
            is_space = byte == _SPACE
            if byte < _SPACE or byte > _LAST_PRINTABLE or (is_space and after_space):
                plain[row] = False
                break
            after_space = is_space
        if after_space and offsets[row + 1] > offsets[row]:
            plain[row] = False
    return plain

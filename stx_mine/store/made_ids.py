"""Ids for texts whose source has none: the role, and the number of the text.

Without the role a query would have the id of a passage, and BEIR leaves out the passage that has
the id of its query.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stx_mine.core.role import Role


def made_ids(role: Role, numbers: NDArray[np.int64]) -> pa.Array:
    """The ids of texts, as large strings: `query-0`, `query-1` ..., `passage-0` ...

    Args:
        role: What the texts are.
        numbers: int64 (N,) numbers of texts, in any order, also repeated.
    """
    text = pa.large_string()
    names = pa.array(numbers, pa.int64()).cast(text)
    return pc.binary_join_element_wise(pa.scalar(role, text), names, pa.scalar("-", text))

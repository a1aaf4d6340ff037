"""Ids for texts whose source has none: a letter for the role, and the number of the text.

Without the letter a query would have the id of a passage, and BEIR leaves out the passage that has
the id of its query.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stx_mine.core.role import Role

_LETTERS: dict[Role, str] = {"query": "q", "passage": "d"}


def made_ids(role: Role, numbers: NDArray[np.int64]) -> pa.Array:
    """The ids of texts, as large strings: `q0`, `q1` ... of queries, `d0`, `d1` ... of passages.

    Args:
        role: What the texts are.
        numbers: int64 (N,) numbers of texts, in any order, also repeated.
    """
    parts = (_LETTERS[role], pa.array(numbers, pa.int64()).cast(pa.large_string()), "")
    return pc.binary_join_element_wise(
        *(pa.scalar(part, pa.large_string()) if isinstance(part, str) else part for part in parts)
    )

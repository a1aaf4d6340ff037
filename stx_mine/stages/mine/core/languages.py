"""Which passages have the language that negatives shall have."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

NegativeLanguage = Literal["any", "same", "cross"]


def wrong_language(
    queries_H: NDArray[np.int16], passages_H: NDArray[np.int16], wanted: NegativeLanguage
) -> NDArray[np.bool_]:
    """Hits that are known not to have the wanted language.

    Args:
        queries_H: int16 (H,) language of each hit's query; -1 where it is unknown.
        passages_H: int16 (H,) language of each hit's passage; -1 where it is unknown.
        wanted: That of the query (same), another one (cross), or any.

    Returns:
        bool (H,): never true where one of the two is unknown.
    """
    wrong = np.zeros(len(queries_H), np.bool_)
    if wanted != "any":
        known = (queries_H >= 0) & (passages_H >= 0)
        wrong[known] = (queries_H == passages_H)[known] == (wanted == "cross")
    return wrong

"""Groups: texts that count as the same, so that none of them is a negative beside another.

A text is embedded by its id; what it may not meet is decided by its group. The two differ where
texts that are not equal count as the same, as the parts of a long document do. The id of a passage
is its passage_id, that of a query's text the passage of equal text, or a number after all passages.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from stx_mine.core.ragged import Ragged, offsets_of, places_of


def _none() -> NDArray[np.int64]:
    return np.empty(0, np.int64)


@dataclass(frozen=True)
class Groups:
    """The group of every text; what is not listed is a group of its own, named by its id.

    Attributes:
        texts: int64 ids of texts that another text names, rising.
        groups: int64, aligned: the smallest id of their group.
    """

    texts: NDArray[np.int64] = field(default_factory=_none)
    groups: NDArray[np.int64] = field(default_factory=_none)

    @classmethod
    def of_all(cls, groups: NDArray[np.int64]) -> "Groups":
        """List the texts that are not named by themselves.

        Args:
            groups: int64 (num texts,) the group of every text, by id.
        """
        texts = np.flatnonzero(groups != np.arange(len(groups)))
        return cls(texts, groups[texts])

    def of(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64: the group of each text, in the shape of `ids`."""
        if not len(self.texts):
            return ids
        places = np.minimum(np.searchsorted(self.texts, ids), len(self.texts) - 1)
        return np.where(self.texts[places] == ids, self.groups[places], ids)


def members_of(groups: Ragged, texts: NDArray[np.int64], groups_of: NDArray[np.int64]) -> Ragged:
    """Replace each group by those of its members that are among some texts.

    Args:
        groups: Rows of groups.
        texts: int64 (T,) distinct ids.
        groups_of: int64 (T,) their groups.

    Returns:
        As many rows of ids, by group, then in the order of `texts`.
    """
    order = np.argsort(groups_of, kind="stable")
    first, last = (
        np.searchsorted(groups_of[order], groups.values, side) for side in ("left", "right")
    )
    ends = offsets_of(last - first)
    return Ragged(ends[groups.offsets], texts[order][places_of(first, ends)])

"""How much of evaluation data is in training, as shares.

Shape letters: Q queries.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Share(NamedTuple):
    """A part of a whole.

    Attributes:
        seen: How many are in training.
        of: How many there are.
    """

    seen: int
    of: int

    @property
    def value(self) -> float:
        """In [0, 1]."""
        return self.seen / self.of if self.of else 0.0


@dataclass(frozen=True)
class SeenShares:
    """What of some evaluation data is in training.

    Attributes:
        by_text: Queries that have the text of a training query.
        by_positive: Distinct positives that are positives in training, by their text.
        by_group: Queries that are of the group of a training query, or have a positive of the
            group of a training positive.
    """

    by_text: Share
    by_positive: Share
    by_group: Share


@dataclass(frozen=True)
class InTraining:
    """What of some evaluation data is in training, query by query.

    Attributes:
        by_text: As of `SeenShares`.
        by_positive: As of `SeenShares`.
        seen: Bool (Q,): whether a query is seen, by group.
    """

    by_text: Share
    by_positive: Share
    seen: NDArray[np.bool_]

    @property
    def shares(self) -> SeenShares:
        """The numbers alone."""
        return SeenShares(
            self.by_text, self.by_positive, Share(int(self.seen.sum()), len(self.seen))
        )

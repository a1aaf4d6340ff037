"""From pairs to groups: which text each text counts as, and why."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stx_mine.errors import ConfigError
from stx_mine.stages.dedup.core.stars import stars

EXACT = "exact"


@dataclass(frozen=True)
class ScoredPairs:
    """Pairs of texts of one kind of likeness.

    Attributes:
        kind: Name of the likeness: jaccard or cosine.
        left: int64 (N,) the smaller text of each pair.
        right: int64 (N,) the larger one.
        scores: float32 (N,) in [0, 1].
    """

    kind: str
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    scores: NDArray[np.float32]

    @classmethod
    def of(
        cls,
        kind: str,
        ends: NDArray[np.int64],
        scores: NDArray[np.float32],
        firsts: NDArray[np.int64],
    ) -> "ScoredPairs":
        """Distinct pairs of texts of different form; of several scores the highest.

        Args:
            kind: Name of the likeness.
            ends: int64 (2, N) ids of texts.
            scores: float32 (N,).
            firsts: int64 (T,) the first text of the form of each text.
        """
        ends = np.sort(firsts[ends], axis=0)
        order = np.lexsort([-scores, ends[1], ends[0]])
        ends, scores = ends[:, order], scores[order]
        kept = ends[0] != ends[1]
        kept[1:] &= (ends[:, 1:] != ends[:, :-1]).any(0)
        return cls(kind, ends[0, kept], ends[1, kept], scores[kept])

    def where(self, kept: NDArray[np.bool_]) -> "ScoredPairs":
        """Those of a mask."""
        return ScoredPairs(self.kind, self.left[kept], self.right[kept], self.scores[kept])

    def above(self, threshold: float) -> "ScoredPairs":
        """Those that score at least so much."""
        return self.where(self.scores >= np.float32(threshold))


@dataclass(frozen=True)
class Joins:
    """Which text each text counts as.

    Attributes:
        firsts: int64 (T,) the first text of the form of each text.
        centres: int64 (T,) the representative of each text.
        pairs: int64 (T,) the pair by which the first text of a form joined its representative; -1
            for none.
        of: The pairs, of each kind.
        num_cut: Pairs whose texts lie in two groups.
    """

    firsts: NDArray[np.int64]
    centres: NDArray[np.int64]
    pairs: NDArray[np.int64]
    of: Sequence[ScoredPairs]
    num_cut: int

    @classmethod
    def make(cls, firsts: NDArray[np.int64], of: Sequence[ScoredPairs]) -> "Joins":
        """Join texts by pairs; a pair of several kinds is of the first of them."""
        left, right = (
            np.concatenate([np.empty(0, np.int64), *(getattr(one, end) for one in of)])
            for end in ("left", "right")
        )
        _, distinct = np.unique(left * len(firsts) + right, return_index=True)
        found = stars(len(firsts), left[distinct], right[distinct])
        joined = found.pairs >= 0
        pairs = np.full(len(firsts), -1, np.int64)
        pairs[joined] = distinct[found.pairs[joined]]
        return cls(firsts, found.centres[firsts], pairs, of, found.num_cut)

    @cached_property
    def groups(self) -> NDArray[np.int64]:
        """int64 (T,): the group of each text, named by its smallest member."""
        smallest = np.full(len(self.centres), len(self.centres), np.int64)
        np.minimum.at(smallest, self.centres, np.arange(len(self.centres)))
        return smallest[self.centres]

    @property
    def num_joined(self) -> int:
        """Texts that count as another one."""
        return int((self.centres != np.arange(len(self.centres))).sum())

    def table(self) -> pa.Table:
        """A row for each text that counts as another: `text_id`, `like_id`, `kind`, `score`.

        `like_id` is the text that it is most like: the first one of its form, or the representative
        that this form is a pair with.
        """
        texts = np.flatnonzero(self.centres != np.arange(len(self.centres)))
        is_exact = self.firsts[texts] != texts
        numbers = self.pairs[self.firsts[texts]]
        kinds = np.repeat(
            np.arange(1, len(self.of) + 1, dtype=np.int8), [len(one.left) for one in self.of]
        )
        kinds = np.append(kinds, np.int8(0))
        scores = np.concatenate([*(one.scores for one in self.of), np.ones(1, np.float32)])
        numbers = np.where(is_exact, len(kinds) - 1, numbers)
        names = pa.array([EXACT, *(one.kind for one in self.of)])
        return pa.table(
            {
                "text_id": texts,
                "like_id": np.where(is_exact, self.firsts[texts], self.centres[texts]),
                "kind": pa.DictionaryArray.from_arrays(pa.array(kinds[numbers]), names),
                "score": scores[numbers],
            }
        )


def refuse_many(num_joined: int, num_texts: int, most: float, state: str, at: str = "") -> None:
    """Refuse to join more texts than are likely to be duplicates.

    Args:
        num_joined: Texts that would count as another one.
        num_texts: All texts.
        most: The largest share of them that may.
        state: What has become of what was to be made.
        at: What other thresholds would join.

    Raises:
        ConfigError: More would be joined.
    """
    if num_joined <= most * num_texts:
        return
    raise ConfigError(
        f"expected to join at most {most:.0%} of the {num_texts:,} texts (--max-joined), found "
        f"{num_joined:,} that count as another ({num_joined / num_texts:.0%}); {state}. "
        f"{'Joined at other thresholds: ' + at + '. ' if at else ''}Give a higher threshold, less "
        "to --ignore, or a higher --max-joined"
    )

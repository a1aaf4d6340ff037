"""Counts of `dedup`: the groups, and what was not joined."""

from dataclasses import dataclass, field

from stx_mine.store.groups import GroupCounts


@dataclass(frozen=True, kw_only=True)
class DedupCounts(GroupCounts):
    """Counts of `groups/` as `dedup` makes it.

    Attributes:
        joined: Texts that count as another one, by kind: exact, jaccard, cosine.
        sizes: Groups of several texts, by the number of texts.
        other_numbers: Pairs above a threshold that were left apart since their numbers differ.
        cut: Pairs above a threshold whose texts lie in two groups, as one of them is not similar
            enough to the representative of the other.
        crowded: Texts with more candidates than are compared, by kind.
        curves: Texts joined by one kind and by equal forms, for each of several thresholds.
        dropped_passages: Passages that are no candidates any more.
        dropped_pairs: Pairs that are no rows to train on any more.
        pairs_dropped: Those, by reason: leaked_query, leaked_positive, repeated.
    """

    joined: dict[str, int]
    sizes: dict[str, int]
    other_numbers: int
    cut: int
    crowded: dict[str, int]
    curves: dict[str, dict[str, int]] = field(default_factory=dict)
    dropped_passages: int = 0
    dropped_pairs: int = 0
    pairs_dropped: dict[str, int] = field(default_factory=dict)

    @property
    def num_joined(self) -> int:
        """Texts that count as another one."""
        return sum(self.joined.values())

    @property
    def repeated_pairs(self) -> int:
        """Pairs that are dropped since their query and positive count as those of another one."""
        return self.pairs_dropped.get("repeated", self.dropped_pairs)

"""What a selection gives: rows, how hard their negatives are, and how many of them are false."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stx_mine.core.intervals import EstimatedRate, clustered_rate
from stx_mine.stages.mine.core.select import HitMarks, Selection, UseLimits
from stx_mine.stages.mine.selector import Selector, Units


@dataclass(frozen=True)
class RowNegatives:
    """The negatives of rows: the first k of the pool of each unit.

    Attributes:
        units: int64 (N,) the unit of each, by its place.
        query_ids: int64 (N,).
        passage_ids: int64 (N,).
        ranks: int32 (N,) 0-based, among the candidates.
        scores: float32 (N,).
    """

    units: NDArray[np.int64]
    query_ids: NDArray[np.int64]
    passage_ids: NDArray[np.int64]
    ranks: NDArray[np.int32]
    scores: NDArray[np.float32]

    @classmethod
    def of_selection(cls, units: Units, chosen: Selection, k: int) -> "RowNegatives":
        """The first k of each pool that was just selected."""
        rows, slots = np.nonzero(chosen.ids_US[:, :k] >= 0)
        return cls(
            rows,
            units.query_ids[rows],
            chosen.ids_US[rows, slots],
            chosen.ranks_US[rows, slots],
            chosen.scores_US[rows, slots],
        )


# Of negatives: bool (N,) which are false, and bool (N,) of which that is known.
Truth = Callable[[Selector, Units, RowNegatives], tuple[NDArray[np.bool_], NDArray[np.bool_]]]


@dataclass(frozen=True)
class FalseNegatives:
    """False ones among negatives of which it is known.

    Attributes:
        known: Negatives of which it is known.
        false: Those of them that are false.
        distinct: Pairs of a query and a passage among the false ones.
        estimate: Share of the false ones among the known; its interval takes negatives of a query
            as alike.
    """

    known: int
    false: int
    distinct: int
    estimate: EstimatedRate


@dataclass(frozen=True)
class Outcome:
    """What a selection gives on some queries.

    Attributes:
        rows_full: Pairs with k negatives.
        rows_ragged: Pairs with fewer, but some.
        rows_empty: Pairs without any.
        negatives: The first k of each pool, together.
        mean_score: Of these; 0 where there are none.
        mean_rank: Of these, 0-based; 0 where there are none.
        false: What is false of them, by the name of who knows.
    """

    rows_full: int
    rows_ragged: int
    rows_empty: int
    negatives: int
    mean_score: float
    mean_rank: float
    false: Mapping[str, FalseNegatives]

    @property
    def rows(self) -> int:
        """All rows."""
        return self.rows_full + self.rows_ragged + self.rows_empty

    @property
    def full_share(self) -> float:
        """Share of the rows with k negatives."""
        return self.rows_full / max(1, self.rows)


@dataclass(frozen=True)
class OutcomePart:
    """What a selection gives on a block of queries.

    Attributes:
        sizes_R: int64 (R,) negatives of each row, at most k.
        negatives: Of the rows.
        truths: By the name of who knows: which negatives are false, and of which that is known.
    """

    sizes_R: NDArray[np.int64]
    negatives: RowNegatives
    truths: dict[str, tuple[NDArray[np.bool_], NDArray[np.bool_]]]

    @classmethod
    def of(
        cls,
        selector: Selector,
        units: Units,
        truths: Mapping[str, Truth],
        uses: UseLimits | None = None,
        marks: HitMarks | None = None,
    ) -> "OutcomePart":
        """Select among the hits of some queries, and ask who knows what is false.

        Args:
            selector: What selects.
            units: Of the queries.
            truths: By the name of who knows.
            uses: What each passage keeps of its uses, where these are limited.
            marks: Of the hits, where they are known already.
        """
        k = selector.config.k
        chosen = selector.select(units, uses, marks)
        negatives = RowNegatives.of_selection(units, chosen, k)
        sizes = np.repeat(np.minimum(chosen.sizes(), k), units.pairs.lengths())
        known = {name: truth(selector, units, negatives) for name, truth in truths.items()}
        return cls(sizes, negatives, known)


def outcome_of(parts: Iterable[OutcomePart], k: int) -> Outcome:
    """All blocks of queries together.

    Args:
        parts: At least one.
        k: Negatives of a full row.
    """
    blocks = list(parts)
    sizes = np.concatenate([part.sizes_R for part in blocks])
    total = sum(len(part.negatives.scores) for part in blocks)
    score = sum(float(part.negatives.scores.sum(dtype=np.float64)) for part in blocks)
    rank = sum(int(part.negatives.ranks.sum(dtype=np.int64)) for part in blocks)
    return Outcome(
        rows_full=int((sizes == k).sum()),
        rows_ragged=int(((sizes > 0) & (sizes < k)).sum()),
        rows_empty=int((sizes == 0).sum()),
        negatives=total,
        mean_score=score / max(1, total),
        mean_rank=rank / max(1, total),
        false={name: _together(blocks, name) for name in blocks[0].truths},
    )


def _together(blocks: list[OutcomePart], name: str) -> FalseNegatives:
    def joined(values: list[NDArray[Any]]) -> NDArray[Any]:
        return np.concatenate(values)

    false, known = (joined([part.truths[name][one] for part in blocks]) for one in (0, 1))
    queries = joined([part.negatives.query_ids for part in blocks])
    passages = joined([part.negatives.passage_ids for part in blocks])
    false &= known
    distinct, clusters = np.unique(queries, return_inverse=True)
    counts, wrong = (
        np.bincount(clusters[mask], minlength=len(distinct)) for mask in (known, false)
    )
    pairs = np.stack([queries[false], passages[false]])
    return FalseNegatives(
        known=int(known.sum()),
        false=int(false.sum()),
        distinct=np.unique(pairs, axis=1).shape[1],
        estimate=clustered_rate(wrong, counts),
    )

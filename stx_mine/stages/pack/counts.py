"""What `pack` counts."""

from dataclasses import dataclass, field
from typing import Any

from stx_mine.store.counts import Counts


@dataclass(frozen=True, kw_only=True)
class PackedSource:
    """The part of one source in a packing.

    Attributes:
        rows_in: Rows of the source.
        rows_packed: Those in a packing.
        rows_left_out: Reason -> the others.
        batches: Batches with a row of the source.
        rows_a_batch: The fewest and the most rows of the source in such a batch.
    """

    rows_in: int
    rows_packed: int
    rows_left_out: dict[str, int]
    batches: int
    rows_a_batch: list[int]

    def __post_init__(self) -> None:
        assert self.rows_in == self.rows_packed + sum(self.rows_left_out.values())


@dataclass(frozen=True, kw_only=True)
class ScoredRows:
    """What a judge has scores of, in the first packing.

    Attributes:
        rows_in: Rows of the packing.
        rows_scored: Those whose positive and any negative have a score: these are distilled.
        rows_unscored: Reason -> the others.
        negatives_in: Negatives of all rows.
        negatives_scored: Those with a score, of rows that are distilled.
        different_scores: How many numbers the scores are.
        band: The `judge --band` that would reach nine tenths of the negatives of pools.
    """

    rows_in: int
    rows_scored: int
    rows_unscored: dict[str, int]
    negatives_in: int
    negatives_scored: int
    different_scores: int
    band: float

    def __post_init__(self) -> None:
        assert self.rows_in == self.rows_scored + sum(self.rows_unscored.values())


@dataclass(frozen=True, kw_only=True)
class PackCounts(Counts):
    """Counts of packed rows.

    Attributes:
        rows_in: Rows that mine kept.
        rows_packed: Rows in each packing.
        rows_left_out: Rows left out of each packing; they come first in the next.
        batches: Batches of each packing.
        batches_composed: Batches that the rows, sources and their weights allow.
        batches_bound: Batches that the policy allows, at most.
        batches_bound_cause: What bounds them.
        packings: Different packings.
        steps: Optimizer steps of all packings.
        rows_ragged: Rows with fewer than k negatives.
        k_of_every_row: Negatives that every row of the first packing has.
        distinct_passages_of_first_batch: Distinct positives and negatives of the first batch.
        composition: How sources are composed, in words.
        sources: Name -> counts; empty where there is one source.
        scored: What a judge has scores of; empty where no judge's scores are stored.
    """

    rows_in: int
    rows_packed: int
    rows_left_out: int
    batches: int
    batches_composed: int
    batches_bound: int
    batches_bound_cause: str
    packings: int
    steps: int
    rows_ragged: int
    k_of_every_row: int
    distinct_passages_of_first_batch: int
    composition: str
    sources: dict[str, Any]
    scored: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert self.rows_in == self.rows_packed + self.rows_left_out

    @property
    def by_source(self) -> dict[str, PackedSource]:
        """Name -> counts of each source."""
        return {name: PackedSource(**counts) for name, counts in self.sources.items()}

    @property
    def of_judge(self) -> ScoredRows | None:
        """What a judge has scores of."""
        return ScoredRows(**self.scored) if self.scored else None

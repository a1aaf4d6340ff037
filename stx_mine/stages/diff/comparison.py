"""What `diff` finds out about two runs, A and B: the content of `--json`."""

from dataclasses import asdict, dataclass
from typing import Any

from stx_mine.stages.diff.counts import ComparedRows, SharedCounts


@dataclass(frozen=True)
class SettingDifference:
    """A setting that decides bytes and differs.

    Attributes:
        artifact: Name of the artifact that it decides.
        field: Name of the setting, `outer.inner` where it is nested.
        a: Its value in A; None where A has none of that name.
        b: Its value in B.
    """

    artifact: str
    field: str
    a: Any
    b: Any


@dataclass(frozen=True)
class PoolOverlap:
    """How much the fronts of the pools have in common.

    Attributes:
        k: Negatives at the front of each pool that are compared.
        mean: Mean overlap in [0, 1] over the rows that have a negative; None where no row has.
    """

    k: int
    mean: float | None


@dataclass(frozen=True)
class Placement:
    """Where a run has a passage as a negative of a pair.

    Attributes:
        slot: Place in the pool, from 0; None where the pool does not have it.
        rank: Rank among the candidates, from 0; None where it is no candidate.
        score: Its score; None where it is no hit.
        verdict: Its verdict; None where it is no hit.
        positive_score: Score of the positive.
    """

    slot: int | None
    rank: int | None
    score: float | None
    verdict: str | None
    positive_score: float


@dataclass(frozen=True)
class Example:
    """A negative that one run has and the other lacks.

    Attributes:
        change: `lost` where A has it, `gained` where B has it.
        reason: Why the other run has no such negative: one of `REASONS`.
        query: Text of the query.
        positive: Text of the positive.
        negative: Text of the negative.
        a: Where A has it.
        b: Where B has it.
    """

    change: str
    reason: str
    query: str
    positive: str
    negative: str
    a: Placement
    b: Placement


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two runs compared.

    Attributes:
        run_a: Directory of A.
        run_b: Directory of B.
        query: Text or original id of the only query compared; None for all.
        models: `a` and `b` -> what made the embeddings: a model, a function or files of vectors.
        settings: Settings that differ.
        queries: Distinct queries.
        passages: Distinct passages.
        pairs: Pairs, of the query where there is one.
        rows: Pairs of both runs by where they are rows, and how their pools differ.
        negatives: Negatives of the rows in both.
        overlap: Overlap of the fronts of their pools.
        reasons: `lost` and `gained` -> reason -> negatives, reasons without any left out.
        examples: Some of the changes.
    """

    run_a: str
    run_b: str
    query: str | None
    models: dict[str, str]
    settings: list[SettingDifference]
    queries: SharedCounts
    passages: SharedCounts
    pairs: SharedCounts
    rows: ComparedRows
    negatives: SharedCounts
    overlap: PoolOverlap
    reasons: dict[str, dict[str, int]]
    examples: list[Example]

    def to_json(self) -> dict[str, Any]:
        """What `--json` writes, in the order of the fields."""
        return asdict(self)
